"""kill -9 of labctl, and of QEMU, at any moment: nothing that was kept is lost, ``up`` brings all back, nobody is left.

LABCTL_KILL_ROUNDS sets how often labctl is killed, LABCTL_KILL_SEED at which moments; ``make test-kills`` is the long
form.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from labctl.host.folders import cache_root
from labctl.providers.qemu import vm
from tests.support import remains
from tests.support.command import Labctl
from tests.support.guests import BOTH, LAB, THREE, Guests, until

ROUNDS = int(os.environ.get("LABCTL_KILL_ROUNDS", "4"))
SEED = int(os.environ.get("LABCTL_KILL_SEED", "20261"))

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600 + 120 * ROUNDS)]

VERBS = ("save", "reset", "first up", "up", "restore", "delete")
WITH_TEMPLATE = 20  # every so often the first ``up`` has to boot a template too, which takes long
FRESH = "fresh"  # what `reset` goes back to as well as `snapshot restore`
WELL = dict.fromkeys(BOTH, "before before counting")
ONE = LAB.partition("  two:")[0]

_log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def guests(labctl: Labctl) -> Iterator[Guests]:
    lab = Guests.make(labctl, "killed")
    lab.up()
    lab.mark("before")
    lab.save(FRESH)
    yield lab
    labctl.destroy_all()


class Killer:
    """Kills labctl at moments within what the verb takes on this host, and keeps the story."""

    def __init__(self, moments: random.Random) -> None:
        self.moments = moments
        self.lengths: dict[str, float] = {}
        self.killed = Counter[str]()
        self.story: list[str] = []

    def measure(self, labctl: Labctl, verb: str, *arguments: str | Path) -> None:
        """Let it come to its end, and note how long that takes."""
        began = time.monotonic()
        labctl.run(*arguments)
        self.lengths[verb] = time.monotonic() - began

    def run(self, labctl: Labctl, verb: str, *arguments: str | Path) -> bool:
        """Whether it had ended before it was to be killed."""
        moment, began = self.moments.uniform(0, 1.05) * self.lengths[verb], time.monotonic()
        with labctl.start(*arguments) as process:
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.returncode in (0, -9), process.communicate(timeout=20)[1].decode()
        took, ended = time.monotonic() - began, process.returncode == 0
        if ended or took > self.lengths[verb]:  # the host is faster now, or slower
            self.lengths[verb] = took
        self.killed[verb] += not ended
        self.story.append(f"{verb} {'ended' if ended else 'killed'} at {took:.2f} of {self.lengths[verb]:.2f}")
        return ended

    def sometimes(self) -> bool:
        return self.moments.random() < 0.5


class KeptLab:
    """A lab that goes on through all rounds."""

    def __init__(self, guests: Guests, killer: Killer) -> None:
        self.guests, self.killer = guests, killer

    def arguments(self, verb: str, name: str) -> tuple[str | Path, ...]:
        folder = self.guests.folder
        return {
            "save": ("snapshot", "save", name, folder),
            "delete": ("snapshot", "delete", name, folder),
            "restore": ("snapshot", "restore", FRESH, folder),
            "reset": ("reset", folder),
        }.get(verb, ("up", folder))

    def rehearse(self, verb: str) -> None:
        """Find out how long a verb takes; afterwards everything is as before."""
        guests, measure = self.guests, self.killer.measure
        if verb in ("save", "delete"):
            for one in ("save", "delete"):
                measure(guests.labctl, one, *self.arguments(one, "rehearsed"))
        elif verb == "up":
            guests.write(LAB + THREE)
            measure(guests.labctl, "up", "up", guests.folder)
            guests.write()
            measure(guests.labctl, "up back", "up", guests.folder)
        else:
            measure(guests.labctl, verb, *self.arguments(verb, ""))

    def round(self, verb: str, number: int) -> None:
        """One verb, killed; then ``up``, sometimes killed; then all must be there, and may go back to ``fresh``."""
        guests, killer = self.guests, self.killer
        spare = set(guests.whole_ones()) - {FRESH}
        name = min(spare) if verb == "delete" and spare else f"{verb}-{number}"
        if verb == "delete" and not spare:
            guests.save(name)
        kept = set(guests.whole_ones())
        touched = {name} if verb in ("save", "delete") else set[str]()
        guests.mark(f"after-{number}")
        if verb == "up":
            guests.write(LAB + THREE)
            self.kill("up", name)
            guests.write()
            verb = "up back"
        ended = self.kill(verb, name)
        sure = (kept - touched) | (touched if ended and verb == "save" else set())
        all_of = sure | (set() if ended else touched)
        assert sure <= set(guests.whole_ones()) <= all_of, "before anybody has mended anything"
        mend = f"up after {verb}"
        killer.lengths.setdefault(mend, killer.lengths[verb])
        if not ended and killer.sometimes():
            self.kill(mend, name)
        killer.measure(guests.labctl, mend, "up", guests.folder)
        assert sure <= set(guests.whole_ones()) <= all_of
        self.nothing_is_half()
        after, seen = dict.fromkeys(BOTH, f"after-{number} after-{number} counting"), guests.marks()
        if verb in ("restore", "reset"):
            assert seen == WELL or (seen == after and not ended), "both machines or none"
        else:
            assert seen == after
        if seen != WELL and killer.sometimes():  # else a later round finds it out
            guests.restore(FRESH)
            assert guests.marks() == WELL

    def kill(self, verb: str, name: str) -> bool:
        """Whether it had ended before."""
        ended = self.killer.run(self.guests.labctl, verb, *self.arguments(verb, name))
        assert all(count == 1 for count in self.running().values()), "a machine runs twice"
        return ended

    def running(self) -> Counter[str]:
        return Counter(name for name, _ in vm.processes(self.guests.layout))

    def nothing_is_half(self) -> None:
        """After ``up``: every machine runs once and is noted, nobody else does, and what was kept is whole."""
        guests = self.guests
        keys = {f"labctl-{path.stem}" for path in guests.manifests()}
        assert len(keys) == len(guests.whole_ones())
        assert guests.kept() == dict.fromkeys(BOTH, keys)
        assert self.running() == dict.fromkeys(BOTH, 1)
        assert remains.strangers(guests.labctl, [guests.layout]) == []


class NewLab:
    """A lab of one machine that is neither there before a round nor after it; its first ``up`` keeps ``fresh`` itself.

    labctl: the command, with a cache of its own where the ``up`` has to make a template. beside: the lab that runs.
    """

    def __init__(self, labctl: Labctl, name: str, beside: Guests, killer: Killer) -> None:
        self.guests, self.beside, self.killer = Guests.make(labctl, name, ONE), beside, killer

    def rehearse(self, verb: str) -> None:
        """Find out how long its first ``up`` takes."""
        self.killer.measure(self.guests.labctl, verb, "up", self.guests.folder)
        self.gone()

    def round(self, verb: str, _number: int) -> None:
        """Its first ``up``, killed, sometimes twice; then ``up`` must end it, and ``reset`` go back; then it goes."""
        guests, labctl = self.guests, self.guests.labctl
        for _ in range(1 + self.killer.sometimes()):
            self.killer.run(labctl, verb, "up", guests.folder)
            until(lambda: not remains.builders(labctl), seconds=10)
        said = labctl.complaint("up", guests.folder, code=0)
        assert guests.whole_ones() == [FRESH] and len(guests.manifests()) == 1, said
        assert guests.kept() == {"one": {guests.key(FRESH)}}
        assert remains.strangers(labctl, [guests.layout, self.beside.layout]) == []
        if self.killer.sometimes():
            guests.sh("one", "echo x >/root/soil; echo x >/run/soil; sync")
            labctl.run("reset", guests.folder)
            assert guests.sh("one", "ls /root/soil /run/soil 2>/dev/null || true") == ""
        self.gone()

    def gone(self) -> None:
        """Remove it, and the template where it was to make one."""
        guests, variables = self.guests, self.guests.labctl.variables
        runtime = guests.layout.runtime
        guests.labctl.run("destroy", guests.folder, "--yes")
        assert remains.strangers(guests.labctl, [self.beside.layout]) == []
        assert not guests.state_folder.exists() and not runtime.exists()
        if "LABCTL_CACHE_DIR" in variables:
            shutil.rmtree(Path(variables["LABCTL_CACHE_DIR"]) / "templates")


def without_templates(labctl: Labctl, cache: Path) -> Labctl:
    """The command with a cache of its own, in which there are images alone."""
    cache.mkdir()
    (cache / "images").symlink_to(cache_root() / "images")
    return replace(labctl, variables={"LABCTL_CACHE_DIR": str(cache)})


def test_kill_at_any_moment_then_up_then_restore(guests: Guests, tmp_path: Path) -> None:
    killer, labctl = Killer(random.Random(SEED)), guests.labctl
    kept, new = KeptLab(guests, killer), NewLab(labctl, "new", guests, killer)
    bare = NewLab(without_templates(labctl, tmp_path / "cache"), "bare", guests, killer)
    for number in range(ROUNDS):
        verb = VERBS[number % len(VERBS)] if (number + 1) % WITH_TEMPLATE else "first up with a template"
        lab = {"first up": new, "first up with a template": bare}.get(verb, kept)
        began, told = time.monotonic(), len(killer.story)
        try:
            if verb not in killer.lengths:
                lab.rehearse(verb)
            lab.round(verb, number)
        except AssertionError as error:
            error.add_note(f"seed {SEED}, round {number}: {'; '.join(killer.story[-4:])}")
            raise
        _log.info("%d: %.1f s: %s", number, time.monotonic() - began, "; ".join(killer.story[told:]))
    assert killer.killed.total() > 0, "the moments were all too late"
    _log.info("killed %d times: %s", killer.killed.total(), dict(killer.killed))
    assert guests.names() == guests.whole_ones()
    assert guests.state() == "up"
    guests.restore(FRESH)
    assert guests.marks() == WELL
    for name in guests.names()[1:]:
        labctl.run("snapshot", "delete", name, guests.folder)


@pytest.mark.parametrize("when", ["before it stands still", "while it is saved"])
def test_a_qemu_that_dies_at_the_barrier_is_said_and_the_others_go_on(guests: Guests, when: str) -> None:
    guests.mark("before")
    victim, folder = psutil.Process(guests.pid()), guests.overlay().parent
    with guests.labctl.start("snapshot", "save", "lost", guests.folder) as saving:
        if when == "before it stands still":
            until(lambda: len(guests.manifests()) > 1 or saving.poll() is not None)
        else:
            until(lambda: any(folder.glob(".labctl-*.raw")) or saving.poll() is not None, every=0.0005)
        assert saving.poll() is None, "it was never saved"
        labctl = psutil.Process(saving.pid)
        labctl.suspend()  # or it is done before the other is dead
        victim.kill()
        labctl.resume()
        _out, words = saving.communicate(timeout=240)
    assert saving.returncode == 1
    assert "two: QEMU " in words.decode(), "it says whose"
    assert "Traceback" not in words.decode()
    assert guests.names() == [FRESH]
    assert guests.states() == {"one": "running", "two": "dead"}
    assert guests.kept() == {machine: {guests.key(FRESH)} for machine in BOTH}
    assert guests.sh("one", "cat /run/memory") == "before"
    guests.restore(FRESH)
    assert guests.marks() == WELL


def test_destroy_that_is_killed_is_ended_by_another_and_leaves_nothing(guests: Guests) -> None:
    with guests.labctl.start("destroy", guests.folder, "--yes") as process:
        time.sleep(random.Random(SEED).uniform(0.5, 2.5))
        process.kill()
    if guests.state_folder.exists():
        guests.labctl.run("destroy", guests.folder, "--yes")
    assert remains.offspring(guests.labctl) == []
    assert not guests.state_folder.exists()
    assert not guests.layout.runtime.exists()
