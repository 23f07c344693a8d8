"""Checkpoints that were cut short or altered on the disk, and disks that are full: said plainly, nothing else lost."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from labctl.errors import ProviderError
from labctl.providers.qemu.checkpoints import beside, run_job
from tests.support.command import Labctl
from tests.support.guests import BOTH, Guests, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WELL = dict.fromkeys(BOTH, "before before counting")


@pytest.fixture(scope="module")
def guests(labctl: Labctl) -> Iterator[Guests]:
    """A lab with two checkpoints, ``first`` and ``second``, of guests that are marked ``before``."""
    lab = Guests.make(labctl, "damaged")
    lab.up()
    lab.mark("before")
    lab.save("first")
    lab.save("second")
    yield lab
    labctl.destroy_all()
    assert not lab.layout.runtime.exists()


def is_untouched(guests: Guests, text: str) -> bool:
    """Whether the guests run and hold what was put into their memory just before."""
    return [guests.sh(machine, "cat /run/memory") for machine in BOTH] == [text, text]


def cut(text: str) -> str:
    return text[: len(text) // 2]


def of_a_ghost(text: str) -> str:
    value = json.loads(text)
    return json.dumps(value | {"machines": value["machines"] | {"ghost": "running"}})


def of_no_plan(text: str) -> str:
    return json.dumps(json.loads(text) | {"plan": {"version": 1}})


def of_wrong_kinds(text: str) -> str:
    return json.dumps(json.loads(text) | {"machines": ["one", "two"], "witnesses": 3})


@pytest.mark.parametrize(
    "alter",
    [cut, pytest.param(of_no_plan, marks=pytest.mark.slow), pytest.param(of_wrong_kinds, marks=pytest.mark.slow)],
)
def test_a_manifest_that_cannot_be_read_is_named_and_takes_no_other_along(guests: Guests, alter: Any) -> None:
    guests.mark("after")
    manifest = guests.manifest("second")
    with guests.altered(manifest, alter):
        words = guests.refused("restore", "second")
        assert "the manifest of a checkpoint is damaged" in words
        assert str(manifest) in words
        assert is_untouched(guests, "after")
        with guests.labctl.start("snapshot", "list", guests.folder) as listing:
            out, words = (stream.decode() for stream in listing.communicate(timeout=120))
        assert listing.returncode == 0
        assert "first" in out
        assert str(manifest) in words
        guests.up()
        guests.restore("first")
        assert guests.marks() == WELL
    assert guests.names() == ["first", "second"]


def test_a_manifest_with_a_machine_that_has_no_part_in_it_is_refused(guests: Guests) -> None:
    guests.mark("after")
    with guests.altered(guests.manifest("second"), of_a_ghost):
        assert "ghost" in guests.refused("restore", "second")
        assert is_untouched(guests, "after")


def test_a_damaged_note_of_one_machine_costs_that_checkpoint_only(guests: Guests) -> None:
    guests.mark("after")
    with guests.altered(guests.layout.machine("two").folder / f"{guests.key('second')}.json", cut):
        assert "the checkpoint second is not whole any more: two" in guests.refused("restore", "second")
        assert is_untouched(guests, "after")
        guests.restore("first")
        assert guests.marks() == WELL


def test_a_snapshot_that_is_missing_in_one_disk_is_noticed_before_anything_is_changed(guests: Guests) -> None:
    guests.mark("after")
    with guests.monitor() as session:
        run_job(session, "snapshot-delete", tag=guests.key("second"), devices=["disk0"])
    assert "the checkpoint second is not whole any more: two" in guests.refused("restore", "second")
    assert is_untouched(guests, "after")
    assert guests.names() == ["first", "second"]
    guests.labctl.run("snapshot", "delete", "second", guests.folder)
    guests.restore("first")
    assert guests.marks() == WELL


def spoil(file: Path, begin: int = 0) -> None:
    """Write over half of a file from there on."""
    size = file.stat().st_size - begin
    with file.open("r+b") as opened:
        opened.seek(begin + size // 4)
        opened.write(os.urandom(size // 2))


@pytest.mark.parametrize("where", ["beside the disk", "within the disk"])
def test_memory_that_is_damaged_is_an_error_from_which_ways_lead_on(guests: Guests, where: str) -> None:
    """Half a memory must not run: the machine stands still or is ended, and another checkpoint brings it back."""
    if where == "within the disk":
        guests.blindly("save", "third")  # takes the room of those that are gone
        before = guests.overlay().stat().st_size
        guests.blindly("save", "spoilt")
        assert guests.overlay().stat().st_size - before > 32 << 20, "the memory is not where this test looks for it"
        spoil(guests.overlay(), before)
    else:
        guests.save("third")
        guests.save("spoilt")
        spoil(beside(guests.layout, "two", guests.key("spoilt")).pages)
    words = guests.refused("restore", "spoilt")
    assert "two could not be restored" in words
    assert "another checkpoint" in words
    assert guests.state() == "interrupted"
    assert guests.states()["two"] != "running"
    assert guests.names()[-2:] == ["third", "spoilt"]
    guests.restore("first")
    assert guests.marks() == WELL
    assert guests.state() == "up"
    # where there is no other: without it, `up` brings the machines up from their disks
    guests.refused("restore", "spoilt")
    guests.labctl.run("snapshot", "delete", "spoilt", guests.folder)
    guests.up()
    assert guests.state() == "up"
    assert [guests.sh(machine, "hostname") for machine in BOTH] == list(BOTH)
    guests.restore("first")
    assert guests.marks() == WELL
    guests.labctl.run("snapshot", "delete", "third", guests.folder)


def test_a_disk_that_was_cut_off_is_an_error_and_destroy_leaves_nothing(guests: Guests) -> None:
    guests.save("short")
    os.truncate(guests.overlay(), guests.overlay().stat().st_size // 2)
    assert "two" in guests.refused("restore", "short")
    assert {"first", "short"} <= set(guests.names())
    guests.labctl.run("destroy", guests.folder, "--yes")
    assert guests.labctl.processes() == []
    assert not guests.state_folder.exists()


@pytest.fixture(scope="module")
def cramped(labctl: Labctl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guests]:
    """A lab on a file system of its own, with a checkpoint called ``kept``."""
    assert labctl.host is not None
    folder = tmp_path_factory.mktemp("small")
    labctl.host.run("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(folder))
    poor = Labctl(folder / "state", labctl.home, labctl.host)
    lab = Guests.make(poor, "cramped", sees=Path(f"/proc/{labctl.host.host}/root"))
    lab.up()
    lab.mark("before")
    lab.save("kept")
    yield lab
    poor.destroy_all()
    assert poor.processes() == []
    labctl.host.run("umount", str(folder))


def leave_free(guests: Guests, size: int) -> None:
    """Make the file system so small that only so many bytes are free."""
    seen = os.statvfs(guests.state_folder)
    used = (seen.f_blocks - seen.f_bfree) * seen.f_frsize
    assert guests.labctl.host is not None
    guests.labctl.host.run("mount", "-o", f"remount,size={used + size}", str(guests.labctl.state.parent))


def filler_of(guests: Guests) -> Path:
    return guests.sees / (guests.labctl.state.parent / "filler").relative_to("/")


def fill(file: int) -> None:
    """Take all that is free for a file, quickly."""
    end = 0
    for step in (64 << 20, 1 << 20, 1 << 12):
        with contextlib.suppress(OSError):
            while True:
                os.posix_fallocate(file, end, step)
                end += step


@contextlib.contextmanager
def standing_still(guests: Guests) -> Iterator[None]:
    """QEMU itself does not run: neither the guests nor what saves them."""
    machines = [psutil.Process(guests.pid(machine)) for machine in BOTH]
    for machine in machines:
        machine.suspend()
    try:
        yield
    finally:
        for machine in machines:
            machine.resume()


def is_as_before(guests: Guests) -> bool:
    """Whether the guests run and there is the one checkpoint, with nothing of another beside it."""
    assert guests.marks() == WELL
    assert guests.names() == ["kept"]
    assert guests.kept() == {machine: {guests.key("kept")} for machine in BOTH}
    return guests.state() == "up"


def test_a_save_without_room_is_refused_before_anything_is_done(cramped: Guests) -> None:
    leave_free(cramped, 64 << 20)
    before = cramped.overlay().stat().st_blocks
    words = cramped.refused("save", "more")
    assert "the disk is full" in words
    assert is_as_before(cramped)
    assert cramped.overlay().stat().st_blocks - before < 8192, "nothing was written"
    cramped.mark("after")
    cramped.restore("kept")
    assert is_as_before(cramped)


def test_a_disk_that_fills_up_during_the_save_keeps_what_there_was(cramped: Guests) -> None:
    leave_free(cramped, 1 << 30)
    filler, before = filler_of(cramped), cramped.overlay().stat().st_blocks
    with (
        cramped.labctl.start("snapshot", "save", "more", cramped.folder) as saving,
        filler.open("wb", buffering=0) as file,
    ):
        until(lambda: cramped.overlay().stat().st_blocks - before > 8192 or saving.poll() is not None, every=0.001)
        with standing_still(cramped):  # or the save is over before the disk is full
            assert saving.poll() is None, "it was never saved"
            fill(file.fileno())
        _out, words = saving.communicate(timeout=240)
    assert saving.returncode == 1, words.decode()
    assert "the disk is full" in words.decode()
    assert "Traceback" not in words.decode()
    assert cramped.names() == ["kept"]
    filler.unlink()
    cramped.up()  # a guest that wrote something meanwhile stands still
    assert is_as_before(cramped)
    cramped.save("more")
    cramped.mark("after")
    cramped.restore("kept")
    assert cramped.marks() == WELL
    cramped.restore("more")
    assert cramped.marks() == WELL
    assert cramped.names() == ["kept", "more"]


def test_what_could_not_be_deleted_for_want_of_room_is_deleted_when_there_is_some(cramped: Guests) -> None:
    """QEMU forgets a snapshot although it could not write the list of those that remain."""
    cramped.save("doomed")
    leave_free(cramped, 0)
    with cramped.monitor() as session, pytest.raises(ProviderError, match="the disk is full"):
        run_job(session, "snapshot-delete", tag=cramped.key("doomed"), devices=["disk0"])
    assert cramped.key("doomed") in cramped.snapshots("two"), "this QEMU forgets nothing"
    leave_free(cramped, 1 << 30)
    cramped.up()  # a guest that wrote something meanwhile stands still
    cramped.labctl.run("snapshot", "delete", "doomed", cramped.folder)
    assert cramped.kept() == {machine: {cramped.key(name) for name in cramped.names()} for machine in BOTH}
    cramped.restore("kept")
    assert cramped.marks() == WELL


def test_machines_that_stood_still_for_want_of_room_go_on_with_up(cramped: Guests) -> None:
    writes = "while :; do dd if=/dev/urandom of=/root/big bs=1M count=8 conv=fsync; rm /root/big; done"
    cramped.sh("two", f"setsid sh -c '{writes}' >/dev/null 2>&1 </dev/null & echo $! >/run/writer")
    leave_free(cramped, 0)
    until(lambda: cramped.states()["two"] != "running")
    leave_free(cramped, 1 << 30)
    cramped.up()
    assert cramped.state() == "up"
    assert cramped.sh("two", "read -r pid </run/writer; kill $pid; cat /run/memory") == "before"
    cramped.restore("kept")
    assert cramped.marks() == WELL


def test_destroy_makes_room_on_a_full_disk(cramped: Guests) -> None:
    with filler_of(cramped).open("wb") as file:
        fill(file.fileno())
        cramped.labctl.run("destroy", cramped.folder, "--yes")
    assert cramped.labctl.processes() == []
    assert not cramped.state_folder.exists()
