"""A lab out of a file with a checkpoint, on machines that are notes: order, all or nothing, what a crash leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import GuestError, LabctlError, ProviderError, UsageError
from labctl.events import Event
from labctl.host.folders import state_root
from labctl.lifecycle import arrival, checkpoint, converge, export, fresh, inspect, locate, teardown
from labctl.lifecycle.arrival import Options
from labctl.lifecycle.locate import Running
from labctl.providers.base import Crate
from labctl.providers.fake.checkpoints import FakeCheckpoints
from labctl.providers.fake.freight import FakeFreight
from labctl.providers.fake.notes import Notes
from labctl.providers.fake.provider import FakeProvider
from labctl.state.record import instances
from tests.support.forge import Forgery

pytestmark = pytest.mark.unit

SPEC = """\
version: 1
name: pair
defaults: {image: debian-12}
networks:
  lan: {subnet: 10.9.0.0/24}
machines:
  a: {networks: {lan: auto}}
  b:
    networks: {lan: auto}
    provision: [{file: {source: note, target: /root/note}}]
"""


class Crash(BaseException):
    """What a kill -9 is to the code that it hits."""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "home/pair"
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(SPEC)
    (folder / "note").write_text("note")
    converge.up(locate.draft(folder, provider="fake"))
    return folder


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Go to another computer."""

    def go() -> Path:
        folder = tmp_path / "room"
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "room-state"))
        monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "room-cache"))
        return folder / "pair"

    return go


def change(lab: Running, name: str, **values: Any) -> None:
    Notes(lab.folder.engine).change(name, **values)


def pack(lab: Path, name: str = "clean") -> Path:
    """Save and export the lab, then let something come later."""
    now = locate.find(lab)
    change(now, "a", applied="before")
    checkpoint.save(now, name)
    change(now, "a", applied="after")
    return export.export(locate.find(lab), locate.draft(lab), name, lab.parent / "x.labz").bundle.file


def bring(file: Path, listener: Callable[[Event], None] = lambda _: None, **options: Any) -> None:
    arrival.bring(file, Options(**{"instance": "default", **options}), listener)


def states(lab: Running) -> dict[str, str]:
    return {status.name: status.state for status in lab.provider.observe(lab.plan).machines}


def nothing_is_left() -> None:
    assert list(instances()) == []
    assert [path.name for path in state_root().iterdir() if path.name != ".locks"] == []


def test_it_is_there_as_it_was_and_goes_back_to_it(lab: Path, room: Callable[[], Path]) -> None:
    file = pack(lab)
    here = room()
    bring(file)
    now = locate.find(here)
    assert states(now) == {"a": "running", "b": "running"}
    assert Notes(now.folder.engine).read()["a"].applied == "before"
    assert [one.name for one in checkpoint.listing(now).checkpoints] == ["clean"]
    assert inspect.status(now).summary == "up"
    change(now, "a", applied="broken")
    assert fresh.reset(locate.find(here)).name == "clean"
    assert Notes(now.folder.engine).read()["a"].applied == "before"
    assert converge.up(locate.draft(here)).unchanged
    engine = now.provider.checkpoints(now.plan)
    assert engine is not None
    assert [len(engine.keys(name)) for name in "ab"] == [1, 1], "not the one that it came as, too"


def test_fresh_is_what_reset_goes_back_to_where_both_are_there(lab: Path, room: Callable[[], Path]) -> None:
    file = pack(lab)
    here = room()
    bring(file)
    checkpoint.save(locate.find(here), "fresh")
    assert fresh.reset(locate.find(here)).name == "fresh"


def test_a_second_time_changes_nothing(lab: Path, room: Callable[[], Path]) -> None:
    file = pack(lab)
    here = room()
    bring(file)
    change(locate.find(here), "a", applied="mine")
    bring(file)
    assert Notes(locate.find(here).folder.engine).read()["a"].applied == "mine"


def test_an_instance_that_did_not_come_with_it_is_in_the_way(lab: Path, room: Callable[[], Path]) -> None:
    file = pack(lab)
    here = room()
    bring(file)
    checkpoint.delete(locate.find(here), "clean")
    with pytest.raises(UsageError, match="exists already, without the checkpoint of this file"):
        bring(file)
    assert states(locate.find(here)) == {"a": "running", "b": "running"}
    bring(file, instance="second")
    assert {folder.instance for folder in instances()} == {"default", "second"}


def test_machines_that_were_off_stay_off_until_up(lab: Path, room: Callable[[], Path]) -> None:
    locate.find(lab).provider.down(locate.find(lab).plan, ["b"])
    file = pack(lab)
    here = room()
    bring(file)
    assert states(locate.find(here)) == {"a": "running", "b": "stopped"}
    assert converge.up(locate.draft(here)).started == ("b",)
    checkpoint.restore(locate.find(here), "clean")
    assert states(locate.find(here)) == {"a": "running", "b": "stopped"}


