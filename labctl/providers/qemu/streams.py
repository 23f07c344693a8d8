"""The two kinds of ends that QEMU gives its callers: a unix socket, and a pair of named pipes.

A guest sees whether anybody is connected to a socket, and qemu-ga asks ten times a second while nobody is: in a lab
that rests this was most of what its machines did. The pipes' other end is always there, so the agent sleeps until it is
spoken to, and answers at once. But all who open a pipe read from the same stream: a lock lets one in at a time.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

_CHUNK = 1 << 16
_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 0.25


class StreamError(Exception):
    """The other end is not there or has gone."""


class StreamTimeoutError(StreamError):
    """Nothing could be read or written in time."""


class Stream(Protocol):
    """Bytes in both directions. Every call raises StreamError, and none lasts longer than its ``timeout`` seconds."""

    def write(self, data: bytes, timeout: float, fd: int | None = None) -> None:
        """Write all of it. fd: an open file that goes with it, where the kind of stream can."""

    def read(self, timeout: float) -> bytes:
        """What there is next, at least a byte."""

    def close(self) -> None:
        """Hang up."""


class Socket:
    """A connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_CONNECT_SECONDS)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise StreamError(f"cannot connect to {path}: {_words(error)}") from error

    def write(self, data: bytes, timeout: float, fd: int | None = None) -> None:
        self._socket.settimeout(timeout)
        try:
            if fd is not None:
                data = data[socket.send_fds(self._socket, [data], [fd]) :]
            self._socket.sendall(data)
        except OSError as error:
            raise StreamError(f"the connection broke: {_words(error)}") from error

    def read(self, timeout: float) -> bytes:
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(_CHUNK)
        except TimeoutError as error:
            raise StreamTimeoutError("no answer in time") from error
        except OSError as error:
            raise StreamError(f"the connection broke: {_words(error)}") from error
        if not data:
            raise StreamError("the other end hung up")
        return data

    def close(self) -> None:
        self._socket.close()


class Pipes:
    """The named pipes beside ``path``: ``.in`` leads to the guest, ``.out`` from it (QEMU's ``-chardev pipe``)."""

    def __init__(self, path: Path, timeout: float, alive: Callable[[], bool]) -> None:
        """Open them once nobody else has them open. See ``opened``."""
        into, out, lock = _files(path)
        self._lock = FileLock(lock, thread_local=False)
        try:
            _acquire(self._lock, timeout, alive)
        except OSError as error:
            raise StreamError(f"cannot connect to {path}: {_words(error)}") from error
        try:
            self._into = _open(into, os.O_WRONLY)
            try:
                self._out = _open(out, os.O_RDONLY)
            except StreamError:
                os.close(self._into)
                raise
        except StreamError:
            self._lock.release()
            raise

    def write(self, data: bytes, timeout: float, fd: int | None = None) -> None:
        if fd is not None:
            raise StreamError("a pipe takes no open files")
        deadline, left = time.monotonic() + timeout, memoryview(data)
        while left:
            _await(self._into, selectors.EVENT_WRITE, deadline)
            try:
                left = left[os.write(self._into, left) :]
            except BlockingIOError:
                time.sleep(0.001)  # there is room, but for less than what must be written in one piece
            except OSError as error:
                raise StreamError(f"the connection broke: {_words(error)}") from error

    def read(self, timeout: float) -> bytes:
        _await(self._out, selectors.EVENT_READ, time.monotonic() + timeout)
        try:
            data = os.read(self._out, _CHUNK)
        except OSError as error:
            raise StreamError(f"the connection broke: {_words(error)}") from error
        if not data:
            raise StreamError("the other end hung up")
        return data

    def close(self) -> None:
        os.close(self._into)
        os.close(self._out)
        self._lock.release()


def opened(path: Path, timeout: float, alive: Callable[[], bool] = lambda: True) -> Stream:
    """The stream at ``path``, whichever kind is there.

    timeout: seconds to wait for others to be done with it. alive: asked between waits; when it says no, that ends.
    """
    return Pipes(path, timeout, alive) if _files(path)[0].is_fifo() else Socket(path)


def make_pipes(path: Path) -> None:
    """Lay new pipes, for this user only; what others have open is theirs no more. Raises OSError."""
    remove(path)
    for pipe in _files(path)[:2]:
        os.mkfifo(pipe, 0o600)


def remove(path: Path) -> None:
    """Remove a stream's files. The lock stays: who waits for it must not hold another one than who comes after."""
    for name in (path, *_files(path)[:2]):
        name.unlink(missing_ok=True)


def _files(path: Path) -> tuple[Path, Path, Path]:
    into, out, lock = (path.with_name(f"{path.name}.{end}") for end in ("in", "out", "lock"))
    return into, out, lock


def _acquire(lock: FileLock, timeout: float, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            lock.acquire(timeout=max(0.0, min(left, _LOOK_SECONDS)), poll_interval=0.02)
            return
        except Timeout as error:
            if left <= _LOOK_SECONDS or not alive():
                raise StreamTimeoutError("another labctl speaks with it") from error


def _open(pipe: Path, way: int) -> int:
    """Open a pipe's end. QEMU opens its own a moment after its process has begun."""
    deadline = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            return os.open(pipe, way | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise StreamError(f"cannot connect to {pipe}: {_words(error)}") from error
            time.sleep(0.01)


def _await(fd: int, what: int, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, what)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise StreamTimeoutError("no answer in time")


def _words(error: OSError) -> str:
    return error.strerror or str(error)
