"""What is measured, part by part. Every part leaves nothing running.

Where a part has a floor, it is measured again in each turn of that part, so that both know the machine as fast as it is
then. Labs come up as a user brings them up, with the number of jobs and the checkpoint ``fresh`` that are usual.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.bench import floor, labs
from tests.bench.figures import Figures, Section, program, timed
from tests.bench.labs import LABCTL

BOOT, LOAD, NOTHING = "plain QEMU, boot to agent", "plain QEMU, loadvm to agent", "python that does nothing"
_LARGE, _ONCE = 30, 90  # machines in labs that are measured half as often, and once
_IDLE_SECONDS = 10


class Bench:
    """One run of the benchmark. runs: of a slow figure. most: machines in the largest lab. students: of the class."""

    def __init__(self, home: Path, runs: int, most: int, students: int) -> None:
        self.home, self.runs, self.most, self.students = home, runs, most, students
        self.figures = Figures()
        self.parts: dict[str, Callable[[], None]] = {
            "command-line": self.command_line,
            "start": self.start,
            "scale": self.scale,
            "verify": self.verify,
            "checkpoint": self.checkpoint,
            "skew": self.skew,
            "class": self.course,
        }

    def command_line(self) -> None:
        """What a command costs before it does anything."""
        quick, dmz = self.home / "labs/quickstart", self.home / "labs/dmz"
        program(*LABCTL, "validate", quick)()
        for _ in range(max(self.runs, 5)):
            self.figures.note("command line", NOTHING, timed(program(sys.executable, "-c", "pass")), floor=True)
            for name, argv in {
                "labctl --help": ("--help",),
                "labctl validate": ("validate", quick),
                "labctl plan": ("plan", dmz, "--provider", "qemu"),
            }.items():
                self.figures.note("command line", name, timed(program(*LABCTL, *argv)), beside=NOTHING)

    def start(self) -> None:
        """A lab of three machines from nothing, from a template and when it runs."""
        lab = labs.write(self.home, 3)
        labs.warm(lab)
        for turn in range(self.runs):
            self._boot("start", turn)
            with labs.no_templates(self.home / f"cache-{turn}"):
                self._note("start", "up without a template, 3 machines", BOOT, "up", lab)
                labs.destroy(lab)
            self._note("start", "up, 3 machines", BOOT, "up", lab)
            self._note("start", "up of what runs, 3 machines", BOOT, "up", lab)
            self._note("start", "down, 3 machines", BOOT, "down", lab)
            self._note("start", "up after down, 3 machines", BOOT, "up", lab)
            self._note("start", "destroy, 3 machines", BOOT, "destroy", lab, "--yes")

    def scale(self) -> None:
        """How a lab's size tells: warm starts, memory, and what idle machines cost."""
        sizes = [machines for machines in (1, 8, _LARGE, _ONCE) if machines <= self.most]
        if sizes:
            labs.warm(labs.write(self.home, 1))  # the machines of all sizes are of one shape
        for turn in range(self.runs):
            self._boot("scale", turn)
            for machines in sizes:
                if turn < self._turns(machines):
                    self._size(machines, turn)

    def _size(self, machines: int, turn: int) -> None:
        lab, of = labs.write(self.home, machines), f"{machines} machine{'s' if machines > 1 else ''}"
        self._note("scale", f"up, {of}", BOOT, "up", lab)
        found = labs.processes(lab)
        self.figures.note("scale", f"memory of each of {of}", _proportional(found) / machines, "MiB")
        if machines >= _LARGE and turn == 0:
            self.figures.note("scale", f"idle, {of}", _busy(found), "cores")
        if machines == _LARGE:
            self._note("scale", f"down, {of}", BOOT, "down", lab)
        self._note("scale", f"destroy, {of}", BOOT, "destroy", lab, "--yes")

    def verify(self) -> None:
        """The isolation matrix."""
        for machines in self._small_and_large():
            lab = labs.write(self.home, machines)
            program(*LABCTL, "up", lab)()
            for turn in range(self._turns(machines)):
                beside = f"{BOOT}, beside {machines}"
                self._boot("verify", turn, beside)
                self._note("verify", f"verify, {machines} machines", beside, "verify", lab)
            labs.destroy(lab)

    def checkpoint(self) -> None:
        """Save, restore and reset. The floor is of one machine beside those of the lab."""
        for machines in self._small_and_large():
            lab, beside = labs.write(self.home, machines), f"{LOAD}, beside {machines}"
            program(*LABCTL, "up", lab)()
            for turn in range(self._turns(machines)):
                folder = self.home / f"load-{machines}-{turn}"
                folder.mkdir()
                self.figures.note("checkpoint", beside, floor.load(folder), floor=True)
                of = f"{machines} machines"
                self._note("checkpoint", f"snapshot save, {of}", beside, "snapshot", "save", f"s{turn}", lab)
                self._note("checkpoint", f"snapshot restore, {of}", beside, "snapshot", "restore", f"s{turn}", lab)
                self._note("checkpoint", f"reset, {of}", beside, "reset", lab)
            labs.destroy(lab)

    def skew(self) -> None:
        """How far apart in time the machines of one checkpoint stood still; no time of a wall clock, so more often."""
        lab = labs.write(self.home, 5)
        program(*LABCTL, "up", lab)()
        for turn in range(max(self.runs, 5)):
            saved = json.loads(program(*LABCTL, "snapshot", "save", f"s{turn}", lab, "--json")().stdout)
            self.figures.note("checkpoint", "skew of a checkpoint, 5 machines", 1000 * saved["skew"], "ms")
        labs.destroy(lab)

    def course(self) -> None:
        """A class with a lab of three machines, from a warm cache, once: it takes its time."""
        room, lab, of = self.home / "course", labs.write(self.home, 3), f"{self.students} x 3 machines"
        labs.warm(lab)
        room.mkdir()
        ids = ", ".join(f"s{number:02}" for number in range(1, self.students + 1))
        (room / "class.yaml").write_text(f"version: 1\nname: bench\nlab: {lab}\nroster: [{ids}]\n")
        self._boot("class", 0)
        try:
            self._note("class", f"up, {of}", BOOT, "class", "up", room)
            shown = json.loads(program(*LABCTL, "class", "status", room, "--json")().stdout)
            found = [
                process for one in shown["instances"] for process in labs.processes(lab, "--instance", one["instance"])
            ]
            self.figures.note("class", f"memory of all, {of}", _proportional(found), "MiB")
            self.figures.note("class", f"idle, {of}", _busy(found), "cores")
            for _ in range(self.runs):
                self._note("class", f"reset of one, {of}", "", "class", "reset", room, "--only", "s01")
            sample = ("verify", room, "--sample", str(min(5, self.students)), "--seed", "1")
            self._note("class", f"verify of a sample, {of}", BOOT, "class", *sample)
            self._note("class", f"down, {of}", BOOT, "class", "down", room)
        finally:
            program(*LABCTL, "class", "destroy", room, "--yes")()

    def _small_and_large(self) -> list[int]:
        return [machines for machines in (3, _LARGE) if machines <= self.most]

    def _turns(self, machines: int) -> int:
        """Large labs take minutes, and their machines even out what a single one happens to take."""
        return 1 if machines >= _ONCE else (self.runs + 1) // 2 if machines >= _LARGE else self.runs

    def _boot(self, section: Section, turn: int, name: str = BOOT) -> None:
        """Measure the floor of a start in a folder of its own."""
        folder = self.home / f"{section}-{turn}-{len(self.figures.all)}"
        folder.mkdir()
        self.figures.note(section, name, floor.boot(folder), floor=True)

    def _note(self, section: Section, name: str, beside: str, *words: str | Path) -> None:
        self.figures.note(section, name, timed(program(*LABCTL, *words)), beside=beside)


def _proportional(processes: list[psutil.Process]) -> float:
    """Memory of processes in MiB, what several share divided among them."""
    return sum(process.memory_full_info().pss for process in processes) / (1 << 20)


def _busy(processes: list[psutil.Process]) -> float:
    """Cores that processes keep busy while nobody asks anything of them."""

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    time.sleep(2 * _IDLE_SECONDS)  # the guests' own housekeeping after a start
    before, began = used(), time.monotonic()
    time.sleep(_IDLE_SECONDS)
    return (used() - before) / (time.monotonic() - began)
