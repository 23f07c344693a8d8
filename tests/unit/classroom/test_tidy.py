"""``tidy``: who is in use, who is stopped and why, and that ``up`` goes on from there."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from labctl.errors import HostError, LabctlError
from labctl.host import connections
from labctl.lifecycle import checkpoint, converge, fresh, locate, teardown
from labctl.lifecycle.classroom import tidying, verbs
from labctl.lifecycle.classroom.work import Result
from labctl.providers.base import Endpoint
from labctl.providers.fake.provider import FakeProvider
from labctl.spec.hours import DAYS
from labctl.state.lock import locked
from tests.support.classes import Room, by_name

pytestmark = pytest.mark.unit

NOW = 1796025600.0  # Monday, 30 November 2026, 08:00 UTC
HOUR = 3600.0
MORNINGS = "hours: {timezone: UTC, open: [{days: [mon, tue], from: 08:00, to: 12:00}]}\n"


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """What somebody is connected to: ports of s01 to s03 are 1 to 3."""
    usual, there = FakeProvider.endpoint, set[tuple[str, int]]()

    def endpoint(self: FakeProvider, plan: Any, machine: str) -> Endpoint:
        return replace(usual(self, plan, machine), port=int(plan.instance[1:]))

    monkeypatch.setattr(FakeProvider, "endpoint", endpoint)
    monkeypatch.setattr(tidying, "targets", lambda: frozenset(there))
    return there


@pytest.fixture
def idle(room: Room, connected: set[tuple[str, int]]) -> Room:
    """A class that may be idle for an hour, up and just looked at."""
    room.write("limits: {idle: 60 min}\n")
    room.up()
    tidy(room, NOW)
    return room


def tidy(room: Room, now: float, **options: Any) -> dict[str, Result]:
    found = tidying.tidy(room.spec, verbs.existing(room.chosen()), now, jobs=2, listener=room.events.append, **options)
    return by_name(found)


def did(results: dict[str, Result]) -> dict[str, tuple[str, str, bool]]:
    return {name: (one.did, one.facts["why"], one.facts["kept"]) for name, one in results.items()}


def left(room: Room, instance: str) -> str:
    record = locate.find_folder(room.folder / "lab", instance).record()
    assert record is not None
    return record.left


def test_who_is_idle_for_too_long_is_stopped_and_kept(idle: Room, connected: set[tuple[str, int]]) -> None:
    connected.add(("127.0.0.1", 2))
    assert set(did(tidy(idle, NOW + HOUR - 1)).values()) == {("idle", "", False), ("in use", "", False)}
    assert did(tidy(idle, NOW + HOUR)) == {
        "s01": ("stopped", "idle", True),
        "s02": ("in use", "", False),
        "s03": ("stopped", "idle", True),
    }
    assert idle.states() == {"s01": "down", "s02": "up", "s03": "down"}
    assert {name: one.did for name, one in tidy(idle, NOW + 1.5 * HOUR).items()} == {
        "s01": "was down",
        "s02": "in use",
        "s03": "was down",
    }
    connected.clear()
    assert tidy(idle, NOW + 2.4 * HOUR)["s02"].did == "idle"
    assert tidy(idle, NOW + 2.5 * HOUR)["s02"].did == "stopped"


def test_up_goes_on_from_the_state_that_was_left(idle: Room) -> None:
    idle.notes("s01").change("a", applied="in memory")
    tidy(idle, NOW + HOUR)
    idle.notes("s01").change("a", applied="lost")
    assert idle.up("s01")["s01"].did == "as it was left"
    assert idle.notes("s01").read()["a"].applied == "in memory"
    assert left(idle, "s01") == ""
    names = [one.name for one in checkpoint.listing(locate.find(idle.folder / "lab", instance="s01")).checkpoints]
    assert names == [fresh.NAME]
    assert idle.up("s01")["s01"].did == "nothing had to change"


def test_time_begins_anew_with_an_up(idle: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    tidy(idle, NOW + HOUR)
    idle.up()
    usual = FakeProvider.observe

    def observe(self: FakeProvider, plan: Any) -> Any:
        seen = usual(self, plan)
        return replace(seen, machines=tuple(replace(one, since=NOW + 5 * HOUR) for one in seen.machines))

    monkeypatch.setattr(FakeProvider, "observe", observe)
    assert {one.did for one in tidy(idle, NOW + 5.5 * HOUR).values()} == {"idle"}
    assert {one.did for one in tidy(idle, NOW + 6 * HOUR).values()} == {"stopped"}


@pytest.mark.parametrize("verb", ["up", "reset", "restore"])
def test_what_has_run_since_is_not_thrown_away(idle: Room, verb: str) -> None:
    """Whoever starts it by hand goes on from the disks; the next ``class up`` must not go back behind that."""
    lab = locate.find(idle.folder / "lab", instance="s01")
    checkpoint.save(lab, "mine")
    tidy(idle, NOW + HOUR)
    if verb == "up":
        converge.up(locate.draft(idle.folder / "lab", instance="s01"))
    elif verb == "reset":
        verbs.reset(idle.chosen("s01"), jobs=1)
    else:
        checkpoint.restore(lab, "mine")
    idle.notes("s01").change("a", marks=("my", "work"))
    teardown.down(locate.running(lab.folder))
    assert idle.up("s01")["s01"].did == "mended"
    assert idle.notes("s01").read()["a"].marks == ("", "work")
    assert left(idle, "s01") == ""


def test_the_second_time_takes_the_place_of_the_first(idle: Room) -> None:
    tidy(idle, NOW + HOUR)
    converge.up(locate.draft(idle.folder / "lab", instance="s01"))
    idle.notes("s01").change("a", applied="second")
    tidy(idle, NOW + HOUR)
    names = [one.name for one in checkpoint.listing(locate.find(idle.folder / "lab", instance="s01")).checkpoints]
    assert names.count(tidying.NAME) == 1
    idle.up("s01")
    assert idle.notes("s01").read()["a"].applied == "second"


def test_a_checkpoint_that_somebody_called_so_stays(idle: Room) -> None:
    lab = locate.find(idle.folder / "lab", instance="s01")
    saved = checkpoint.save(lab, tidying.NAME)
    assert did(tidy(idle, NOW + HOUR))["s01"] == ("stopped", "idle", False)
    assert [one.id for one in checkpoint.listing(lab).checkpoints if one.name == tidying.NAME] == [saved.id]
    assert left(idle, "s01") == ""
    assert any("somebody has saved" in event.message for event in idle.events if event.status == "warning")


def test_what_cannot_be_kept_is_stopped_all_the_same(idle: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(fresh, "free_bytes", lambda _folder: 0)
        assert did(tidy(idle, NOW + HOUR))["s01"] == ("stopped", "idle", False)
    assert idle.states()["s01"] == "down"
    assert idle.up("s01")["s01"].did == "mended"


def test_an_engine_that_is_slow_at_it_keeps_no_memory(idle: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = FakeProvider.capabilities
    monkeypatch.setattr(FakeProvider, "capabilities", classmethod(lambda _cls, plan: replace(usual(plan), fresh=False)))
    assert did(tidy(idle, NOW + HOUR))["s01"] == ("stopped", "idle", False)
    assert [event for event in idle.events if event.status == "warning"] == []


def test_what_labctl_works_on_is_in_use(idle: Room) -> None:
    with locked("two", "s01"):
        assert tidy(idle, NOW + HOUR)["s01"].did == "in use"
    assert tidy(idle, NOW + 1.5 * HOUR)["s01"].did == "idle"


def test_a_rehearsal_stops_nobody(idle: Room) -> None:
    assert {one.did for one in tidy(idle, NOW + HOUR, dry_run=True).values()} == {"would be stopped"}
    assert set(idle.states().values()) == {"up"}


def test_a_note_that_is_damaged_begins_the_time_anew(idle: Room) -> None:
    for place in idle.chosen():
        assert place.folder is not None
        (place.folder.path / "tidy.json").write_text("{")
    assert {one.did for one in tidy(idle, NOW + HOUR).values()} == {"idle"}


def test_while_the_class_is_closed_all_are_stopped(room: Room, connected: set[tuple[str, int]]) -> None:
    room.write(MORNINGS)
    room.up(anyway=True)
    for place in room.chosen():
        assert place.folder is not None
        (place.folder.path / "tidy.json").unlink(missing_ok=True)
    connected.add(("127.0.0.1", 2))
    assert {name: one.did for name, one in tidy(room, NOW + 4 * HOUR - 1).items()} == {
        "s01": "idle",
        "s02": "in use",
        "s03": "idle",
    }
    assert set(did(tidy(room, NOW + 4 * HOUR)).values()) == {("stopped", "closed", True)}


def test_who_has_left_the_roster_is_tidied_too(idle: Room) -> None:
    idle.write("limits: {idle: 60 min}\n", roster="[s01]")
    assert {name: one.did for name, one in tidy(idle, NOW + HOUR).items()} == dict.fromkeys(
        ("s01", "s02", "s03"), "stopped"
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that says what time it is for ``up``."""

    def set_to(now: float) -> None:
        monkeypatch.setattr(verbs, "time", type("Clock", (), {"time": staticmethod(lambda: now)}))

    return set_to


