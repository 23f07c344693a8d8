"""``fresh``, the checkpoint of an untouched lab: when ``up`` keeps one and when not, what ``reset`` goes back to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from labctl.errors import ProviderError, UsageError
from labctl.events import Event
from labctl.lifecycle import checkpoint, converge, fresh, inspect, locate
from labctl.lifecycle.locate import Running
from labctl.providers.fake.checkpoints import FakeCheckpoints
from labctl.providers.fake.notes import Notes
from labctl.providers.fake.provider import FakeProvider
from labctl.state.checkpoints import CheckpointFolder
from labctl.state.record import InstanceFolder

pytestmark = pytest.mark.unit

SPEC = """\
version: 1
name: two
defaults: {image: debian-12}
networks:
  lan: {subnet: 10.9.0.0/24}
machines:
  a: {networks: {lan: auto}}
  b: {networks: {lan: auto}}
"""


class Lab:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "lab.yaml"
        self.events: list[Event] = []
        self.file.write_text(SPEC, encoding="utf-8")

    def up(self, before: str = "", after: str = "") -> None:
        """``labctl up``, after a change of the lab file."""
        self.file.write_text(self.file.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")
        draft = locate.draft(self.file, provider="fake")
        converge.up(draft, keep_fresh=True, listener=self.events.append)

    def reset(self) -> None:
        fresh.reset(self.now)

    @property
    def now(self) -> Running:
        return locate.find(self.file)

    @property
    def notes(self) -> Notes:
        return Notes(self.now.folder.engine)

    @property
    def names(self) -> list[str]:
        return [one.name for one in checkpoint.listing(self.now).checkpoints]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if event.status == "warning"]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_the_first_up_keeps_what_reset_goes_back_to(lab: Lab) -> None:
    lab.up()
    (kept,) = checkpoint.listing(lab.now).checkpoints
    assert (kept.name, kept.automatic) == ("fresh", True)
    before = lab.notes.read()["a"].applied
    lab.notes.change("a", applied="touched")
    lab.reset()
    assert lab.notes.read()["a"].applied == before
    assert lab.warnings == []


class Killed(BaseException):
    """What a kill -9 is to the code that it hits: nothing below it runs, not even what cleans up."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (fresh, "keep"),
        (FakeCheckpoints, "pause"),
        (FakeCheckpoints, "save"),
        (FakeCheckpoints, "resume"),
        (CheckpointFolder, "set_current"),
        (InstanceFolder, "finish"),
    ],
)
@pytest.mark.parametrize("anew", [False, True], ids=["first up", "all made anew"])
def test_an_up_that_was_killed_before_its_end_keeps_it_the_next_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, where: object, what: str, anew: bool
) -> None:
    if anew:
        lab.up()
    with monkeypatch.context() as during:
        during.setattr(where, what, killed)
        for name in ("resume", "delete"):  # what would clean up
            during.setattr(FakeCheckpoints, name, killed)
        with pytest.raises(Killed):
            lab.up("debian-12", "router") if anew else lab.up()
    assert inspect.status(lab.now).summary == "interrupted"
    lab.up()
    assert inspect.status(lab.now).summary == "up"
    assert lab.names == ["fresh"]
    assert checkpoint.listing(lab.now).checkpoints[0].plan == lab.now.plan
    before = lab.notes.read()["a"].applied
    lab.notes.change("a", applied="touched")
    lab.reset()
    assert lab.notes.read()["a"].applied == before
    assert lab.warnings == []


