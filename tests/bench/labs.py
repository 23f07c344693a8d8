"""The labs that are measured, in a home of their own that goes when the benchmark does, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from labctl.host.folders import cache_root
from labctl.host.processes import ProcessId
from tests.bench.figures import program

REPOSITORY = Path(__file__).resolve().parents[2]
LABCTL = (sys.executable, "-m", "labctl")
MEMORY = 256  # MiB of each machine
_PER_NETWORK = 10


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A folder with the shipped labs and a state of its own; whatever still runs in it at the end is removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `timeout` ends us so: the machines must not live on
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as name:
        folder = Path(name)
        os.environ["LABCTL_STATE_DIR"] = str(folder / "state")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed labctl has its modules compiled
        shutil.copytree(REPOSITORY / "labs", folder / "labs")
        try:
            yield folder
        finally:
            clear()


def clear() -> None:
    """Remove all that is up: after a part that failed the next one must not find machines that it did not start."""
    there = subprocess.run([*LABCTL, "list", "--json"], check=False, capture_output=True).stdout
    for found in json.loads(there or "[]"):
        lab, instance = found["lab"], found["instance"]
        argv = [*LABCTL, "destroy", lab, "--instance", instance, "--yes"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{lab}/{instance} is still there: {done.stderr}", file=sys.stderr)


def write(home: Path, machines: int) -> Path:
    """A lab of equal machines, ten on each network, nothing between the networks."""
    folder = home / f"lab-{machines}"
    folder.mkdir(exist_ok=True)
    numbers = range(machines)
    networks = "".join(f"  net{n}: {{subnet: 10.60.{n}.0/24}}\n" for n in sorted({m // _PER_NETWORK for m in numbers}))
    text = "".join(f"  m{m}: {{networks: [net{m // _PER_NETWORK}]}}\n" for m in numbers)
    (folder / "lab.yaml").write_text(
        f"version: 1\nname: bench-{machines}\nprovider: qemu\n"
        f"defaults: {{image: debian-12, memory: {MEMORY} MiB}}\nnetworks:\n{networks}machines:\n{text}"
    )
    return folder


def destroy(lab: Path) -> None:
    """Remove a lab where that is not measured."""
    program(*LABCTL, "destroy", lab, "--yes")()


def warm(lab: Path, *more: str) -> None:
    """Start a lab once and remove it: its image and its template are there then, so that no start pays for them."""
    program(*LABCTL, "up", lab, *more)()
    destroy(lab)


@contextlib.contextmanager
def no_templates(cache: Path) -> Iterator[None]:
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
        shutil.rmtree(cache / "templates", ignore_errors=True)


def processes(*lab: str | Path) -> list[psutil.Process]:
    """The processes of a lab's machines, all of which run."""
    shown = json.loads(program(*LABCTL, "status", *lab, "--json")().stdout)
    pids = [machine["pid"] for machine in shown["machines"]]
    assert all(ProcessId.of(pid) for pid in pids)
    return [psutil.Process(pid) for pid in pids]
