"""``make bench``: what labctl costs, side by side with the floor beneath it, in one run.

The floor of the command line is a Python that does nothing; the floor of bringing machines up is QEMU booting the same
image by itself until its guest agent answers. Figures are medians over several runs; ratios are of runs in turn, so
that they hold where the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labctl.host.processes import ProcessId
from labctl.images import resolve
from labctl.providers.qemu.agent import agent

REPOSITORY = Path(__file__).resolve().parents[2]
LABCTL = [sys.executable, "-m", "labctl"]


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall clock that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def quiet(*argv: str | Path, **more: Any) -> Callable[[], object]:
    """A program to time; its failure ends the benchmark."""
    return lambda: subprocess.run([str(a) for a in argv], check=True, capture_output=True, **more)


def boot_floor(folder: Path) -> float:
    """Seconds from starting QEMU by hand on the image of the lab's machines to the first answer of its guest agent."""
    image = resolve("debian-12")
    overlay, socket = folder / "floor.qcow2", folder / "floor.sock"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.disk, "-F", "qcow2", overlay], check=True)
    argv = [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,tb-size=128", "-cpu", "max", "-m", "256",
        "-nodefaults", "-display", "none",
        "-kernel", image.kernel, "-initrd", image.initrd, "-append", image.cmdline,
        "-drive", f"file={overlay},if=virtio,cache=unsafe", "-device", "virtio-serial-pci",
        "-chardev", f"socket,path={socket},server=on,wait=off,id=agent",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    ]  # fmt: skip
    began = time.perf_counter()
    with subprocess.Popen([str(a) for a in argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with agent(socket, timeout=120):
                return time.perf_counter() - began
        finally:
            process.kill()


@contextlib.contextmanager
def bench_home() -> Iterator[Path]:
    """A folder with the shipped labs and a state of its own; whatever still runs in it at the end is removed."""
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as name:
        home = Path(name)
        os.environ["LABCTL_STATE_DIR"] = str(home / "state")
        shutil.copytree(REPOSITORY / "labs", home / "labs")
        try:
            yield home
        finally:
            for lab in ("quickstart", "dmz"):
                subprocess.run([*LABCTL, "destroy", home / "labs" / lab, "--yes"], check=False, capture_output=True)


def memory_per_machine(lab: Path) -> float:
    """Proportional resident memory of the lab's engine processes in MiB, divided by the machines."""
    import psutil

    shown = json.loads(subprocess.run([*LABCTL, "status", lab, "--json"], check=True, capture_output=True).stdout)
    pids = [machine["pid"] for machine in shown["machines"]]
    assert all(ProcessId.of(pid) for pid in pids)
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / len(pids) / (1 << 20)


def run(runs: int) -> dict[str, list[float]]:
    """Every figure, one value per run."""
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)
        print(f"{name:<34} {value:8.2f}", file=sys.stderr)

    with bench_home() as home:
        quick, dmz = home / "labs/quickstart", home / "labs/dmz"
        quiet(*LABCTL, "validate", quick)()
        for _ in range(max(runs, 5)):
            note("python that does nothing, s", timed(quiet(sys.executable, "-c", "pass")))
            note("labctl --help, s", timed(quiet(*LABCTL, "--help")))
            note("labctl validate, s", timed(quiet(*LABCTL, "validate", quick)))
            note("labctl plan, s", timed(quiet(*LABCTL, "plan", dmz, "--provider", "qemu")))
        for lab, machines in ((quick, 2), (dmz, 5)):
            for turn in range(runs):
                folder = home / f"floor-{lab.name}-{turn}"
                folder.mkdir()
                note("plain QEMU boot to agent, s", boot_floor(folder))
                note(f"up {lab.name} ({machines} machines), s", timed(quiet(*LABCTL, "up", lab, "--provider", "qemu")))
                note(f"second up {lab.name}, s", timed(quiet(*LABCTL, "up", lab)))
                note(f"verify {lab.name}, s", timed(quiet(*LABCTL, "verify", lab)))
                note(f"memory per machine {lab.name}, MiB", memory_per_machine(lab))
                note(f"down {lab.name}, s", timed(quiet(*LABCTL, "down", lab)))
                note(f"destroy {lab.name}, s", timed(quiet(*LABCTL, "destroy", lab, "--yes")))
    return figures


def ratios(figures: dict[str, list[float]]) -> dict[str, float]:
    """Medians of pairwise ratios to the floor of the same turn."""
    nothing, floor = figures["python that does nothing, s"], figures["plain QEMU boot to agent, s"]
    found = {}
    for name in ("labctl --help, s", "labctl validate, s", "labctl plan, s"):
        found[f"{name[:-3]} / python"] = statistics.median(a / b for a, b in zip(figures[name], nothing, strict=True))
    for index, name in enumerate(("up quickstart (2 machines), s", "up dmz (5 machines), s")):
        runs = len(figures[name])
        pairs = zip(figures[name], floor[index * runs : (index + 1) * runs], strict=True)
        found[f"{name[:-3]} / plain boot"] = statistics.median(a / b for a, b in pairs)
    return found


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each slow figure")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = run(options.runs)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"{'figure':<40} {'min':>8} {'median':>8} {'max':>8}  runs")
    for name, values in figures.items():
        print(f"{name:<40} {min(values):8.2f} {statistics.median(values):8.2f} {max(values):8.2f}  {len(values)}")
    print()
    for name, value in ratios(figures).items():
        print(f"{name:<48} {value:8.2f} x")
    if options.json:
        options.json.write_text(json.dumps({"figures": figures, "ratios": ratios(figures)}, indent=2) + "\n")


main()
