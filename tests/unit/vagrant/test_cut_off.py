"""How long a program in a machine whose cable is out is left alone before anybody looks, which takes the cable."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from labctl.errors import GuestError
from labctl.providers.base import ExecResult
from labctl.providers.vagrant import cut_off

pytestmark = pytest.mark.unit


class Guest:
    """Takes so many seconds for each program, and is done with what it was told after so many looks."""

    def __init__(self, takes: float, looks: int = 1) -> None:
        self.now, self.takes, self.looks = 0.0, takes, looks
        self.cable: list[tuple[float, bool]] = []

    def plug(self, joined: bool) -> None:
        self.cable.append((self.now, joined))

    def execute(self, argv: Sequence[str], *, stdin: bytes, timeout: float) -> ExecResult:
        self.now += self.takes
        if argv[2] == cut_off._COLLECT:
            self.looks -= 1
            return ExecResult(cut_off._NOT_YET, b"", b"") if self.looks else ExecResult(0, b"0\n2\nok", b"")
        return ExecResult(0, b"", b"")

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, seconds: float) -> ExecResult:
        return cut_off.run(self.execute, self.plug, "mac", ["true"], stdin=b"", seconds=seconds, timeout=600)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    guest: Guest = request.getfixturevalue("guest")
    monkeypatch.setattr(cut_off.time, "monotonic", lambda: guest.now)
    monkeypatch.setattr(cut_off.time, "sleep", guest.sleep)


@pytest.fixture
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(*request.param)


@pytest.mark.parametrize(("guest", "pause"), [((1.0,), 12.0), ((20.0,), 60.0)], indirect=["guest"])
def test_a_slow_guest_is_left_alone_for_longer(guest: Guest, pause: float) -> None:
    assert guest.run(12.0).stdout == b"ok"
    (_, began), (out, pulled), (again, joined), (_, ended) = guest.cable
    assert (began, pulled, joined, ended) == (True, False, True, False)
    assert again - out == pause


@pytest.mark.parametrize("guest", [(1.0, 3)], indirect=True)
def test_what_was_at_work_at_a_look_is_not_believed(guest: Guest) -> None:
    with pytest.raises(GuestError, match="while it was at work"):
        guest.run(12.0)
    pauses = [b - a for (a, joined), (b, _) in zip(guest.cable, guest.cable[1:], strict=False) if not joined]
    assert pauses == [12.0, 24.0, 48.0]
    assert guest.cable[-1][1] is False
