"""What is done over a QEMU guest agent, however its commands get there. The guest is untrusted: answers are checked.

Reference: https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from labctl.errors import GuestError
from labctl.providers.base import ExecResult, UnfinishedError

ANSWER_SECONDS = 20.0
_CHUNK = 192 << 10
_FILE_LIMIT = 16 << 20
_STILL_THERE_SECONDS = 5.0
# A program's end is asked for, and each question costs an emulated guest milliseconds.
_POLL_FIRST, _POLL_LAST, _POLL_SHARE = 0.02, 0.4, 0.1


class RefusedError(GuestError):
    """The agent answers and will not, or cannot, do what it was told."""


class GuestAgent(ABC):
    """A guest's agent."""

    @abstractmethod
    def call(self, command: str, *, timeout: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """Run an agent command and give its ``return`` value. Underscores in argument names stand for dashes.

        Raises RefusedError, and GuestError where the agent does not answer within ``timeout`` seconds.
        """

    @abstractmethod
    def order(self, command: str, **arguments: Any) -> None:
        """Send a command that has no answer."""

    def alive(self) -> bool:
        """Whether waiting for the guest still makes sense."""
        return True

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> ExecResult:
        """Run a program as root and give what it wrote, at most 16 MiB of each stream. Raises GuestError.

        timeout is in seconds for the whole program. One that runs longer is left running in the guest, because the
        agent cannot stop it; that is an UnfinishedError.
        """
        extra: dict[str, Any] = {"input_data": base64.b64encode(stdin).decode()} if stdin else {}
        started = self.call(
            "guest-exec",
            timeout=max(ANSWER_SECONDS, timeout),
            path=argv[0],
            arg=list(argv[1:]),
            capture_output=True,
            **extra,
        )
        try:
            status = self._ended(argv[0], _field(started, "pid", int), timeout)
        except GuestError as error:
            raise UnfinishedError(error.brief, details=error.details, hint=error.hint) from error
        code = status.get("exitcode")
        if not isinstance(code, int):
            code = 128 + (status["signal"] if isinstance(status.get("signal"), int) else 0)
        return ExecResult(code, _decoded(status, "out-data"), _decoded(status, "err-data"))

    def _ended(self, program: str, pid: int, timeout: float) -> dict[str, Any]:
        for left in turns(timeout):
            # a guest that is busy with what it was told to run gets the time of that for its answers too
            status: dict[str, Any] = self.call("guest-exec-status", pid=pid, timeout=max(ANSWER_SECONDS, left))
            if _field(status, "exited", bool):
                return status
            if not self.alive():
                raise GuestError(f"{program} was given up in the guest")
        raise GuestError(f"{program} did not end within {timeout:g} s in the guest")

    def write(self, path: str, content: bytes) -> None:
        """Write a file in the guest, in pieces. Raises GuestError."""
        with self._opened(path, "wb") as handle:
            self._write(handle, content)

    def write_over(self, path: str, content: bytes) -> None:
        """Write over the beginning of a file that is there. Raises RefusedError where it is not, GuestError."""
        with self._opened(path, "rb+") as handle:
            self._write(handle, content)

    @contextlib.contextmanager
    def _opened(self, path: str, mode: str) -> Iterator[int]:
        handle = self.call("guest-file-open", path=path, mode=mode)
        try:
            yield handle
        finally:
            self.call("guest-file-close", handle=handle)

    def _write(self, handle: int, content: bytes) -> None:
        for start in range(0, len(content), _CHUNK):
            piece = base64.b64encode(content[start : start + _CHUNK]).decode()
            self.call("guest-file-write", handle=handle, buf_b64=piece, timeout=60)

    def ask(self, door: str, question: bytes, *, takes: float = 0, timeout: float) -> bytes | None:
        """As ``Provider.ask``."""
        word = secrets.token_hex(8)
        try:
            with self._opened(door, "rb+") as handle:
                self.write(f"{door}.question", question)
                self._write(handle, f"{word}\n".encode())
        except RefusedError:
            return None
        for left in turns(timeout, takes):
            with contextlib.suppress(RefusedError):
                return self.read(f"{door}.{word}")
            if timeout - left > _STILL_THERE_SECONDS and not self._is_there(door):
                raise UnfinishedError("who was asked in the guest is gone")
            if not self.alive():
                raise UnfinishedError("what was asked was given up")
        raise UnfinishedError(f"there is no answer within {timeout:g} s from the guest")

    def _is_there(self, path: str) -> bool:
        try:
            with self._opened(path, "r"):
                return True
        except RefusedError:
            return False

    def read(self, path: str) -> bytes:
        """The content of a file in the guest, at most 16 MiB. Raises RefusedError where it is not there, GuestError."""
        content = b""
        with self._opened(path, "r") as handle:
            while len(content) <= _FILE_LIMIT:
                piece = self.call("guest-file-read", handle=handle, count=_CHUNK)
                content += _decoded(piece, "buf-b64")
                if _field(piece, "eof", bool):
                    return content
        raise GuestError(f"{path} in the guest is longer than it should be")

    def read_on(self, handle: int, size: int) -> bytes:
        """What comes next in a file that ``guest-file-open`` gave; nothing at its present end. Raises GuestError."""
        return _decoded(self.call("guest-file-read", handle=handle, count=size), "buf-b64")

    def shut_down(self) -> None:
        """Ask the guest's init to power off. Raises GuestError where nobody takes the order.

        Not by guest-shutdown on Linux: it schedules through logind, which lean images do not run. Windows has no
        /bin/sh.
        """
        try:
            self.call("guest-exec", path="/bin/sh", arg=["-c", "systemctl --no-block poweroff || poweroff"])
        except GuestError:
            with contextlib.suppress(GuestError):
                self.order("guest-shutdown", mode="powerdown")


def turns(seconds: float, takes: float = 0) -> Iterator[float]:
    """For asking an emulated guest now and then: the seconds that are left, once more when there are none.

    takes: seconds at the start in which it need not be asked.
    """
    began = time.monotonic()
    time.sleep(takes)
    while True:
        passed = time.monotonic() - began
        yield max(0.0, seconds - passed)
        if passed > seconds:
            return
        time.sleep(min(max(_POLL_FIRST, _POLL_SHARE * passed), _POLL_LAST))


def request(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A command as the agent takes it, underscores in the names of arguments made dashes."""
    made: dict[str, Any] = {"execute": command}
    if arguments:
        made["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
    return made


def _field(value: Any, name: str, kind: type) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get(name), kind):
        raise GuestError("the guest agent's answer makes no sense", details=str(value)[:500])
    return value[name]


def _decoded(status: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(status.get(name, ""), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise GuestError("the guest agent's answer makes no sense", details=str(error)) from error