def test_what_an_up_that_was_killed_had_kept_is_not_replaced_by_what_was_done_since(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as during:
        during.setattr(InstanceFolder, "finish", killed)
        with pytest.raises(Killed):
            lab.up()
    (kept,) = checkpoint.listing(lab.now).checkpoints
    lab.notes.change("a", boots=99)
    lab.up()
    assert checkpoint.listing(lab.now).checkpoints == (kept,)
    lab.reset()
    assert lab.notes.read()["a"].boots == 1


def test_nobody_gets_between_the_making_and_the_keeping(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is held from the one to the other: each time it is taken is noted."""
    taken: list[str] = []
    usual = FileLock.acquire

    def acquire(self: FileLock, *arguments: Any, **more: Any) -> Any:
        taken.append(self.lock_file)
        return usual(self, *arguments, **more)

    monkeypatch.setattr(FileLock, "acquire", acquire)
    lab.up()
    assert lab.names == ["fresh"]
    assert len(taken) == 1


def test_an_up_that_changes_nothing_keeps_nothing_new(lab: Lab) -> None:
    lab.up()
    first = checkpoint.listing(lab.now).checkpoints
    lab.notes.change("a", applied="touched")
    lab.up()
    assert checkpoint.listing(lab.now).checkpoints == first
    lab.notes.change("a", state="stopped")
    lab.up()
    assert checkpoint.listing(lab.now).checkpoints == first
    assert lab.warnings == []


def test_a_first_up_that_failed_and_was_repeated_is_the_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ProviderError("no")

    with monkeypatch.context() as during:
        during.setattr(FakeProvider, "up", failing)
        with pytest.raises(ProviderError):
            lab.up()
    lab.up()
    assert lab.names == ["fresh"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  b: {networks: {lan: auto}}\n", ""),
        ("  b:", "  c: {networks: {lan: auto}}\n  b:"),
        ("  b: {", "  b: {memory: 1 GiB, "),
        ("  b: {", "  b: {image: router, "),
        ("  b: {", "  b: {provision: [{shell: 'true'}], "),
    ],
)
def test_what_a_user_did_in_a_machine_that_was_kept_is_never_taken_for_fresh(lab: Lab, before: str, after: str) -> None:
    lab.up()
    first = checkpoint.listing(lab.now).checkpoints
    lab.notes.change("a", applied="touched")
    lab.up(before, after)
    assert checkpoint.listing(lab.now).checkpoints == first
    assert len(lab.warnings) == 1
    assert "before this change" in lab.warnings[0]


def test_a_lab_whose_machines_are_all_made_anew_is_fresh_again(lab: Lab) -> None:
    lab.up()
    (first,) = checkpoint.listing(lab.now).checkpoints
    lab.up("debian-12", "router")
    (second,) = checkpoint.listing(lab.now).checkpoints
    assert second.id != first.id
    assert lab.warnings == []
    lab.reset()


def test_a_checkpoint_that_a_user_has_called_fresh_is_the_users(lab: Lab) -> None:
    lab.up()
    checkpoint.delete(lab.now, "fresh")
    lab.notes.change("a", applied="prepared")
    own = checkpoint.save(lab.now, "fresh")
    assert not own.automatic
    lab.up("debian-12", "router")
    assert [one.id for one in checkpoint.listing(lab.now).checkpoints] == [own.id]
    assert "before this change" in lab.warnings[0]


def test_reset_goes_back_to_the_users_own_fresh(lab: Lab) -> None:
    lab.up()
    checkpoint.delete(lab.now, "fresh")
    lab.notes.change("a", applied="prepared")
    checkpoint.save(lab.now, "fresh")
    lab.notes.change("a", applied="touched")
    lab.reset()
    assert lab.notes.read()["a"].applied == "prepared"


def test_other_checkpoints_stay(lab: Lab) -> None:
    lab.up()
    checkpoint.save(lab.now, "mine")
    lab.up("debian-12", "router")
    assert sorted(lab.names) == ["fresh", "mine"]


def test_reset_without_a_fresh_says_how_to_get_one(lab: Lab) -> None:
    lab.up()
    checkpoint.delete(lab.now, "fresh")
    with pytest.raises(UsageError) as caught:
        lab.reset()
    assert "labctl snapshot save fresh" in caught.value.hint


def test_a_lab_that_cannot_be_kept_is_up_all_the_same(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ProviderError("the disk is full", details="no space left")

    monkeypatch.setattr(FakeCheckpoints, "save", failing)
    lab.up()
    assert lab.names == []
    assert lab.now.record.phase == "up"
    assert ["the disk is full" in one and "no space left" in one for one in lab.warnings] == [True]


def test_an_engine_of_costly_checkpoints_keeps_nothing_by_itself_and_says_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    can = replace(FakeProvider.capabilities(), fresh=False)
    monkeypatch.setattr(FakeProvider, "capabilities", lambda *_: can)
    lab.up()
    assert lab.warnings == []
    assert lab.names == []


def test_a_lab_without_machines_keeps_nothing(lab: Lab) -> None:
    lab.up()
    empty = replace(lab.now, plan=replace(lab.now.plan, machines=()))
    assert fresh.keep(empty, {"a": "remove", "b": "remove"}) is None


def test_reset_after_a_change_is_refused_where_the_machines_are_others(lab: Lab) -> None:
    lab.up()
    lab.up("  b: {", "  b: {memory: 1 GiB, ")
    with pytest.raises(UsageError, match="the checkpoint fresh is of other machines"):
        lab.reset()
