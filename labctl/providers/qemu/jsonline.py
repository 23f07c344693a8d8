"""Lines of JSON over a socket or pipes, with time-outs and size limits: the other end may be a hostile guest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labctl.providers.qemu.streams import StreamError, StreamTimeoutError, opened


class ChannelError(Exception):
    """The other end is not there, did not answer in time, or did not speak the protocol."""


class ChannelTimeoutError(ChannelError):
    """No answer in time."""


class Channel:
    """A connection that sends and receives one JSON object per line."""

    def __init__(self, path: Path, *, limit: int, timeout: float = 5, alive: Callable[[], bool] = lambda: True) -> None:
        """Connect to the unix socket or the named pipes at ``path``. Raises ChannelError.

        limit: the longest answer accepted, in bytes. timeout: seconds to wait for others to be done with the pipes.
        alive: asked meanwhile; when it says no, the wait ends.
        """
        self._limit = limit
        self._buffer = bytearray()
        try:
            self._stream = opened(path, timeout, alive)
        except StreamError as error:
            raise ChannelError(str(error)) from error

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def send(self, value: Any, *, prefix: bytes = b"", fd: int | None = None, timeout: float = 30) -> None:
        """Send one object. prefix goes before it on the wire, an open file with it. Raises ChannelError."""
        try:
            self._stream.write(prefix + json.dumps(value).encode() + b"\n", timeout, fd)
        except StreamError as error:
            raise ChannelError(str(error)) from error

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
        try:
            return self._stream.read(left)
        except StreamTimeoutError as error:
            raise ChannelTimeoutError(str(error)) from error
        except StreamError as error:
            raise ChannelError(str(error)) from error


def parse(line: bytes) -> dict[str, Any]:
    """One line as a JSON object. Raises ChannelError."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"an answer is not JSON: {line[:80]!r}") from error
    if not isinstance(value, dict):
        raise ChannelError(f"an answer is not a JSON object: {line[:80]!r}")
    return value
