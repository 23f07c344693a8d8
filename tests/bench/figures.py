"""Figures with their runs, and what is divided by what. A figure's name says what it is; its unit stands beside it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Unit = Literal["s", "ms", "MiB", "cores"]
Section = Literal["command line", "start", "scale", "verify", "checkpoint", "class", "peer"]


@dataclass
class Figure:
    """One thing measured several times. beside: the name of the figure that it is divided by, run for run."""

    name: str
    unit: Unit
    section: Section
    beside: str = ""
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one of the runs."""
        return statistics.median(self.values)


class Figures:
    """All figures of one run of the benchmark, in the order in which they were first measured."""

    def __init__(self) -> None:
        self.all: dict[str, Figure] = {}

    def note(self, section: Section, name: str, value: float, unit: Unit = "s", beside: str = "") -> float:
        """Add one run to a figure, and say it."""
        figure = self.all.setdefault(name, Figure(name, unit, section, beside))
        figure.values.append(value)
        print(f"{name:<44} {value:9.2f} {unit}", file=sys.stderr)
        return value

    def ratio(self, figure: Figure) -> float | None:
        """The median of the runs' ratios to the runs of the figure beside it; None where there is none."""
        other = self.all.get(figure.beside)
        if other is None:
            return None
        pairs = list(zip(figure.values, other.values, strict=False))
        return statistics.median(a / b for a, b in pairs) if pairs else None

    def document(self) -> dict[str, Any]:
        """Everything as JSON values, with the machine described."""
        return {
            "machine": machine(),
            "figures": [
                {
                    "section": figure.section,
                    "name": figure.name,
                    "unit": figure.unit,
                    "runs": [round(value, 4) for value in figure.values],
                    "median": round(figure.median, 4),
                    "beside": figure.beside,
                    "ratio": self.ratio(figure) and round(self.ratio(figure) or 0, 3),
                }
                for figure in self.all.values()
            ],
        }

    def write(self, path: Path) -> None:
        """Keep them as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.document(), indent=2) + "\n", encoding="utf-8")

    def table(self) -> str:
        """For people: minimum, median, maximum, runs, and the ratio to the figure beside."""
        lines = [f"{'figure':<44} {'min':>8} {'median':>8} {'max':>8}       runs  ratio"]
        for figure in self.all.values():
            ratio = self.ratio(figure)
            beside = f"{ratio:.2f} x {figure.beside}" if ratio is not None else ""
            lines.append(
                f"{figure.name:<44} {min(figure.values):8.2f} {figure.median:8.2f} {max(figure.values):8.2f} "
                f"{figure.unit:<5} {len(figure.values):>4}  {beside}"
            )
        return "\n".join(lines)


def machine() -> str:
    """What this was measured on, in a line."""
    import psutil

    memory = psutil.virtual_memory().total / (1 << 30)
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.platform()}, Python {platform.python_version()}"


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall clock that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def program(*argv: str | Path, **more: Any) -> Callable[[], subprocess.CompletedProcess[bytes]]:
    """A program to time; its failure ends the benchmark with its own words."""

    def work() -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run([str(a) for a in argv], check=False, capture_output=True, **more)
        if done.returncode != 0:
            words = (done.stderr or done.stdout).decode(errors="replace")[-2000:]
            raise SystemExit(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{words}")
        return done

    return work
