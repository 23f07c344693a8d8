"""What is measured, part by part. Every part leaves nothing running."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from labctl.host.folders import cache_root
from labctl.host.processes import ProcessId
from tests.bench import floor
from tests.bench.figures import Figures, Section, program, timed

REPOSITORY = Path(__file__).resolve().parents[2]
LABCTL = (sys.executable, "-m", "labctl")
BOOT, LOAD, NOTHING = "plain QEMU, boot to agent", "plain QEMU, loadvm to agent", "python that does nothing"
_PER_NETWORK = 10
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
            self.figures.note("command line", NOTHING, timed(program(sys.executable, "-c", "pass")))
            for name, argv in {
                "labctl --help": ("--help",),
                "labctl validate": ("validate", quick),
                "labctl plan": ("plan", dmz, "--provider", "qemu"),
            }.items():
                self.figures.note("command line", name, timed(program(*LABCTL, *argv)), beside=NOTHING)

    def start(self) -> None:
        """A lab of three machines from nothing, from a template and when it runs; and the floors."""
        lab = self.lab(3)
        self._warm(lab)
        for turn in range(self.runs):
            folder = self.home / f"floor-{turn}"
            folder.mkdir()
            self.figures.note("start", BOOT, floor.boot(folder))
            self.figures.note("start", LOAD, floor.load(folder))
            with _no_templates(self.home / f"cache-{turn}"):
                self._note("start", "up without a template, 3 machines", BOOT, "up", lab)
                program(*LABCTL, "destroy", lab, "--yes")()
            self._note("start", "up, 3 machines", BOOT, "up", lab)
            self._note("start", "up of what runs, 3 machines", BOOT, "up", lab)
            self._note("start", "down, 3 machines", "", "down", lab)
            self._note("start", "up after down, 3 machines", BOOT, "up", lab)
            self._note("start", "destroy, 3 machines", "", "destroy", lab, "--yes")

    def scale(self) -> None:
        """How a lab's size tells: warm starts, memory, and what idle machines cost."""
        for machines in (1, 8, 30, 90):
            if machines > self.most:
                continue
            lab = self.lab(machines)
            self._warm(lab)
            for _ in range(self.runs if machines < 90 else 1):
                self._note("scale", f"up, {machines} machines", BOOT, "up", lab)
                processes = self._processes(lab)
                self.figures.note("scale", f"memory of each of {machines}", _proportional(processes) / machines, "MiB")
                if machines >= 30:
                    self.figures.note("scale", f"idle, {machines} machines", _busy(processes), "cores")
                self._note("scale", f"destroy, {machines} machines", "", "destroy", lab, "--yes")

    def verify(self) -> None:
        """The isolation matrix."""
        for machines in (3, 30):
            if machines > self.most:
                continue
            lab = self.lab(machines)
            program(*LABCTL, "up", lab)()
            for _ in range(self.runs):
                self._note("verify", f"verify, {machines} machines", BOOT, "verify", lab)
            program(*LABCTL, "destroy", lab, "--yes")()

    def checkpoint(self) -> None:
        """Save and restore; reset."""
        for machines in (3, 30):
            if machines > self.most:
                continue
            lab = self.lab(machines)
            program(*LABCTL, "up", lab)()
            for turn in range(self.runs):
                folder = self.home / f"load-{machines}-{turn}"
                folder.mkdir()
                self.figures.note("checkpoint", f"{LOAD}, beside {machines}", floor.load(folder))
                beside = f"{LOAD}, beside {machines}"
                of = f"{machines} machines"
                self._note("checkpoint", f"snapshot save, {of}", beside, "snapshot", "save", f"s{turn}", lab)
                self._note("checkpoint", f"snapshot restore, {of}", beside, "snapshot", "restore", f"s{turn}", lab)
                self._note("checkpoint", f"reset, {of}", beside, "reset", lab)
            program(*LABCTL, "destroy", lab, "--yes")()

    def skew(self) -> None:
        """How far apart in time the machines of one checkpoint stood still."""
        lab = self.lab(5)
        program(*LABCTL, "up", lab)()
        for turn in range(self.runs):
            saved = json.loads(program(*LABCTL, "snapshot", "save", f"s{turn}", lab, "--json")().stdout)
            self.figures.note("checkpoint", "skew of a checkpoint, 5 machines", 1000 * saved["skew"], "ms")
        program(*LABCTL, "destroy", lab, "--yes")()

    def course(self) -> None:
        """A class with a lab of three machines, from a warm cache, once: it takes its time."""
        room, count = self.home / "course", self.students
        room.mkdir()
        ids = ", ".join(f"s{number:02}" for number in range(1, count + 1))
        (room / "class.yaml").write_text(f"version: 1\nname: bench\nlab: {self.lab(3)}\nroster: [{ids}]\n")
        of = f"class of {count}, 3 machines each"
        try:
            self.figures.note("class", f"up, {of}", timed(program(*LABCTL, "class", "up", room)))
            shown = json.loads(program(*LABCTL, "class", "status", room, "--json")().stdout)
            folders = [self.lab(3), "--instance"]
            processes = [
                process for one in shown["instances"] for process in self._processes(*folders, one["instance"])
            ]
            self.figures.note("class", f"memory of all, {of}", _proportional(processes), "MiB")
            self.figures.note("class", f"idle, {of}", _busy(processes), "cores")
            for _ in range(self.runs):
                reset = program(*LABCTL, "class", "reset", room, "--only", "s01")
                self.figures.note("class", f"reset of one, {of}", timed(reset))
            sample = program(*LABCTL, "class", "verify", room, "--sample", "5", "--seed", "1")
            self.figures.note("class", f"verify of a sample of 5, {of}", timed(sample))
            self.figures.note("class", f"down, {of}", timed(program(*LABCTL, "class", "down", room)))
        finally:
            program(*LABCTL, "class", "destroy", room, "--yes")()

    def lab(self, machines: int) -> Path:
        """A lab of equal machines, ten on each network, nothing between the networks."""
        folder = self.home / f"lab-{machines}"
        folder.mkdir(exist_ok=True)
        numbers = range(machines)
        networks = "".join(
            f"  net{n}: {{subnet: 10.60.{n}.0/24}}\n" for n in sorted({m // _PER_NETWORK for m in numbers})
        )
        text = "".join(f"  m{m}: {{networks: [net{m // _PER_NETWORK}]}}\n" for m in numbers)
        (folder / "lab.yaml").write_text(
            f"version: 1\nname: bench-{machines}\nprovider: qemu\n"
            f"defaults: {{image: debian-12, memory: 256 MiB}}\nnetworks:\n{networks}machines:\n{text}"
        )
        return folder

    def _note(self, section: Section, name: str, beside: str, *words: str | Path) -> None:
        self.figures.note(section, name, timed(program(*LABCTL, *words)), beside=beside)

    def _warm(self, lab: Path) -> None:
        """Make the template of a lab's machines, so that no start pays for it."""
        program(*LABCTL, "up", lab, "--no-fresh")()
        program(*LABCTL, "destroy", lab, "--yes")()

    def _processes(self, *lab: str | Path) -> list[psutil.Process]:
        shown = json.loads(program(*LABCTL, "status", *lab, "--json")().stdout)
        pids = [machine["pid"] for machine in shown["machines"]]
        assert all(ProcessId.of(pid) for pid in pids)
        return [psutil.Process(pid) for pid in pids]


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


@contextlib.contextmanager
def _no_templates(cache: Path) -> Iterator[None]:
    """A cache of its own for a while: it has the images that there are, and nothing else."""
    cache.mkdir()
    (cache / "images").symlink_to(cache_root() / "images")
    before = os.environ.get("LABCTL_CACHE_DIR")
    os.environ["LABCTL_CACHE_DIR"] = str(cache)
    try:
        yield
    finally:
        del os.environ["LABCTL_CACHE_DIR"]
        if before is not None:
            os.environ["LABCTL_CACHE_DIR"] = before


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A folder with the shipped labs and a state of its own; whatever still runs in it at the end is removed."""
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as name:
        folder = Path(name)
        os.environ["LABCTL_STATE_DIR"] = str(folder / "state")
        shutil.copytree(REPOSITORY / "labs", folder / "labs")
        try:
            yield folder
        finally:
            for lab in folder.glob("lab-*"):
                subprocess.run([*LABCTL, "destroy", lab, "--yes"], check=False, capture_output=True)
