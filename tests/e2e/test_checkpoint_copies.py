"""Checkpoints of machines that began as copies of a template: small, and worth something without the template."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labctl.host.files import remove_tree
from labctl.host.folders import cache_root
from tests.support import images
from tests.support.command import LABCTL, Labctl
from tests.support.guests import BOTH, LAB, Guests

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WELL = dict.fromkeys(BOTH, "before before counting")
MIB = 1 << 20
MOST = 40 * MIB


@pytest.fixture(scope="module")
def guests(labctl: Labctl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guests]:
    """A lab with a checkpoint called ``clean``, of guests that are marked ``before``, whose template is its own."""
    cache = tmp_path_factory.mktemp("cache")
    images.debian()
    (cache / "images").symlink_to(cache_root() / "images")
    lab = Guests.make(replace(labctl, variables={"LABCTL_CACHE_DIR": str(cache)}), "small")
    lab.up()
    lab.mark("before")
    lab.save("clean")
    yield lab
    labctl.destroy_all()
    assert not lab.state_folder.exists()


def note(guests: Guests, machine: str, name: str) -> Any:
    return json.loads((guests.layout.machine(machine).folder / f"{guests.key(name)}.json").read_text())


def own_memory(guests: Guests, machine: str) -> int:
    """Bytes of a machine's memory that its process has for itself."""
    text = Path(f"/proc/{guests.pid(machine)}/smaps").read_text()
    (found,) = re.findall(r"/ram(?: \(deleted\))?\n(?:\w.*\n)*?Private_Dirty: +(\d+) kB", text)
    return int(found) << 10


def test_it_keeps_little_and_a_restore_leaves_the_rest_to_the_template(guests: Guests) -> None:
    listed = guests.labctl.json("snapshot", "list", guests.folder)["checkpoints"]
    assert [MIB < one["size"]["own"] < MOST * len(BOTH) for one in listed] == [True], listed
    guests.mark("after")
    guests.restore("clean")
    assert guests.marks() == WELL
    assert {machine: MIB < own_memory(guests, machine) < MOST for machine in BOTH} == dict.fromkeys(BOTH, True)
    guests.save("again")
    guests.mark("after")
    guests.restore("again")
    assert guests.marks() == WELL
    guests.sh("one", "ping -c1 -W20 10.9.0.2")
    guests.labctl.run("snapshot", "delete", "again", guests.folder)
    files = {path.name for path in guests.layout.machine("two").folder.glob("*labctl-*")}
    assert files == {f"{guests.key('clean')}.{ending}" for ending in ("json", "pages", "devices")}


def test_it_outlives_the_template_and_so_does_the_next_one(guests: Guests) -> None:
    for machine in guests.layout.bases.iterdir():
        assert (machine / "ram").stat().st_nlink == 2, "it takes no room of its own"
    remove_tree(Path(guests.labctl.variables["LABCTL_CACHE_DIR"]) / "templates")
    guests.save("without")
    guests.mark("after")
    guests.kill()
    guests.restore("without")
    assert guests.marks() == WELL
    guests.mark("after")
    guests.restore("clean")
    assert guests.marks() == WELL
    guests.labctl.run("snapshot", "delete", "without", guests.folder)


def test_what_it_is_the_difference_to_goes_with_the_last_that_needs_it(guests: Guests) -> None:
    guests.up()
    (base,) = guests.layout.bases.iterdir()
    assert {note(guests, machine, "clean")["base"] for machine in BOTH} == {base.name}
    moved = base.rename(base.with_name(".away"))
    words = guests.refused("restore", "clean")
    assert "the checkpoint clean is not whole any more: one, two lack their part" in words
    moved.rename(base)
    guests.restore("clean")
    assert guests.marks() == WELL


@pytest.mark.parametrize(("ending", "place"), [("pages", -1), ("devices", 0.5)])
def test_a_file_that_is_damaged_is_an_error_and_nothing_half_restored_runs(
    guests: Guests, ending: str, place: float
) -> None:
    path = guests.layout.machine("two").folder / f"{guests.key('clean')}.{ending}"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(place * len(whole)) if place > 0 else -1] ^= 1
    path.write_bytes(damaged)
    words = guests.refused("restore", "clean")
    assert "two could not be restored" in words
    assert f"two: {path.name} is damaged" in words.replace(f"{path.parent}/", "")
    assert guests.states()["two"] == "stopped"
    assert guests.state() == "interrupted"
    path.write_bytes(whole)
    guests.restore("clean")
    assert guests.marks() == WELL