def test_a_closed_class_is_not_brought_up(room: Room, clock: Any) -> None:
    room.write(MORNINGS)
    clock(NOW - 1)
    with pytest.raises(LabctlError) as caught:
        room.up()
    assert caught.value.brief == "monday is closed until Mon 30 Nov 08:00 (UTC)"
    assert "--anyway" in caught.value.hint
    assert set(room.states().values()) == {"not made"}
    clock(NOW)
    room.up()
    assert set(room.states().values()) == {"up"}


def test_who_is_brought_up_anyway_runs_until_the_class_has_been_open(
    room: Room, clock: Any, connected: set[tuple[str, int]]
) -> None:
    room.write(MORNINGS)
    clock(NOW - 10 * HOUR)
    room.up("s01", anyway=True)
    assert tidy(room, NOW - 9 * HOUR)["s01"].did == "idle"
    assert tidy(room, NOW + 3 * HOUR)["s01"].did == "idle"
    assert tidy(room, NOW + 4 * HOUR)["s01"].did == "stopped"
    clock(NOW + HOUR)
    room.up("s01", anyway=True)  # it is open: nothing is spared
    assert tidy(room, NOW + 4 * HOUR)["s01"].did == "stopped"


def test_a_host_that_does_not_tell_who_is_connected_is_said(idle: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    def refuse(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(tidying, "targets", connections.targets)
    monkeypatch.setattr(psutil, "net_connections", refuse)
    with pytest.raises(HostError, match="tells its administrator alone"):
        tidy(idle, NOW + HOUR)
    assert set(idle.states().values()) == {"up"}


def test_days_are_those_of_the_calendar() -> None:
    assert DAYS[time.gmtime(NOW).tm_wday] == "mon"
