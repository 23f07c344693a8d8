"""The lab's own checks: what they tell while they run, and how their results look in a report."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from labctl.verify.model import Check, Verdict

_MOST_TEXT = 4000  # characters of a message that are kept: an assertion may quote a whole page
_MOST_LINES = 12  # of a message that a terminal shows
_ONLY_TASKS = {"only": "tasks"}


class CheckEntry(TypedDict):
    """One of the lab's own checks. id: pytest's. name: what its author calls it. points: None where it has none."""

    id: str
    name: str
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    message: str
    seconds: float
    points: float | None


def to_json(check: Check) -> CheckEntry:
    """A check as the report has it."""
    return {
        "id": check.id,
        "name": check.name,
        "verdict": check.verdict.value,
        "message": check.message,
        "seconds": round(check.seconds, 3),
        "points": check.points,
    }


def told(checks: Sequence[Check]) -> Iterator[tuple[Verdict, str, str]]:
    """Each check for people: its verdict, a sentence, and indented lines that say more where it is no PASS."""
    for check in checks:
        worth = "" if check.points is None else f", {check.points:g} points"
        sentence = f"{check.name} ({check.id}{worth}, {check.seconds:.1f} s)"
        yield check.verdict, sentence, textwrap.indent("\n".join(check.message.splitlines()[:_MOST_LINES]), "    ")


def counted(checks: Sequence[Check]) -> list[str]:
    """How the checks went, as one part of a sentence; none where there are no checks."""
    counts = Counter(check.verdict for check in checks)
    parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    return [f"{len(checks)} {'check' if len(checks) == 1 else 'checks'}, {parts}"] if checks else []


@dataclass(frozen=True, slots=True)
class Journal:
    """What running checks have to tell, as JSON lines in a file: every check when it is found, and when it is settled.

    The writer is a process that may be ended at any moment, so whatever is missing or torn counts as not settled.
    """

    path: Path

    def found(self, identity: str, name: str, points: float | None) -> None:
        """Note a check that is going to run."""
        self._write({"id": identity, "name": name, "verdict": None, "message": "", "seconds": 0, "points": points})

    def only_tasks(self) -> None:
        """Note that there is nothing in the lab but tasks, which were not wanted."""
        self._write(_ONLY_TASKS)

    def has_only_tasks(self) -> bool:
        """Whether that was noted."""
        return _ONLY_TASKS in self._documents()

    def settled(self, check: Check) -> None:
        """Note how a check went."""
        self._write(to_json(check))

    def progress(self) -> tuple[int, int]:
        """How many checks are settled, and how many were found."""
        lines = self._lines()
        return sum(line["verdict"] is not None for line in lines.values()), len(lines)

    def read(self, otherwise: str) -> tuple[Check, ...]:
        """All checks in the order in which they were found. Those not settled are INCONCLUSIVE for that reason."""
        return tuple(_check(line, otherwise) for line in self._lines().values())

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _lines(self) -> dict[str, dict[str, Any]]:
        """The last line of each check."""
        return {line["id"]: line for line in self._documents() if line.keys() == CheckEntry.__annotations__.keys()}

    def _documents(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for text in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line


def _check(line: dict[str, Any], otherwise: str) -> Check:
    identity, name = plain(str(line["id"])), plain(str(line["name"]))
    points = None if line["points"] is None else float(line["points"])
    if line["verdict"] is None:
        return Check(identity, name, Verdict.INCONCLUSIVE, plain(otherwise), 0.0, points)
    verdict, seconds = Verdict(line["verdict"]), max(0.0, float(line["seconds"]))
    return Check(identity, name, verdict, plain(str(line["message"])), seconds, points)


def plain(text: str) -> str:
    """Text that a terminal and a file can take whatever a guest put into it: no control characters, not without end."""
    text = text.replace("\r\n", "\n").expandtabs(4)
    shown = "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown if len(shown) <= _MOST_TEXT else f"{shown[:_MOST_TEXT]}…"


def is_points(value: object) -> bool:
    """Whether a value can be what a check is worth."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
