"""Checkpoints of real guests by the command line: what comes back, how labctl knows that it has, what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from labctl.lifecycle import witness
from labctl.providers import marks
from labctl.providers.qemu.checkpoints import beside, run_job
from tests.support.command import Labctl
from tests.support.guests import BOTH, LAB, THREE, Guests

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FIVE = LAB + "".join(f"  {name}: {{networks: {{wire: auto}}}}\n" for name in ("three", "four", "five"))
WELL = dict.fromkeys(BOTH, "before before counting")
RUNNING = dict.fromkeys(BOTH, "running")


@pytest.fixture(scope="module")
def guests(labctl: Labctl) -> Iterator[Guests]:
    """A lab with a checkpoint called ``clean``, of guests that are marked ``before``."""
    lab = Guests.make(labctl, "kept")
    lab.up()
    lab.mark("before")
    saved = lab.save("clean")
    assert saved["witnesses"] == list(BOTH)
    assert saved["machines"] == RUNNING
    yield lab
    labctl.run("destroy", lab.folder, "--yes")
    assert labctl.processes() == []
    assert not lab.state_folder.exists()
    assert not lab.layout.runtime.exists()


def test_a_restore_brings_disk_memory_and_programs_of_all_machines_back(guests: Guests) -> None:
    for machine in BOTH:
        guests.sh(
            machine,
            "read -r pid </run/counter; kill $pid; rm /run/counter /usr/bin/perl; "
            "echo after >/root/disk; echo after >/run/memory; sync",
        )
    assert guests.marks() == dict.fromkeys(BOTH, "after after")
    [saved] = [one["created"] for one in guests.labctl.json("snapshot", "list", guests.folder)["checkpoints"]]
    time.sleep(max(0.0, saved + 4 - time.time()))  # a clock that nobody set would be behind by that
    restored = guests.restore("clean")
    assert restored["machines"] == RUNNING
    assert guests.marks() == WELL
    for machine in BOTH:
        before, clock, after = time.time(), float(guests.sh(machine, "perl -e 1; date +%s.%N")), time.time()
        assert before - 2 < clock < after + 2, "clocks are set right"
    guests.sh("one", "ping -c1 -W20 10.9.0.2")


@pytest.mark.parametrize("restored", ["before", pytest.param("never", marks=pytest.mark.slow)])
def test_a_restore_that_restored_nothing_is_found_out(guests: Guests, restored: str) -> None:
    """There is another state under the checkpoint's name, and QEMU loads that without a complaint."""
    guests.restore("clean")
    guests.save("fooled")
    if restored == "before":
        guests.restore("fooled")
    guests.sh("two", "echo after >/root/disk")
    guests.save("other")
    fooled, other = (beside(guests.layout, "two", guests.key(name)) for name in ("fooled", "other"))
    shutil.copyfile(other.pages, fooled.pages)
    shutil.copyfile(other.devices, fooled.devices)
    with guests.monitor() as session:
        run_job(session, "snapshot-delete", tag=guests.key("fooled"), devices=["disk0"])
        session.execute("blockdev-snapshot-internal-sync", device="disk0", name=guests.key("fooled"))
    guests.labctl.run("snapshot", "delete", "other", guests.folder)
    words = guests.refused("restore", "fooled")
    assert "two was not restored: its memory and disk hold another state" in words
    assert guests.state() == "interrupted"
    assert guests.names() == ["clean", "fooled"]
    for way in ("labctl snapshot restore tries fooled again", "labctl snapshot delete fooled", "labctl destroy"):
        assert way in words
        assert way in guests.labctl.complaint("up", guests.folder), "it does not try again by itself"
    guests.restore("clean")
    assert guests.marks() == WELL
    assert guests.state() == "up"
    guests.labctl.run("snapshot", "delete", "fooled", guests.folder)
    assert guests.kept() == {machine: {guests.key("clean")} for machine in BOTH}


def test_a_mark_takes_no_program_but_a_shell_and_outlives_a_qemu_that_is_killed_right_after(guests: Guests) -> None:
    """What a guest's kernel was told to write through is in the disk's file when the shell goes on."""
    script = f"PATH=/nowhere\n{witness._LEAVE}{witness._NOW}"
    for machine in BOTH:
        guests.sh(machine, script, "a mark")
        assert guests.sh(machine, f"cat {marks.MEMORY}").splitlines()[0] == "a mark"
    guests.sh("two", script, "another mark")
    guests.kill()
    guests.up()
    assert guests.sh("two", f"cat {marks.ON_DISK}").splitlines()[0] == "another mark"
    guests.restore("clean")
    assert guests.marks() == WELL


def test_a_manifest_that_names_no_witnesses_any_more_makes_no_warning_of_a_proof(guests: Guests) -> None:
    guests.sh("two", "echo after >/run/memory")
    with guests.altered(guests.manifest("clean"), lambda text: json.dumps(json.loads(text) | {"witnesses": []})):
        assert "it was altered" in guests.refused("restore", "clean")
        assert guests.sh("two", "cat /run/memory") == "after"
    guests.restore("clean")
    assert guests.marks() == WELL


