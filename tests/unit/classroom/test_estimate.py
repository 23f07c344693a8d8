"""What a class takes of a host: how many instances fit, by which resource, and what is said where they do not."""

from __future__ import annotations

import pytest

from labctl.errors import HostError
from labctl.host.room import Room as HostRoom
from labctl.lifecycle.classroom import survey as surveys
from labctl.lifecycle.classroom.estimate import Bounds, estimate
from labctl.lifecycle.classroom.survey import refusal, survey, which_fit
from labctl.providers.base import Footprint
from labctl.providers.fake.provider import FakeProvider
from tests.support.classes import Room

pytestmark = pytest.mark.unit

MIB, GIB = 1 << 20, 1 << 30
NO_LIMIT = HostRoom(None, None, None, None)


def bounds(room: HostRoom = NO_LIMIT, **more: int) -> Bounds:
    return Bounds(room, **{"jobs": 2, "ports": 1000, **more})


def lab(memory: int = 100 * MIB, shared: int = 0, disk: int = 0) -> dict[str, Footprint]:
    """An instance of two machines of one shape."""
    one = Footprint(memory, memory + shared, disk=disk, processes=3, shared="x" if shared else "", shared_memory=shared)
    return {"a": one, "b": one}


def fits(what: str, needs: list[dict[str, Footprint]], limits: Bounds) -> int:
    (found,) = [one for one in estimate(needs, limits).resources if one.what == what]
    assert found.short == (found.fits < len([one for one in needs if one]))
    return found.fits


def test_instances_share_what_their_machines_have_in_common() -> None:
    there = HostRoom(10 * 200 * MIB + 256 * MIB + 64 * MIB, None, None, None)
    assert fits("memory", [lab(shared=256 * MIB)] * 10, bounds(there)) == 10
    assert fits("memory", [lab(shared=256 * MIB)] * 11, bounds(there)) == 10
    assert fits("memory", [lab(memory=356 * MIB)] * 10, bounds(there)) == 3


@pytest.mark.parametrize(
    ("what", "limits", "expected"),
    [
        ("memory", bounds(HostRoom(64 * MIB + 5 * 200 * MIB, None, None, None)), 5),
        ("disk", bounds(HostRoom(None, 256 * MIB + 4 * 20 * MIB, None, None)), 4),
        ("processes and threads", bounds(HostRoom(None, None, 6 * 7 + 5, None)), 7),
        ("ports of the loopback", bounds(ports=7), 3),
        ("instances that the class may have", bounds(instances=2), 2),
        ("memory that the class may take", bounds(memory=3 * 200 * MIB), 3),
        ("open files (ulimit -n)", bounds(HostRoom(None, None, None, 64 + 4 * 4)), 9),
        ("open files (ulimit -n)", bounds(HostRoom(None, None, None, 64 + 4 * 4 - 1)), 1),
    ],
)
def test_each_resource_is_counted_by_itself(what: str, limits: Bounds, expected: int) -> None:
    assert fits(what, [lab(disk=10 * MIB)] * 9, limits) == expected


def test_the_scarcest_resource_decides() -> None:
    found = estimate([lab()] * 9, bounds(HostRoom(64 * MIB + 5 * 200 * MIB, None, None, None), ports=8))
    assert found.fits == 4
    assert [one.what for one in found.short] == ["memory", "ports of the loopback"]


def test_instances_that_run_already_cost_nothing_more() -> None:
    found = estimate([{}, lab(), {}], bounds(instances=1))
    assert (found.starts, found.fits, found.short) == (1, 1, ())


def test_what_used_machines_grow_to_is_said_and_refuses_nothing() -> None:
    found = estimate([lab(memory=10 * MIB, shared=256 * MIB)] * 9, bounds(HostRoom(GIB, None, None, None)))
    assert found.short == ()
    assert found.fits == 9
    assert found.notes == ("memory once machines are used: 4788 MiB wanted, 1024 MiB there",)


