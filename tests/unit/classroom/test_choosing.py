"""``--only``, ``--sample``, and whose instances there are."""

from __future__ import annotations

import pytest

from labctl.errors import UsageError
from labctl.lifecycle import converge, locate
from labctl.lifecycle.classroom import verbs
from labctl.lifecycle.classroom.seats import places
from tests.support.classes import Room

pytestmark = pytest.mark.unit


def names(room: Room, *only: str) -> list[str]:
    return [place.instance for place in room.chosen(*only)]


@pytest.fixture
def five(room: Room) -> Room:
    room.write("groups: {team-a: [s02, s04]}\n", roster="[s01, s02, s03, s04, s05]")
    return room


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        ((), ["s01", "team-a", "s03", "s05"]),
        (("s03",), ["s03"]),
        (("s05,s01",), ["s01", "s05"]),
        (("s05", "s01"), ["s01", "s05"]),
        ((" s05 , ",), ["s05"]),
        (("team-a",), ["team-a"]),
        (("s04",), ["team-a"]),
        (("s02,s04",), ["team-a"]),
        (("2-3",), ["team-a", "s03"]),
        (("1",), ["s01"]),
        (("1-4",), ["s01", "team-a", "s03", "s05"]),
    ],
)
def test_only_means_ids_teams_and_places(five: Room, only: tuple[str, ...], chosen: list[str]) -> None:
    assert names(five, *only) == chosen


@pytest.mark.parametrize("only", ["0-2", "3-2", "1-5", "5", "0"])
def test_places_that_the_class_does_not_have_are_refused(five: Room, only: str) -> None:
    with pytest.raises(UsageError) as caught:
        names(five, only)
    assert "1-4" in caught.value.hint


@pytest.mark.parametrize("only", ["", ",", " "])
def test_an_only_that_names_nobody_does_not_mean_everybody(five: Room, only: str) -> None:
    with pytest.raises(UsageError, match="names nobody"):
        names(five, only)


def test_a_name_that_nobody_has_is_answered_with_the_nearest(five: Room) -> None:
    with pytest.raises(UsageError) as caught:
        names(five, "s03,teem-a")
    assert "Did you mean team-a?" in caught.value.hint


def test_the_hint_of_a_large_class_stays_short(room: Room) -> None:
    room.write(roster="[" + ", ".join(f"s{n}" for n in range(500)) + "]")
    with pytest.raises(UsageError) as caught:
        names(room, "nobody")
    assert len(caught.value.hint) < 200
    assert "500 in all" in caught.value.hint


def test_a_student_who_has_left_is_still_known_by_the_instance(room: Room) -> None:
    room.up()
    room.write(roster="[s03, s01]")
    assert [(p.instance, p.seat is None) for p in places(room.spec)] == [("s03", False), ("s01", False), ("s02", True)]
    assert names(room, "s02") == ["s02"]
    assert names(room, "1-2") == ["s03", "s01"]
    with pytest.raises(UsageError, match="no range of this class"):
        names(room, "3")


def test_an_instance_that_was_made_by_hand_is_nobodys(room: Room) -> None:
    converge.up(locate.draft(room.folder / "lab", instance="mine", provider="fake"))
    assert names(room) == ["s01", "s02", "s03"]


def test_a_class_whose_lab_is_broken_still_knows_its_instances(room: Room) -> None:
    room.up()
    (room.folder / "lab" / "lab.yaml").write_text("not a lab")
    assert all(result.error is None for result in verbs.down(room.chosen(), jobs=2))


def test_a_sample_is_of_those_that_exist_and_comes_again_with_its_seed(room: Room) -> None:
    room.write(roster="[" + ", ".join(f"s{n:02}" for n in range(20)) + "]")
    room.up("1-10")
    chosen = room.chosen()
    first = verbs.sample(chosen, 4, seed=7)
    assert len({place.instance for place in first}) == 4
    assert all(place.folder is not None for place in first)
    assert first == verbs.sample(chosen, 4, seed=7)
    assert [place.instance for place in first] == sorted(place.instance for place in first)
    assert any(verbs.sample(chosen, 4, seed=number) != first for number in range(20))
    assert len(verbs.sample(chosen, 99)) == 10