def test_five_machines_stand_still_within_fifty_milliseconds(labctl: Labctl) -> None:
    lab = Guests.make(labctl, "five", FIVE)
    lab.up()
    # The best of some: the host is busy with other tests, and may let one thread of labctl's wait.
    skews = {name: lab.save(name)["skew"] for name in ("first", "second", "third")}
    assert min(skews.values()) < 0.05, skews
    listed = labctl.json("snapshot", "list", lab.folder)["checkpoints"]
    assert {one["name"]: one["skew"] for one in listed} == skews
    assert all(len(one["images"]) == 5 for one in listed)
    shown = labctl.run("snapshot", "tree", lab.folder).splitlines()
    assert [line.split()[0] for line in shown] == list(skews)
    assert [f"skew {skew * 1000:.0f} ms" in line for line, skew in zip(shown, skews.values(), strict=True)] == [
        True
    ] * 3
    labctl.run("destroy", lab.folder, "--yes")


def test_a_machine_that_is_off_at_the_save_is_off_after_the_restore(guests: Guests) -> None:
    guests.labctl.run("down", guests.folder, "--machine", "two")
    assert guests.save("one-off")["machines"] == {"one": "running", "two": "stopped"}
    guests.restore("clean")
    assert guests.states() == RUNNING
    guests.restore("one-off")
    assert guests.states() == {"one": "running", "two": "stopped"}
    assert guests.sh("one", "cat /run/memory") == "before"
    guests.restore("clean")
    assert guests.marks() == WELL


def test_of_two_saves_at_once_one_saves_and_the_other_explains(guests: Guests) -> None:
    holder = guests.labctl.state / ".locks" / "kept.default.json"
    with guests.labctl.start("snapshot", "save", "first", guests.folder) as first:
        while json.loads(holder.read_text())["command"] != f"labctl snapshot save first {guests.folder}":
            assert first.poll() is None
            time.sleep(0.005)
        pid = json.loads(holder.read_text())["pid"]
        first.send_signal(signal.SIGSTOP)  # on a busy computer it could be done before the other has begun
        words = guests.refused("save", "second", code=6)
        assert f"process {pid} (`labctl snapshot save first" in words
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=120) == 0
    assert guests.names() == ["clean", "one-off", "first"]
    assert len(guests.kept()["two"]) == 3


def test_a_sealed_lab_is_saved_and_restored_and_opens_again(guests: Guests) -> None:
    """What was saved sealed is open in an open lab, and sealed in a sealed one, until that is opened."""
    labctl, login = guests.labctl, ("ssh", guests.folder, "two", "--", "cat", "/run/memory")
    labctl.run("seal", guests.folder)
    guests.save("sealed")
    labctl.run("unseal", guests.folder)
    guests.sh("two", "echo after >/run/memory")
    guests.restore("sealed")
    assert labctl.run(*login) == "before\n"
    labctl.run("seal", guests.folder)
    guests.kill()  # its next process begins open
    guests.restore("sealed")
    assert "two is sealed" in labctl.complaint(*login)
    assert guests.marks() == WELL, "the guest agent answers"
    labctl.run("unseal", guests.folder)
    assert labctl.run(*login) == "before\n"


@pytest.mark.slow
def test_a_guest_without_its_agent_is_kept_and_said_to_be_unproven(guests: Guests) -> None:
    guests.labctl.run("ssh", guests.folder, "two", "--", "systemctl", "stop", "qemu-guest-agent")
    with guests.labctl.start("snapshot", "save", "deaf", guests.folder) as saving:
        _out, words = saving.communicate(timeout=240)
    assert saving.returncode == 0
    assert "a restore will not be proven in two" in words.decode()
    guests.labctl.run("ssh", guests.folder, "two", "--", "echo after >/run/memory")
    with guests.labctl.start("snapshot", "restore", "deaf", guests.folder) as restoring:
        _out, words = restoring.communicate(timeout=240)
    assert restoring.returncode == 0
    assert "not proven in two" in words.decode()
    assert guests.labctl.run("ssh", guests.folder, "two", "--", "cat", "/run/memory") == "before\n"
    guests.restore("clean")
    assert guests.marks() == WELL, "its agent is back"


@pytest.mark.slow
def test_a_checkpoint_of_other_machines_is_refused_and_comes_back_with_them(guests: Guests) -> None:
    guests.write(LAB + THREE)
    guests.up()
    guests.sh("three", "echo new >/run/memory")
    words = guests.refused("restore", "clean", code=2)
    assert "the checkpoint clean is of other machines" in words
    assert "three is new since" in words
    assert guests.sh("three", "cat /run/memory") == "new"
    guests.save("three")
    guests.write()
    guests.up()
    assert "three is gone since" in guests.refused("restore", "three", code=2)
    guests.sh("two", "echo after >/run/memory")
    guests.restore("clean")
    assert guests.marks() == WELL
    # one that was made anew has nothing to go back to, and nothing is changed for it
    guests.write(LAB + THREE)
    guests.up()
    guests.sh("two", "echo after >/run/memory")
    words = guests.refused("restore", "three")
    assert "three lack their part" in words
    assert guests.sh("two", "cat /run/memory") == "after"
    assert guests.state() == "up"
    guests.labctl.run("snapshot", "delete", "three", guests.folder)
    guests.write()
    guests.up()
    guests.restore("clean")
    assert guests.marks() == WELL
