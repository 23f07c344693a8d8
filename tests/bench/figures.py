"""Figures with their runs, and what is divided by what. A figure's name says what it is; its unit stands beside it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Unit = Literal["s", "ms", "MiB", "cores"]
Section = Literal["command line", "start", "scale", "verify", "checkpoint", "class", "peer"]


class FailedError(Exception):
    """A program that is measured failed, so there is nothing to measure."""


@dataclass
class Figure:
    """One thing measured several times.

    beside: the name of the figure of the same section that it is divided by, run for run. floor: it is itself what
    others are divided by.
    """

    name: str
    unit: Unit
    section: Section
    beside: str = ""
    floor: bool = False
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one of the runs."""
        return statistics.median(self.values)


class Figures:
    """All figures of one run of the benchmark, in the order in which they were first measured."""

    def __init__(self) -> None:
        self.all: dict[tuple[str, str], Figure] = {}

    def note(
        self, section: Section, name: str, value: float, unit: Unit = "s", beside: str = "", *, floor: bool = False
    ) -> None:
        """Add one run to a figure, and say it."""
        figure = self.all.setdefault((section, name), Figure(name, unit, section, beside, floor))
        figure.values.append(value)
        print(f"{section:<13} {name:<46} {value:9.2f} {unit}", file=sys.stderr)

    def ratio(self, figure: Figure) -> float | None:
        """The median of the runs' ratios to the runs of the figure beside it; None where there is none."""
        other = self.all.get((figure.section, figure.beside))
        if other is None:
            return None
        pairs = list(zip(figure.values, other.values, strict=False))
        return statistics.median(a / b for a, b in pairs) if pairs else None

    def document(self, machine: Mapping[str, str], failed: Sequence[str]) -> dict[str, Any]:
        """Everything as JSON values, with the machine described. failed: the parts that could not be measured."""
        return {"machine": dict(machine), "failed": list(failed), "figures": [self._row(one) for one in self]}

    def write(self, path: Path, machine: Mapping[str, str], failed: Sequence[str]) -> None:
        """Keep them as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.document(machine, failed), indent=2) + "\n", encoding="utf-8")

    def table(self) -> str:
        """For people: minimum, median, maximum, runs, and the ratio to the figure beside."""
        lines = [f"{'':<13} {'figure':<46} {'min':>8} {'median':>8} {'max':>8}       runs  ratio"]
        for figure in self:
            ratio = self.ratio(figure)
            beside = f"{ratio:.2f} x {figure.beside}" if ratio is not None else ""
            values = f"{min(figure.values):8.2f} {figure.median:8.2f} {max(figure.values):8.2f} {figure.unit:<5}"
            lines.append(f"{figure.section:<13} {figure.name:<46} {values} {len(figure.values):>4}  {beside}".rstrip())
        return "\n".join(lines)

    def __iter__(self) -> Iterator[Figure]:
        return iter(self.all.values())

    def _row(self, figure: Figure) -> dict[str, Any]:
        ratio = self.ratio(figure)
        return {
            "section": figure.section,
            "name": figure.name,
            "unit": figure.unit,
            "runs": [round(value, 4) for value in figure.values],
            "median": round(figure.median, 4),
            "beside": figure.beside,
            "ratio": None if ratio is None else round(ratio, 3),
        }


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall clock that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def program(*argv: str | Path, **more: Any) -> Callable[[], subprocess.CompletedProcess[bytes]]:
    """A program to time; its failure raises FailedError with its own words."""

    def work() -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run([str(a) for a in argv], check=False, capture_output=True, **more)
        if done.returncode != 0:
            words = (done.stderr or done.stdout).decode(errors="replace")[-2000:]
            raise FailedError(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{words}")
        return done

    return work
