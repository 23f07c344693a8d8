"""kill -9 of labctl, and of QEMU, at any moment of a checkpoint: nothing that was kept is lost, ``up`` brings all back.

LABCTL_KILL_ROUNDS sets how often labctl is killed, LABCTL_KILL_SEED at which moments.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from labctl.providers.qemu import vm
from tests.support.command import Labctl
from tests.support.guests import BOTH, LAB, THREE, Guests, until

ROUNDS = int(os.environ.get("LABCTL_KILL_ROUNDS", "4"))
SEED = int(os.environ.get("LABCTL_KILL_SEED", "20261"))

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600 + 120 * ROUNDS)]

WELL = dict.fromkeys(BOTH, "before before counting")


@pytest.fixture(scope="module")
def guests(labctl: Labctl) -> Iterator[Guests]:
    lab = Guests.make(labctl, "killed")
    lab.up()
    lab.mark("before")
    lab.save("clean")
    yield lab
    labctl.destroy_all()


class Killer:
    """Kills labctl at moments within what a whole save takes on this host now, and looks at what is left."""

    def __init__(self, guests: Guests, scale: float, moments: random.Random) -> None:
        self.guests, self.scale, self.moments = guests, scale, moments
        self.story: list[str] = []

    def run(self, *arguments: str | Path) -> bool:
        """Whether it had ended before it was to be killed."""
        moment = self.moments.uniform(0.1, 1.1) * self.scale
        with self.guests.labctl.start(*arguments) as process:
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                process.kill()
        self.story.append(f"{' '.join(map(str, arguments))}: {'ended' if process.returncode == 0 else f'{moment:.2f}'}")
        assert process.returncode in (0, -9)
        assert all(count == 1 for count in self.running().values()), "a machine runs twice"
        return process.returncode == 0

    def running(self) -> Counter[str]:
        return Counter(name for name, _ in vm.processes(self.guests.layout))

    def round(self, number: int) -> None:
        """One verb, killed; then ``up``, sometimes killed; then all must be there, and go back to ``clean``."""
        guests, kept = self.guests, set(self.guests.whole_ones())
        verb = ("save", "restore", "up", "delete")[number % 4]
        guests.mark(f"after-{number}")
        spare = kept - {"clean"}
        if verb == "up":
            guests.write(LAB + THREE)
            self.run("up", guests.folder)
            guests.write()
            ended = self.run("up", guests.folder)
            sure, maybe = kept, set[str]()
        elif verb == "restore":
            ended = self.run("snapshot", "restore", "clean", guests.folder)
            sure, maybe = kept, set[str]()
        elif verb == "delete" and spare:
            victim = min(spare)
            ended = self.run("snapshot", "delete", victim, guests.folder)
            sure, maybe = kept - {victim}, set[str]() if ended else {victim}
        else:
            name = f"save-{number}"
            ended = self.run("snapshot", "save", name, guests.folder)
            sure, maybe = (kept | {name}, set[str]()) if ended else (kept, {name})
        assert sure <= set(guests.whole_ones()) <= sure | maybe, "before anybody has mended anything"
        if not ended and self.moments.random() < 0.5:
            self.run("up", guests.folder)
        guests.up()
        assert sure <= set(guests.whole_ones()) <= sure | maybe
        self.nothing_is_half()
        after, seen = dict.fromkeys(BOTH, f"after-{number} after-{number} counting"), guests.marks()
        if verb == "restore":
            assert seen == WELL or (seen == after and not ended), "both machines or none"
        else:
            assert seen == after
        guests.restore("clean")
        assert guests.marks() == WELL

    def nothing_is_half(self) -> None:
        """After ``up``: every machine runs once and is noted, and what there is of checkpoints is whole."""
        guests = self.guests
        keys = {f"labctl-{path.stem}" for path in guests.manifests()}
        assert len(keys) == len(guests.whole_ones())
        assert guests.kept() == dict.fromkeys(BOTH, keys)
        assert self.running() == dict.fromkeys(BOTH, 1)
        machines = {process.pid for _, process in vm.processes(guests.layout)}
        assert machines == {guests.pid(machine) for machine in BOTH}


def test_kill_at_any_moment_then_up_then_restore(guests: Guests) -> None:
    began = time.monotonic()
    guests.save("measure")
    killer = Killer(guests, time.monotonic() - began, random.Random(SEED))
    guests.labctl.run("snapshot", "delete", "measure", guests.folder)
    for number in range(ROUNDS):
        try:
            killer.round(number)
        except AssertionError as error:
            error.add_note(f"seed {SEED}, round {number}: {'; '.join(killer.story[-4:])}")
            raise
    assert guests.names() == guests.whole_ones()
    assert guests.state() == "up"
    for name in guests.names()[1:]:
        guests.labctl.run("snapshot", "delete", name, guests.folder)


@pytest.mark.parametrize("when", ["before it stands still", "while it is saved"])
def test_a_qemu_that_dies_at_the_barrier_is_said_and_the_others_go_on(guests: Guests, when: str) -> None:
    guests.mark("before")
    victim, size = psutil.Process(guests.pid()), guests.overlay().stat().st_blocks
    with guests.labctl.start("snapshot", "save", "lost", guests.folder) as saving:
        if when == "before it stands still":
            until(lambda: len(guests.manifests()) > 1 or saving.poll() is not None)
        else:
            until(lambda: guests.overlay().stat().st_blocks - size > 8192 or saving.poll() is not None)
        assert saving.poll() is None, "it was never saved"
        victim.kill()
        _out, words = saving.communicate(timeout=240)
    assert saving.returncode == 1
    assert "two: QEMU " in words.decode(), "it says whose"
    assert "Traceback" not in words.decode()
    assert guests.names() == ["clean"]
    assert guests.states() == {"one": "running", "two": "dead"}
    assert guests.kept() == {machine: {guests.key("clean")} for machine in BOTH}
    assert guests.sh("one", "cat /run/memory") == "before"
    guests.restore("clean")
    assert guests.marks() == WELL


def test_destroy_that_is_killed_is_ended_by_another_and_leaves_nothing(guests: Guests) -> None:
    with guests.labctl.start("destroy", guests.folder, "--yes") as process:
        time.sleep(random.Random(SEED).uniform(0.5, 2.5))
        process.kill()
    if guests.state_folder.exists():
        guests.labctl.run("destroy", guests.folder, "--yes")
    assert guests.labctl.processes() == []
    assert not guests.state_folder.exists()
    assert not guests.layout.runtime.exists()
