"""Lines of JSON over a unix socket, with time-outs and size limits: the other end may be a hostile guest."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

_CHUNK = 1 << 16


class ChannelError(Exception):
    """The other end is not there, did not answer in time, or did not speak the protocol."""


class ChannelTimeoutError(ChannelError):
    """No answer in time."""


class Channel:
    """A connection that sends and receives one JSON object per line."""

    def __init__(self, path: Path, *, limit: int) -> None:
        """Connect to the unix socket ``path``. limit: the longest answer accepted, in bytes. Raises ChannelError."""
        self._limit = limit
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ChannelError(f"cannot connect to {path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, value: Any, *, prefix: bytes = b"", fd: int | None = None, timeout: float = 30) -> None:
        """Send one object. prefix goes before it on the wire, an open file with it. Raises ChannelError."""
        self._socket.settimeout(timeout)
        data = prefix + json.dumps(value).encode() + b"\n"
        try:
            if fd is not None:
                data = data[socket.send_fds(self._socket, [data], [fd]) :]
            self._socket.sendall(data)
        except OSError as error:
            raise ChannelError(f"the connection broke: {error.strerror or error}") from error

    def receive_line(self, timeout: float) -> bytes:
        """The next line without its end. Raises ChannelError after ``timeout`` seconds and on a line over the limit."""
        deadline = time.monotonic() + timeout
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._limit:
                raise ChannelError(f"an answer is longer than {self._limit} bytes")
            self._buffer += self._read(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next object. Raises ChannelError as ``receive_line`` does, and where the line is no JSON object."""
        return parse(self.receive_line(timeout))

    def _read(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ChannelTimeoutError("no answer in time")
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(_CHUNK)
        except TimeoutError as error:
            raise ChannelTimeoutError("no answer in time") from error
        except OSError as error:
            raise ChannelError(f"the connection broke: {error.strerror or error}") from error
        if not data:
            raise ChannelError("the other end hung up")
        return data


def parse(line: bytes) -> dict[str, Any]:
    """One line as a JSON object. Raises ChannelError."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"an answer is not JSON: {line[:80]!r}") from error
    if not isinstance(value, dict):
        raise ChannelError(f"an answer is not a JSON object: {line[:80]!r}")
    return value
