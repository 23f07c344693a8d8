"""A synchronous client of the QEMU guest agent. The guest is untrusted: every answer has a time-out and a size limit.

Reference: https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from labctl.errors import GuestError
from labctl.providers.base import ExecResult
from labctl.providers.qemu.jsonline import Channel, ChannelError, ChannelTimeoutError, parse

# The agent keeps at most 16 MiB of each output stream (GUEST_EXEC_MAX_OUTPUT); base64 makes it a third longer.
_LIMIT = 48 << 20
_CHUNK = 192 << 10
_ANSWER = 20.0
_REPEAT = 15.0
_POLL_FIRST, _POLL_LAST = 0.02, 0.25


class Agent:
    """A session with a guest's agent. QEMU serves one session at a time on a socket, so keep it short."""

    def __init__(self, path: Path, *, alive: Callable[[], bool] = lambda: True) -> None:
        """Connect to the agent's socket; ``synchronise`` must follow. Raises GuestError.

        alive: asked between waits; when it says no, waiting ends with a GuestError.
        """
        self._alive = alive
        try:
            self._channel = Channel(path, limit=_LIMIT)
        except ChannelError as error:
            raise GuestError(f"the guest agent's socket does not answer: {error}") from error

    def close(self) -> None:
        """End the session."""
        self._channel.close()

    def synchronise(self, timeout: float) -> None:
        """Wait until the agent answers.

        The request waits in the socket until the guest opens its port, so one is enough while a guest boots; it is
        repeated now and then for an agent that restarted. Only the last one's answer counts: those before it are
        answered before it, and none may be left over for the calls that follow. Raises GuestError.
        """
        deadline = time.monotonic() + timeout
        number, repeat = 0, 0.0
        while time.monotonic() < deadline:
            try:
                if time.monotonic() >= repeat:
                    number = secrets.randbelow(1 << 31)
                    # 0xFF makes the agent's parser drop whatever a former session left unfinished
                    self._channel.send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, prefix=b"\xff")
                    repeat = time.monotonic() + _REPEAT
                if self._synchronised(number):
                    return
            except ChannelError as error:
                raise GuestError(f"the guest agent does not answer: {error}") from error
            if not self._alive():
                break
        raise GuestError("the guest agent does not answer")

    def _synchronised(self, number: int) -> bool:
        try:
            line = self._channel.receive_line(0.25)
        except ChannelTimeoutError:
            return False
        marker = line.rfind(b"\xff")
        if marker < 0:
            return False
        with contextlib.suppress(ChannelError):
            return bool(parse(line[marker + 1 :]).get("return") == number)
        return False

    def call(self, command: str, *, timeout: float = _ANSWER, **arguments: Any) -> Any:
        """Run an agent command and give its ``return`` value. Underscores in argument names stand for dashes."""
        number = secrets.randbelow(1 << 31)
        request: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._channel.send(request, timeout=timeout)
            answer = self._answer(number, timeout)
        except ChannelError as error:
            raise GuestError(f"the guest agent did not answer {command}: {error}") from error
        if "return" in answer:
            return answer["return"]
        raise GuestError(f"the guest agent refused {command}", details=str(answer.get("error"))[:2000])

    def _answer(self, number: int, timeout: float) -> dict[str, Any]:
        """The answer to request ``number``.

        An interrupted session may leave answers behind, its parse errors among them, which come without a number.
        Agents older than QEMU 4.0 number nothing, so another answer without one is taken as ours.
        """
        deadline = time.monotonic() + timeout
        while True:
            answer = self._channel.receive(max(0.0, deadline - time.monotonic()))
            if answer.get("id") == number:
                return answer
            if "id" not in answer and "JSON parse error" not in str(answer.get("error")):
                return answer

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> ExecResult:
        """Run a program as root and give what it wrote, at most 16 MiB of each stream. Raises GuestError.

        timeout is in seconds for the whole program. One that runs longer is left running in the guest, because the
        agent cannot stop it.
        """
        extra: dict[str, Any] = {"input_data": base64.b64encode(stdin).decode()} if stdin else {}
        started = self.call("guest-exec", path=argv[0], arg=list(argv[1:]), capture_output=True, **extra)
        pid, deadline, pause = _field(started, "pid", int), time.monotonic() + timeout, _POLL_FIRST
        while True:
            status = self.call("guest-exec-status", pid=pid)
            if _field(status, "exited", bool):
                break
            if time.monotonic() > deadline:
                raise GuestError(f"{argv[0]} did not end within {timeout:g} s in the guest")
            if not self._alive():
                raise GuestError(f"{argv[0]} was given up in the guest")
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL_LAST)
        code = status.get("exitcode")
        if not isinstance(code, int):
            code = 128 + (status["signal"] if isinstance(status.get("signal"), int) else 0)
        return ExecResult(code, _decoded(status, "out-data"), _decoded(status, "err-data"))

    def write(self, path: str, content: bytes) -> None:
        """Write a file in the guest, in pieces. Raises GuestError."""
        handle = self.call("guest-file-open", path=path, mode="wb")
        try:
            for start in range(0, len(content), _CHUNK):
                piece = base64.b64encode(content[start : start + _CHUNK]).decode()
                self.call("guest-file-write", handle=handle, buf_b64=piece, timeout=60)
        finally:
            self.call("guest-file-close", handle=handle)

    def shut_down(self) -> None:
        """Ask the guest's init to power off. Raises GuestError where nobody takes the order.

        Not by guest-shutdown on Linux: it schedules through logind, which lean images do not run. Windows has no
        /bin/sh.
        """
        try:
            self.call("guest-exec", path="/bin/sh", arg=["-c", "systemctl --no-block poweroff || poweroff"])
        except GuestError:
            with contextlib.suppress(ChannelError):  # this command has no answer
                self._channel.send({"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}})


@contextlib.contextmanager
def agent(path: Path, *, timeout: float, alive: Callable[[], bool] = lambda: True) -> Iterator[Agent]:
    """A synchronised session for the length of a ``with`` block. timeout: seconds to wait for the agent."""
    session = Agent(path, alive=alive)
    try:
        session.synchronise(timeout)
        yield session
    finally:
        session.close()


def _field(value: Any, name: str, kind: type) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get(name), kind):
        raise GuestError("the guest agent's answer makes no sense", details=str(value)[:500])
    return value[name]


def _decoded(status: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(status.get(name, ""), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise GuestError("the guest agent's answer makes no sense", details=str(error)) from error
