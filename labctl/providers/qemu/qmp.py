"""A small synchronous client of the QEMU Machine Protocol.

Reference: https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labctl.errors import ProviderError
from labctl.providers.qemu.jsonline import Channel, ChannelError, ChannelTimeoutError

_LIMIT = 16 << 20
_TIMEOUT = 10.0


class RefusedError(ProviderError):
    """QEMU has understood what it was told to do, and does not do it or cannot."""


class Monitor:
    """A QMP session. QEMU serves one session at a time on a socket, so keep it short."""

    def __init__(self, path: Path, *, timeout: float = _TIMEOUT) -> None:
        """Connect and negotiate. timeout: seconds for each answer. Raises ProviderError."""
        self._timeout = timeout
        self._concluded: set[str] = set()
        try:
            self._channel = Channel(path, limit=_LIMIT)
        except ChannelError as error:
            raise ProviderError(f"QEMU does not answer: {error}") from error
        try:
            self._receive()  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self._channel.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and give its ``return`` value. Underscores in argument names stand for dashes.

        Raises RefusedError where QEMU says no, ProviderError where it does not answer.
        """
        return self._execute(command, arguments)

    def hand_over(self, name: str, fd: int) -> None:
        """Give QEMU an open file, which its commands know by this name until one of them has used it."""
        self._execute("getfd", {"fdname": name}, fd)

    def _execute(self, command: str, arguments: Mapping[str, Any], fd: int | None = None) -> Any:
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._channel.send(request, fd=fd, timeout=self._timeout)
        except ChannelError as error:
            raise ProviderError(f"QEMU did not take {command}: {error}") from error
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RefusedError(f"QEMU refused {command}", details=str(answer["error"].get("desc", answer["error"])))
            self._notice(answer)

    def concluded(self, job: str, seconds: float) -> bool:
        """Wait until a job that this session has begun is at its end, for so long. Raises ProviderError.

        Asking again and again instead would take the time of a QEMU that is at work.
        """
        deadline = time.monotonic() + seconds
        while job not in self._concluded:
            try:
                self._notice(self._channel.receive(deadline - time.monotonic()))
            except ChannelTimeoutError:
                return False
            except ChannelError as error:
                raise ProviderError(f"QEMU does not answer: {error}") from error
        return True

    def _notice(self, event: Mapping[str, Any]) -> None:
        data = event.get("data", {})
        if event.get("event") == "JOB_STATUS_CHANGE" and data.get("status") == "concluded":
            self._concluded.add(data["id"])

    def human(self, line: str) -> str:
        """Run a command of the human monitor, for what QMP does not have."""
        return str(self.execute("human-monitor-command", command_line=line))

    def close(self) -> None:
        """End the session."""
        self._channel.close()

    def _receive(self) -> dict[str, Any]:
        try:
            return self._channel.receive(self._timeout)
        except ChannelError as error:
            raise ProviderError(f"QEMU does not answer: {error}") from error


@contextlib.contextmanager
def monitor(path: Path, *, timeout: float = _TIMEOUT) -> Iterator[Monitor]:
    """A QMP session for the length of a ``with`` block."""
    session = Monitor(path, timeout=timeout)
    try:
        yield session
    finally:
        session.close()
