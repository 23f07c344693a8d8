"""Checkpoints and sealing of whole labs, on machines that are notes: order, all or nothing, what a crash leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from labctl.errors import GuestError, LabctlError, ProviderError, StateError, UsageError
from labctl.events import Event
from labctl.lifecycle import checkpoint, converge, inspect, locate, sealing
from labctl.lifecycle.locate import Running
from labctl.providers.fake.checkpoints import FakeCheckpoints
from labctl.providers.fake.notes import Notes
from labctl.state.checkpoints import Checkpoint, CheckpointFolder, digest_of
from labctl.state.lock import locked

pytestmark = pytest.mark.unit

SPEC = """\
version: 1
name: three
defaults: {image: debian-12}
networks:
  lan: {subnet: 10.9.0.0/24}
machines:
  a: {networks: {lan: auto}}
  b: {networks: {lan: auto}}
  c: {networks: {lan: auto}}
"""


class Crash(BaseException):
    """What a kill -9 is to the code that it hits: nothing below it runs, not even what cleans up."""


class Lab:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "lab.yaml"
        self.write(SPEC)

    def write(self, text: str) -> None:
        self.file.write_text(dedent(text), encoding="utf-8")

    def up(self) -> None:
        converge.up(locate.draft(self.file, provider="fake"))

    @property
    def now(self) -> Running:
        return locate.find(self.file)

    @property
    def notes(self) -> Notes:
        return Notes(self.now.folder.engine)

    @property
    def checkpoints(self) -> CheckpointFolder:
        return CheckpointFolder(self.now.folder)

    def states(self) -> dict[str, str]:
        return {status.name: status.state for status in self.now.provider.observe(self.now.plan).machines}

    def names(self) -> list[str]:
        return [one.name for one in checkpoint.listing(self.now).checkpoints]

    def snapshots(self) -> int:
        engine = self.now.provider.checkpoints(self.now.plan)
        assert engine is not None
        return sum(len(engine.keys(name)) for name in "abc")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    made.up()
    return made


def crash_at(monkeypatch: pytest.MonkeyPatch, verb: str, machine: str) -> None:
    """Let labctl end without cleaning up when it is about to do something with a machine."""
    real = getattr(FakeCheckpoints, verb)

    def dying(self: FakeCheckpoints, what: Any, *rest: Any) -> Any:
        if what == machine or machine in what:
            for name in ("pause", "resume", "save", "restore", "delete"):
                monkeypatch.setattr(FakeCheckpoints, name, dead)
            raise Crash
        return real(self, what, *rest)

    monkeypatch.setattr(FakeCheckpoints, verb, dying)


def dead(*_: Any) -> None:
    raise Crash


def test_a_restore_brings_back_what_was_saved_and_drops_what_came_later(lab: Lab) -> None:
    lab.notes.change("a", applied="before")
    saved = checkpoint.save(lab.now, "clean")
    assert saved.complete
    assert saved.machines == {"a": "running", "b": "running", "c": "running"}
    assert saved.witnesses == ("a", "b", "c")
    assert saved.skew is not None
    assert 0 <= saved.skew <= time.time() - saved.created
    lab.notes.change("a", applied="after")
    checkpoint.restore(lab.now, "clean")
    assert lab.notes.read()["a"].applied == "before"
    assert lab.states() == dict.fromkeys("abc", "running")


def test_machines_that_are_off_are_saved_and_come_back_off(lab: Lab) -> None:
    lab.now.provider.down(lab.now.plan, ["b"])
    checkpoint.save(lab.now, "one-off")
    lab.up()
    assert lab.states()["b"] == "running"
    checkpoint.restore(lab.now, "one-off")
    assert lab.states() == {"a": "running", "b": "stopped", "c": "running"}


def test_a_lab_that_is_down_is_restored_to_one_that_runs(lab: Lab) -> None:
    checkpoint.save(lab.now, "clean")
    lab.now.provider.down(lab.now.plan, ["a", "b", "c"])
    checkpoint.restore(lab.now, "clean")
    assert inspect.status(lab.now).summary == "up"


@pytest.mark.parametrize("name", ["", "-x", "a b", "../x", "x" * 64, "ä"])
def test_a_name_that_is_none(lab: Lab, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a checkpoint"):
        checkpoint.save(lab.now, name)


def test_a_name_that_is_taken(lab: Lab) -> None:
    checkpoint.save(lab.now, "clean")
    with pytest.raises(UsageError, match="already"):
        checkpoint.save(lab.now, "clean")
    assert lab.names() == ["clean"]


@pytest.mark.parametrize("verb", [checkpoint.restore, checkpoint.delete])
def test_a_name_that_is_unknown_is_answered_with_those_there_are(lab: Lab, verb: Any) -> None:
    checkpoint.save(lab.now, "clean")
    with pytest.raises(UsageError) as caught:
        verb(lab.now, "dirty")
    assert caught.value.hint == "Checkpoints: clean."


def test_a_machine_that_cannot_be_saved_leaves_none_saved_and_all_running(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(lab.now, "before")
    real = FakeCheckpoints.save

    def failing(self: FakeCheckpoints, machine: str, key: str) -> None:
        if machine == "b":
            raise ProviderError("b: the disk is full")
        real(self, machine, key)

    monkeypatch.setattr(FakeCheckpoints, "save", failing)
    with pytest.raises(ProviderError, match="the disk is full"):
        checkpoint.save(lab.now, "clean")
    assert lab.names() == ["before"]
    assert lab.snapshots() == 3
    assert lab.states() == dict.fromkeys("abc", "running")


@pytest.mark.parametrize("machine", ["a", "b", "c"])
@pytest.mark.parametrize("verb", ["pause", "save", "resume"])
def test_a_save_that_was_killed_is_forgotten_by_the_next_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, verb: str, machine: str
) -> None:
    checkpoint.save(lab.now, "before")
    with monkeypatch.context() as during:
        crash_at(during, verb, machine)
        with pytest.raises(Crash):
            checkpoint.save(lab.now, "half")
    assert lab.names() == ["before"]
    assert inspect.status(lab.now).summary == "interrupted"
    lab.up()
    assert lab.states() == dict.fromkeys("abc", "running")
    assert lab.snapshots() == 3
    assert inspect.status(lab.now).summary == "up"
    checkpoint.restore(lab.now, "before")


@pytest.mark.parametrize("machine", ["a", "b", "c"])
def test_a_delete_that_was_killed_is_ended_by_the_next_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    checkpoint.save(lab.now, "before")
    checkpoint.save(lab.now, "clean")
    with monkeypatch.context() as during:
        crash_at(during, "delete", machine)
        with pytest.raises(Crash):
            checkpoint.delete(lab.now, "clean")
    checkpoint.save(lab.now, "later")
    assert lab.names() == ["before", "later"]
    assert lab.snapshots() == 6


@pytest.mark.parametrize("mend", ["up", "restore"])
@pytest.mark.parametrize(("verb", "machine"), [("restore", "a"), ("restore", "c"), ("resume", "b")])
def test_a_restore_that_was_killed_is_ended_by_up_and_by_another_restore(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, verb: str, machine: str, mend: str
) -> None:
    lab.notes.change(machine, applied="before")
    checkpoint.save(lab.now, "clean")
    lab.notes.change(machine, applied="after")
    with monkeypatch.context() as during:
        crash_at(during, verb, machine)
        with pytest.raises(Crash):
            checkpoint.restore(lab.now, "clean")
    assert "the restore of checkpoint clean" in checkpoint.interrupted(lab.now)
    if mend == "up":
        lab.up()
    else:
        checkpoint.restore(lab.now, "clean")
    assert checkpoint.interrupted(lab.now) == ""
    assert lab.notes.read()[machine].applied == "before"
    assert lab.states() == dict.fromkeys("abc", "running")


def test_a_lab_that_is_half_changed_is_not_saved(lab: Lab) -> None:
    lab.now.folder.write_record(replace(lab.now.record, phase="changing"))
    with pytest.raises(UsageError, match="half changed"):
        checkpoint.save(lab.now, "clean")


def test_a_lab_with_a_dead_machine_is_not_saved(lab: Lab) -> None:
    lab.notes.change("b", state="dead")
    with pytest.raises(UsageError, match="b is dead"):
        checkpoint.save(lab.now, "clean")
    assert lab.names() == []


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ("  c: {", "  d: {networks: {lan: auto}}\n  c: {", "d is new since"),
        ("  c: {networks: {lan: auto}}\n", "", "c is gone since"),
        ("  c: {", "  c: {memory: 1 GiB, ", "c changed: memory"),
    ],
)
def test_a_checkpoint_of_other_machines_says_what_differs(lab: Lab, before: str, after: str, difference: str) -> None:
    checkpoint.save(lab.now, "clean")
    lab.write(SPEC.replace(before, after))
    lab.up()
    with pytest.raises(UsageError) as caught:
        checkpoint.restore(lab.now, "clean")
    assert caught.value.details == difference
    assert "running" in lab.states().values()


def test_a_machine_made_anew_lacks_its_part(lab: Lab) -> None:
    checkpoint.save(lab.now, "clean")
    for path in lab.now.folder.engine.glob("b.labctl-*"):
        path.unlink()
    with pytest.raises(ProviderError, match="b lack"):
        checkpoint.restore(lab.now, "clean")
    assert lab.states() == dict.fromkeys("abc", "running")
    checkpoint.delete(lab.now, "clean")


@pytest.mark.parametrize("restored", ["never", "before"])
def test_a_restore_that_restored_nothing_is_an_error(lab: Lab, monkeypatch: pytest.MonkeyPatch, restored: str) -> None:
    checkpoint.save(lab.now, "clean")
    if restored == "before":
        checkpoint.restore(lab.now, "clean")
    real = FakeCheckpoints.restore

    def lying(self: FakeCheckpoints, machine: str, key: str) -> None:
        if machine != "b":
            real(self, machine, key)

    monkeypatch.setattr(FakeCheckpoints, "restore", lying)
    with pytest.raises(GuestError, match="b was not restored: its memory and disk hold another state"):
        checkpoint.restore(lab.now, "clean")


def test_later_steps_of_provisioning_are_done_again_after_a_restore(lab: Lab) -> None:
    checkpoint.save(lab.now, "clean")
    lab.write(SPEC.replace("  c: {", "  c: {provision: [{shell: 'true'}], "))
    lab.up()
    applied = lab.notes.read()["c"].applied
    checkpoint.restore(lab.now, "clean")
    assert lab.notes.read()["c"].applied != applied
    lab.up()
    assert lab.notes.read()["c"].applied == applied


def test_checkpoints_are_a_tree_that_a_deleted_one_leaves_whole(lab: Lab) -> None:
    first = checkpoint.save(lab.now, "first")
    second = checkpoint.save(lab.now, "second")
    third = checkpoint.save(lab.now, "third")
    checkpoint.restore(lab.now, "first")
    fourth = checkpoint.save(lab.now, "fourth")
    assert [one.parent for one in (first, second, third, fourth)] == [None, first.id, second.id, first.id]
    checkpoint.delete(lab.now, "second")
    assert lab.checkpoints.find("third").parent == first.id
    checkpoint.restore(lab.now, "third")
    assert checkpoint.listing(lab.now).current == third.id
    checkpoint.delete(lab.now, "third")
    assert checkpoint.listing(lab.now).current == first.id


@pytest.mark.parametrize(
    ("text", "words"), [("{", "damaged"), ("{}", "damaged"), ("[]", "damaged"), ('{"version": 99}', "version 99")]
)
def test_a_damaged_manifest_is_named_and_nothing_is_done_with_it(lab: Lab, text: str, words: str) -> None:
    saved = checkpoint.save(lab.now, "clean")
    (lab.now.folder.path / "checkpoints" / f"{saved.id}.json").write_text(text, encoding="utf-8")
    with pytest.raises(StateError, match=words):
        checkpoint.restore(lab.now, "clean")
    assert lab.snapshots() == 3
    assert words in checkpoint.listing(lab.now).damaged[0]
    checkpoint.save(lab.now, "other")
    lab.up()
    checkpoint.restore(lab.now, "other")


def alter(lab: Lab, saved: Checkpoint, **changes: Any) -> None:
    """Edit a manifest as somebody does who knows JSON."""
    path = lab.now.folder.path / "checkpoints" / f"{saved.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"witnesses": []},
        {"sealed": True},
        {"machines": {"a": "running", "b": "running", "c": "stopped"}},
        {"files": {"a": "0" * 64}},
        {"parent": "0123456789ab"},
    ],
)
def test_a_manifest_that_was_edited_is_not_believed(lab: Lab, changes: dict[str, Any]) -> None:
    saved = checkpoint.save(lab.now, "clean")
    lab.notes.change("a", applied="after")
    alter(lab, saved, **changes)
    with pytest.raises(StateError, match="damaged") as caught:
        checkpoint.restore(lab.now, "clean")
    assert "'clean', of a, b, c" in caught.value.details
    assert lab.notes.read()["a"].applied == "after"
    assert checkpoint.interrupted(lab.now) == ""


def test_a_checkpoint_of_an_earlier_labctl_is_restored_and_said_to_be_without_a_checksum(lab: Lab) -> None:
    saved = checkpoint.save(lab.now, "clean")
    path = lab.now.folder.path / "checkpoints" / f"{saved.id}.json"
    value = json.loads(path.read_text(encoding="utf-8")) | {"version": 1}
    for new in ("checksum", "images", "plan_digest", "completed"):
        del value[new]
    path.write_text(json.dumps(value), encoding="utf-8")
    lab.notes.change("a", applied="after")
    events: list[Event] = []
    checkpoint.restore(lab.now, "clean", listener=events.append)
    assert lab.notes.read()["a"].applied != "after"
    (said,) = [event.message for event in events if event.status == "warning"]
    assert said.startswith("whether clean was altered is not known")


def test_a_checkpoint_says_of_what_it_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(lab.now.provider), "image_digests", lambda *_: {"a": "11", "b": "22"})
    checkpoint.save(lab.now, "clean")
    (kept,) = lab.checkpoints.whole()
    assert kept.images == {"a": "11", "b": "22"}
    assert kept.plan_digest == digest_of(lab.now.plan)
    assert kept.completed is not None
    assert kept.created <= kept.completed <= time.time()


class Lying:
    """An engine that says that it restored ``b`` and did not. tries: how often it was told to restore a machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tries = 0
        real = FakeCheckpoints.restore

        def restore(engine: FakeCheckpoints, machine: str, key: str) -> None:
            self.tries += 1
            if machine != "b":
                real(engine, machine, key)

        monkeypatch.setattr(FakeCheckpoints, "restore", restore)