@pytest.mark.parametrize("sealed", [True, False])
def test_a_lab_that_was_sealed_arrives_sealed(lab: Path, room: Callable[[], Path], sealed: bool) -> None:
    now = locate.find(lab)
    now.folder.write_record(replace(now.record, sealed=sealed))
    file = pack(lab)
    here = room()
    bring(file)
    now = locate.find(here)
    assert now.record.sealed == sealed
    assert {machine.sealed for machine in Notes(now.folder.engine).read().values()} == {sealed}


def test_all_boot_where_one_memory_does_not_fit_and_it_is_said(
    lab: Path, room: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pack(lab)
    here = room()
    monkeypatch.setattr(FakeFreight, "offers", lambda _, name: {"memory": "1" if name == "b" else "1073741824"})
    said: list[Event] = []
    unpacked: dict[str, bool] = {}
    real = FakeFreight.unpack

    def noted(self: FakeFreight, machine: str, key: str, crate: Crate, *, memory: bool) -> None:
        unpacked[machine] = memory
        real(self, machine, key, crate, memory=memory)

    monkeypatch.setattr(FakeFreight, "unpack", noted)
    bring(file, said.append)
    warned = [event.message for event in said if event.status == "warning"]
    assert any("the memory of b needs memory" in text and "this host has 1" in text for text in warned), warned
    assert unpacked == {"a": False, "b": False}
    assert states(locate.find(here)) == {"a": "running", "b": "running"}


@pytest.mark.parametrize("lost", ["memory", "disk"])
def test_a_machine_that_does_not_come_as_it_was_is_an_error_and_nothing_is_left(
    lab: Path, room: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    file = pack(lab)
    room()
    real = FakeCheckpoints.restore

    def lying(self: FakeCheckpoints, machine: str, key: str) -> None:
        real(self, machine, key)
        if machine == "b":
            self._notes.change(machine, marks=("", key) if lost == "memory" else (key, ""))

    monkeypatch.setattr(FakeCheckpoints, "restore", lying)
    with pytest.raises(GuestError, match=f"b was not restored: its {lost} hold another state"):
        bring(file)
    nothing_is_left()


@pytest.mark.parametrize("step", ["unpack", "settle", "restore", "delete", "save"])
@pytest.mark.parametrize("after", ["up", "destroy"])
def test_wherever_it_is_killed_it_begins_anew_or_is_destroyed(
    lab: Path, room: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, step: str, after: str
) -> None:
    file = pack(lab)
    here = room()
    with monkeypatch.context() as during:
        owner = FakeFreight if step in ("unpack", "settle") else FakeCheckpoints

        def dying(*_: Any, **__: Any) -> None:
            during.setattr(FakeProvider, "destroy", dead)
            during.setattr(FakeCheckpoints, "delete", dead)
            raise Crash

        during.setattr(owner, step, dying)
        with pytest.raises(Crash):
            bring(file)
    assert inspect.status(locate.find(here)).summary == "interrupted"
    with pytest.raises(LabctlError, match="was being brought in with a checkpoint"):
        converge.up(locate.draft(here))
    if after == "destroy":
        teardown.destroy(locate.find(here).folder)
        nothing_is_left()
    else:
        bring(file)
        assert inspect.status(locate.find(here)).summary == "up"
        checkpoint.restore(locate.find(here), "clean")


def dead(*_: Any) -> None:
    raise Crash


@pytest.mark.parametrize("step", ["unpack", "settle"])
def test_what_fails_on_the_way_leaves_nothing(
    lab: Path, room: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = pack(lab)
    room()

    def failing(_: FakeFreight, machine: Any, *__: Any, **___: Any) -> None:
        if "b" in machine:
            raise ProviderError("the disk is full")

    monkeypatch.setattr(FakeFreight, step, failing)
    with pytest.raises(ProviderError, match="the disk is full"):
        bring(file)
    nothing_is_left()


def test_an_engine_that_cannot_says_so_before_anything_is_unpacked(
    lab: Path, room: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pack(lab)
    can = replace(FakeProvider.capabilities(), freight=False)
    monkeypatch.setattr(FakeProvider, "capabilities", classmethod(lambda cls, plan=None: can))
    monkeypatch.setattr(FakeProvider, "freight", lambda *_: None)
    with pytest.raises(UsageError, match="fake cannot take a checkpoint to another host"):
        export.export(locate.find(lab), locate.draft(lab), "clean", lab.parent / "y.labz")
    here = room()
    with pytest.raises(UsageError, match="fake cannot bring in a checkpoint from another host"):
        bring(file)
    assert not here.exists()


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [("lan: auto}}", "lan: 10.9.0.77}}", "a: interfaces"), ("  a: {", "  a: {memory: 1 GiB, ", "a: memory")],
)
def test_a_lab_file_that_has_changed_since_is_not_exported(lab: Path, before: str, after: str, difference: str) -> None:
    pack(lab)
    (lab / "lab.yaml").write_text(SPEC.replace(before, after, 1))
    with pytest.raises(UsageError, match="would not make the lab") as caught:
        export.export(locate.find(lab), locate.draft(lab), "clean", lab.parent / "y.labz")
    assert difference in caught.value.details


def test_a_file_of_a_step_that_has_changed_since_is_not_exported(lab: Path) -> None:
    pack(lab)
    (lab / "note").write_text("another")
    with pytest.raises(UsageError, match="would not make the lab") as caught:
        export.export(locate.find(lab), locate.draft(lab), "clean", lab.parent / "y.labz")
    assert caught.value.details == "b: files of its steps"


def test_the_same_checkpoint_gives_the_same_bytes(lab: Path) -> None:
    one = pack(lab).read_bytes()
    two = export.export(locate.find(lab), locate.draft(lab), "clean", lab.parent / "y.labz").bundle.file
    assert two.read_bytes() == one
    assert not list(locate.find(lab).folder.path.glob(".labctl-making-*"))


def _machine(**values: object) -> Callable[[Forgery], None]:
    return lambda f: f.table["checkpoints"][0]["machines"][0].update(values)


def _checkpoint(**values: object) -> Callable[[Forgery], None]:
    return lambda f: f.table["checkpoints"][0].update(values)


def _disk(**values: object) -> Callable[[Forgery], None]:
    return lambda f: f.table["checkpoints"][0]["machines"][0]["disks"][0].update(values)


def _twice(f: Forgery) -> None:
    f.table["checkpoints"] *= 2


def _same_machine(f: Forgery) -> None:
    machines = f.table["checkpoints"][0]["machines"]
    machines.append(machines[0])


def _other_content(f: Forgery) -> None:
    """Another state of the machine, which the digest alone gives away."""
    at = next(i for i, (member, _) in enumerate(f.members) if member.name.startswith("checkpoint/"))
    member, content = f.members[at]
    assert b"before" in content
    f.members[at] = (member, content.replace(b"before", b"beforf"))


def _no_note(f: Forgery) -> None:
    """Another disk, with its digest right everywhere."""
    disk = f.table["checkpoints"][0]["machines"][0]["disks"][0]
    disk["size"] = len(b"{}")
    f.replace(f"checkpoint/{disk['sha256']}", b"{}", honest=True)


@pytest.mark.parametrize(
    "forge",
    [
        _checkpoint(id="../../x"),
        _checkpoint(id="x" * 12),
        _checkpoint(name="../x"),
        _checkpoint(name="-x"),
        _checkpoint(name="x\n"),
        _checkpoint(instance="../x"),
        _checkpoint(created=-1),
        _checkpoint(sealed="no"),
        _checkpoint(machines=[]),
        _checkpoint(extra=1),
        _machine(name="../a"),
        _machine(name="c"),
        _machine(state="paused"),
        _machine(marked=1),
        _machine(disks=[]),
        _machine(needs={"memory": "\x1b[2J"}),
        _machine(needs={"memory": "x" * 201}),
        _machine(needs={"a b": "x"}),
        _disk(size=-1),
        _disk(size=1),
        _disk(sha256="0" * 64),
        _disk(name="disk"),
        lambda f: f.table.update(version=1),
        lambda f: f.table.update(version=3),
        lambda f: f.table.update(checkpoints=[]),
        lambda f: f.members.pop(),
        _twice,
        _same_machine,
        _other_content,
        _no_note,
    ],
)
def test_a_checkpoint_that_somebody_made_up_is_refused_and_nothing_of_it_runs(
    lab: Path,
    room: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forge: Callable[[Forgery], None],
) -> None:
    forgery = Forgery.of(pack(lab))
    forge(forgery)
    room()
    monkeypatch.setattr(FakeCheckpoints, "restore", lambda *_: pytest.fail("it ran"))
    with pytest.raises(LabctlError):
        bring(forgery.write(tmp_path / "forged.labz"))
    nothing_is_left()


def test_a_forger_who_changes_nothing_is_believed(lab: Path, room: Callable[[], Path], tmp_path: Path) -> None:
    forgery = Forgery.of(pack(lab))
    room()
    bring(forgery.write(tmp_path / "forged.labz"))


def test_wherever_the_file_breaks_off_nothing_is_left(lab: Path, room: Callable[[], Path], tmp_path: Path) -> None:
    data = pack(lab).read_bytes()
    here = room()
    for length in range(0, len(data), len(data) // 25):
        (tmp_path / "cut.labz").write_bytes(data[:length])
        with pytest.raises(LabctlError):
            bring(tmp_path / "cut.labz")
        assert not here.exists()
        nothing_is_left()