def test_what_reset_goes_back_to_takes_disk_and_refuses_nothing() -> None:
    kept = {"a": Footprint(112 * MIB, 356 * MIB, disk=16 * MIB)}
    found = estimate([kept] * 3, bounds(HostRoom(None, 256 * MIB + 3 * 16 * MIB, None, None)))
    assert found.short == ()
    assert found.notes == ("disk with what `class reset` goes back to: 1072 MiB wanted, 304 MiB there",)


@pytest.fixture
def narrow(room: Room, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A class of three whose instances take 2 GiB each, on a host for two of them."""
    monkeypatch.setattr(FakeProvider, "footprint", lambda *_: Footprint(GIB, GIB))
    monkeypatch.setattr(surveys, "room", lambda _: HostRoom(5 * GIB, None, None, None))
    return room


def test_a_class_that_does_not_fit_is_refused_whole_with_numbers_and_what_fits(narrow: Room) -> None:
    with pytest.raises(HostError) as caught:
        narrow.up()
    assert caught.value.brief == "3 instances of monday do not fit on this host; 2 do"
    assert caught.value.details == "memory: 6208 MiB needed, 5120 MiB there, enough for 2 of 3"
    assert "--only 1-2 brings up those that fit" in caught.value.hint
    assert narrow.states() == dict.fromkeys(("s01", "s02", "s03"), "not made")


def test_what_fits_comes_up_and_then_nothing_more_does(narrow: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow.up("s01,s02")
    assert narrow.states() == {"s01": "up", "s02": "up", "s03": "not made"}
    monkeypatch.setattr(surveys, "room", lambda _: HostRoom(GIB, None, None, None))
    assert narrow.up("s01,s02")["s01"].did == "nothing had to change"
    found = survey(narrow.spec, narrow.chosen(), provider="fake", jobs=2)
    assert which_fit(found, narrow.spec) == ""
    assert "do not fit on this host; 0 do" in refusal(found, narrow.spec).brief


def test_what_fits_is_said_in_places_beside_what_is_up(room: Room) -> None:
    room.write("limits: {instances: 4}\n", roster="[a, b, c, d, e, f]")
    room.up("3,5")
    found = survey(room.spec, room.chosen(), provider="fake", jobs=2)
    assert which_fit(found, room.spec) == "1-3,5"
    room.up(which_fit(found, room.spec))
    assert [name for name, state in room.states().items() if state == "up"] == ["a", "b", "c", "e"]


def test_the_class_may_be_forced(narrow: Room) -> None:
    narrow.up(force=True)
    assert set(narrow.states().values()) == {"up"}


def test_instances_that_are_up_and_not_chosen_count_for_the_limits_of_the_class(room: Room) -> None:
    room.write("limits: {instances: 2}\n")
    room.up("s01,s02")
    with pytest.raises(HostError, match="1 instances of monday do not fit"):
        room.up("s03")
    room.up("s01,s02")
    assert room.states() == {"s01": "up", "s02": "up", "s03": "not made"}


def test_the_memory_that_the_class_takes_already_counts(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProvider, "footprint", lambda *_: Footprint(100 * MIB, 100 * MIB))
    room.write("limits: {memory: 500 MiB}\n")
    room.up("s01,s02")
    with pytest.raises(HostError) as caught:
        room.up("s03")
    assert "memory that the class may take: 200 MiB needed, 100 MiB there" in caught.value.details


def test_a_survey_says_what_up_would_do_and_makes_nothing(room: Room) -> None:
    room.up("s01,s02")
    room.notes("s02").change("a", state="dead")
    found = survey(room.spec, room.chosen(), provider="fake", jobs=2)
    assert [(i.place.instance, i.state, sorted(i.needs)) for i in found.intents] == [
        ("s01", "up", []),
        ("s02", "partly up", ["a"]),
        ("s03", "new", ["a", "b"]),
    ]
    assert found.vcpus == 6
    assert room.states()["s03"] == "not made"