def test_a_labctl_that_may_not_look_into_machines_lets_qemu_keep_all_of_their_memory(guests: Guests) -> None:
    """And what a labctl kept that knew of no other way is restored."""
    guests.blindly("save", "blind")
    assert {note(guests, machine, "blind")["base"] for machine in BOTH} == {""}
    assert guests.snapshots("two") >= {guests.key("blind")}
    for machine in BOTH:
        path = guests.layout.machine(machine).folder / f"{guests.key('blind')}.json"
        value = json.loads(path.read_text())
        del value["base"], value["record"]["base"], value["record"]["filling"]
        path.write_text(json.dumps(value))
    guests.mark("after")
    guests.restore("blind")
    assert guests.marks() == WELL
    guests.restore("clean")
    assert guests.marks() == WELL
    guests.labctl.run("snapshot", "delete", "blind", guests.folder)


def test_whoever_starts_a_process_may_look_into_it_where_others_may_not(guests: Guests) -> None:
    """Root without a right may not look into a process that has it, nor others where Yama is in force."""
    lab = Guests.make(guests.labctl, "strict", LAB.replace("defaults:", "providers: {qemu: {wires: hub}}\ndefaults:"))

    def strictly(verb: str, name: str) -> None:
        strict = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
        with lab.labctl.spawn(*strict, *LABCTL, "snapshot", verb, name, str(lab.folder)) as process:
            _out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err.decode()

    lab.up()
    lab.mark("before")
    lab.save("seen")
    strictly("save", "unseen")
    assert [bool(note(lab, "two", name)["base"]) for name in ("seen", "unseen")] == [True, False]
    lab.mark("after")
    strictly("restore", "seen")
    assert lab.marks() == WELL
    lab.labctl.run("destroy", lab.folder, "--yes")


def test_a_machine_that_was_booted_is_kept_by_qemu(guests: Guests) -> None:
    guests.labctl.run("down", guests.folder, "--machine", "two")
    guests.up()
    guests.save("booted")
    assert bool(note(guests, "one", "booted")["base"]) and not note(guests, "two", "booted")["base"]
    guests.sh("two", "echo after >/run/memory")
    guests.restore("booted")
    guests.sh("two", "[ ! -e /run/memory ]")
    guests.restore("clean")
    assert guests.marks() == WELL


def test_a_save_that_is_killed_leaves_nothing_that_stays(guests: Guests) -> None:
    folder = guests.layout.machine("two").folder
    for name in (".labctl-0.pages.x", ".labctl-1.raw", ".labctl-1.new"):
        (folder / name).touch()
    guests.save("next")
    assert not list(folder.glob(".labctl-*"))
    assert subprocess.run(["ls", "-ln", str(folder)], capture_output=True, check=True).stdout.count(b"-rw-------") >= 6
    guests.labctl.run("snapshot", "delete", "next", guests.folder)


_CUT_SHORT = """
import os, signal
from labctl.providers.qemu import template
template.load = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from labctl.__main__ import main
main()
"""


def test_a_machine_with_half_of_its_memory_does_not_move(guests: Guests) -> None:
    """A labctl is killed when it has put the pages into the processes and not the state of the devices."""
    guests.save("cut")

    def cut_short() -> None:
        argv = (sys.executable, "-c", _CUT_SHORT, "snapshot", "restore", "cut", str(guests.folder))
        with guests.labctl.spawn(*argv) as process:
            process.communicate(timeout=240)
        assert process.returncode == -9
        assert guests.state() == "interrupted"
        assert "running" not in guests.states().values()

    cut_short()
    guests.up()
    assert guests.marks() == WELL
    cut_short()
    guests.restore("clean")
    assert guests.marks() == WELL
    cut_short()
    guests.labctl.run("snapshot", "delete", "cut", guests.folder)
    guests.up()
    for machine in BOTH:
        assert guests.sh(machine, "cat /root/disk; [ ! -e /run/memory ]") == "before"
    guests.restore("clean")
    assert guests.marks() == WELL
