"""A synchronous client of a guest agent. The guest is untrusted: answers have a time-out and a size limit.

Reference: https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labctl.errors import GuestError
from labctl.providers.agent import ANSWER_SECONDS, GuestAgent, RefusedError, request
from labctl.providers.qemu.jsonline import Channel, ChannelError, ChannelTimeoutError, parse

# The agent keeps at most 16 MiB of each output stream (GUEST_EXEC_MAX_OUTPUT); base64 makes it a third longer.
_LIMIT = 48 << 20
_REPEAT = 15.0


class Agent(GuestAgent):
    """A session with a guest's agent. There is one at a time for each guest, so keep it short."""

    def __init__(self, path: Path, *, timeout: float = 5, alive: Callable[[], bool] = lambda: True) -> None:
        """Connect to the agent's end; ``synchronise`` must follow. Raises GuestError.

        timeout: seconds to wait for another session's end. alive: asked between waits; when it says no, waiting ends
        with a GuestError.
        """
        self._alive = alive
        try:
            self._channel = Channel(path, limit=_LIMIT, timeout=timeout, alive=alive)
        except ChannelError as error:
            raise GuestError(f"the way to the guest agent is not there: {error}") from error

    def close(self) -> None:
        """End the session."""
        self._channel.close()

    def synchronise(self, timeout: float) -> None:
        """Wait until the agent answers.

        The request waits in the channel until the guest opens its port, so one is enough while a guest boots; it is
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

    def call(self, command: str, *, timeout: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """As in GuestAgent."""
        number = secrets.randbelow(1 << 31)
        try:
            self._channel.send({**request(command, arguments), "id": number}, timeout=timeout)
            answer = self._answer(number, timeout)
        except ChannelError as error:
            raise GuestError(f"the guest agent did not answer {command}: {error}") from error
        if "return" in answer:
            return answer["return"]
        raise RefusedError(f"the guest agent refused {command}", details=str(answer.get("error"))[:2000])

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

    def order(self, command: str, **arguments: Any) -> None:
        """Send a command that has no answer. Raises GuestError."""
        try:
            self._channel.send(request(command, arguments))
        except ChannelError as error:
            raise GuestError(f"the guest agent did not take {command}: {error}") from error

    def alive(self) -> bool:
        """Whether the guest is still there and labctl was not interrupted."""
        return self._alive()


@contextlib.contextmanager
def agent(
    path: Path, *, timeout: float, turn: float | None = None, alive: Callable[[], bool] = lambda: True
) -> Iterator[Agent]:
    """A synchronised session for the length of a ``with`` block.

    timeout: seconds to wait for the agent. turn: for another session's end; as long as for the agent unless said.
    """
    session = Agent(path, timeout=timeout if turn is None else turn, alive=alive)
    try:
        session.synchronise(timeout)
        yield session
    finally:
        session.close()