def test_a_restore_that_failed_is_not_tried_by_every_up_and_the_ways_out_are_named(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(lab.now, "clean")
    engine = Lying(monkeypatch)
    with pytest.raises(GuestError) as caught:
        checkpoint.restore(lab.now, "clean")
    ways = ("labctl snapshot restore tries clean again, or another", "labctl snapshot delete clean", "labctl destroy")
    assert all(way in caught.value.hint for way in ways)
    assert engine.tries == 3
    assert inspect.status(lab.now).summary == "interrupted"
    for again in (lab.up, lab.up, lambda: checkpoint.save(lab.now, "more")):
        with pytest.raises(
            LabctlError, match="the restore of checkpoint clean has failed: b was not restored"
        ) as error:
            again()
        assert all(way in error.value.hint for way in ways)
    assert all(way in inspect.status(lab.now).failed for way in ways)
    assert engine.tries == 3


@pytest.mark.parametrize("way", ["again", "another", "delete"])
def test_each_way_out_of_a_restore_that_failed_leads_out(lab: Lab, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    checkpoint.save(lab.now, "other")
    checkpoint.save(lab.now, "clean")
    with monkeypatch.context() as during:
        Lying(during)
        with pytest.raises(GuestError):
            checkpoint.restore(lab.now, "clean")
    if way == "delete":
        checkpoint.delete(lab.now, "clean")
    else:
        checkpoint.restore(lab.now, "clean" if way == "again" else "other")
    lab.up()
    assert inspect.status(lab.now).summary == "up"
    assert inspect.status(lab.now).failed == ""
    checkpoint.save(lab.now, "later")


def test_a_restore_that_failed_and_was_begun_again_and_killed_is_ended_by_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(lab.now, "clean")
    with monkeypatch.context() as during:
        Lying(during)
        with pytest.raises(GuestError):
            checkpoint.restore(lab.now, "clean")
    with monkeypatch.context() as during:
        crash_at(during, "restore", "c")
        with pytest.raises(Crash):
            checkpoint.restore(lab.now, "clean")
    lab.up()
    assert inspect.status(lab.now).summary == "up"


class Counter:
    """How often a provider is asked for something."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
        self.count = 0
        kind = type(lab.now.provider)
        real = getattr(kind, verb)

        def counted(provider: Any, *arguments: Any, **more: Any) -> Any:
            self.count += 1
            return real(provider, *arguments, **more)

        monkeypatch.setattr(kind, verb, counted)

    def of(self, work: Callable[[], object]) -> int:
        before = self.count
        work()
        return self.count - before


def test_machines_are_looked_at_no_more_than_has_to_be(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Counter(lab, monkeypatch, "observe")
    lab.write(SPEC.replace("debian-12", "router"))
    assert looks.of(lab.up) == 1
    assert looks.of(lambda: checkpoint.save(lab.now, "clean")) == 1
    assert looks.of(lambda: checkpoint.restore(lab.now, "clean")) == 0
    sealing.seal(lab.now)
    assert looks.of(lambda: checkpoint.restore(lab.now, "clean")) == 1
    assert opened(lab) == [False] * 3


def test_a_save_asks_two_things_of_each_guest_and_a_restore_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Counter(lab, monkeypatch, "execute")
    assert programs.of(lambda: checkpoint.save(lab.now, "clean")) == 2 * 3
    assert programs.of(lambda: checkpoint.restore(lab.now, "clean")) == 3


def opened(lab: Lab) -> Sequence[bool]:
    observed = lab.now.provider.observe(lab.now.plan)
    return [nic.linked for nic in observed.nics if nic.wire == "management"]


def test_a_sealed_lab_stays_sealed_until_it_is_unsealed(lab: Lab) -> None:
    assert opened(lab) == [True, True, True]
    assert sealing.seal(lab.now) == ("a", "b", "c")
    assert opened(lab) == [False, False, False]
    lab.now.provider.down(lab.now.plan, ["b"])
    lab.up()
    assert opened(lab) == [False, False, False]
    assert inspect.status(lab.now).summary == "up, sealed"
    sealing.unseal(lab.now)
    assert opened(lab) == [True, True, True]
    assert inspect.status(lab.now).summary == "up"


def test_up_seals_and_unseals_as_the_lab_file_says(lab: Lab) -> None:
    lab.write(SPEC + "seal: true\n")
    lab.up()
    assert opened(lab) == [False, False, False]
    sealing.unseal(lab.now)
    lab.up()
    assert opened(lab) == [False, False, False]
    lab.write(SPEC)
    lab.up()
    assert opened(lab) == [True, True, True]


def test_an_open_machine_in_a_sealed_lab_is_said_and_closed_by_up(lab: Lab) -> None:
    sealing.seal(lab.now)
    lab.notes.change("b", sealed=False)
    assert inspect.status(lab.now).faults == ("b is open in a sealed lab",)
    lab.up()
    assert inspect.status(lab.now).faults == ()


@pytest.mark.parametrize("sealed", [True, False])
def test_a_restore_leaves_a_lab_as_sealed_as_it_is_now(lab: Lab, sealed: bool) -> None:
    if not sealed:
        sealing.seal(lab.now)
    checkpoint.save(lab.now, "clean")
    (sealing.seal if sealed else sealing.unseal)(lab.now)
    checkpoint.restore(lab.now, "clean")
    assert opened(lab) == [not sealed] * 3


def test_a_mark_that_could_not_be_left_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(lab.now.provider).execute

    def deaf(self: Any, plan: Any, machine: str, argv: Sequence[str], **more: Any) -> Any:
        if machine == "b":
            raise GuestError("b does not answer")
        return real(self, plan, machine, argv, **more)

    monkeypatch.setattr(type(lab.now.provider), "execute", deaf)
    events: list[Event] = []
    assert checkpoint.save(lab.now, "clean", listener=events.append).witnesses == ("a", "c")
    checkpoint.restore(lab.now, "clean", listener=events.append)
    assert [e.message for e in events if e.status == "warning"] == [
        "a restore will not be proven in b: no mark",
        "not proven in b: no way to look for a mark",
    ]


def test_status_says_who_is_at_work(lab: Lab) -> None:
    lab.up()
    with locked("three", "default"):
        now = inspect.status(lab.now)
    assert now.summary == "changing"
    assert now.busy.startswith("another labctl is changing three/default: process ")
    assert inspect.status(lab.now).summary == "up"
