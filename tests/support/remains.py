"""What of labctl still runs: machines, and whoever keeps a namespace open, boots a template or was forgotten."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import psutil

from labctl.providers.qemu.layout import Layout
from tests.support.command import Labctl

_SETTLE_SECONDS = 10.0


def offspring(labctl: Labctl) -> list[psutil.Process]:
    """All that this command has started and that runs, and all that those have started.

    They have its environment, whatever stands in their arguments, whoever their parent is now.
    """
    mark = f"LABCTL_STATE_DIR={labctl.state}".encode()
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            words = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if mark in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def those_of(layout: Layout) -> dict[int, str]:
    """Pid to what it is, of each process that a lab which is up has noted as its own: machines, and the wires."""
    noted = {}
    for machine in layout.known_machines():
        record = json.loads(layout.machine(machine).record.read_text())
        noted[int(record["pid"])] = machine
    wires = json.loads((layout.workdir / "namespace.json").read_text())
    return {**noted, int(wires["pid"]): "wires"}


def strangers(labctl: Labctl, layouts: Iterable[Layout]) -> list[str]:
    """What runs beside the labs that are up, and what of those does not run, for people. Nothing may.

    What a labctl that was killed had started may need a moment to find out that nobody listens any more.
    """
    noted = {pid: name for layout in layouts for pid, name in those_of(layout).items()}
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        running = {process.pid: process for process in offspring(labctl)}
        wrong = [f"{name}, process {pid}, is gone" for pid, name in noted.items() if pid not in running]
        wrong += [f"forgotten: {_words(process)}" for pid, process in running.items() if pid not in noted]
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(0.05)


def builders(labctl: Labctl) -> Counter[str]:
    """Those of this command that boot a template: its mark, and how many do."""
    marks = Counter[str]()
    for process in offspring(labctl):
        try:
            marks.update(word for word in process.cmdline() if word.startswith("labctl-template:"))
        except psutil.Error:
            continue
    return marks


def _words(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:300]}"
    except psutil.Error:
        return f"{process.pid}, which has ended just now"
