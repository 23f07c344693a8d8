"""What the lab's own checks are worth in a running lab, and a class's points as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from labctl.errors import ExitCode
from labctl.events import Listener, ignore
from labctl.lifecycle import checking, submitting
from labctl.lifecycle.checking import Choice
from labctl.lifecycle.locate import Running
from labctl.verify.model import Check, Verdict

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one; https://owasp.org, CSV Injection


@dataclass(frozen=True, slots=True)
class Score:
    """How the checks of a lab went. borrowed: instances of the same class whose flags were handed in here."""

    checks: tuple[Check, ...]
    borrowed: tuple[str, ...] = ()

    @property
    def earned(self) -> float:
        """Points of the checks that hold."""
        return sum(worth(check) for check in self.checks if check.verdict is Verdict.PASS)

    @property
    def possible(self) -> float:
        """Points of all checks."""
        return sum(map(worth, self.checks))

    @property
    def exit_code(self) -> ExitCode:
        """Fewer points are no failure; a check that could not be made is."""
        unsure = any(check.verdict is Verdict.INCONCLUSIVE for check in self.checks)
        return ExitCode.INCONCLUSIVE if unsure else ExitCode.OK


def worth(check: Check) -> float:
    """The points of a check: what its mark says, else one."""
    return 1.0 if check.points is None else check.points


def score(lab: Running, choice: Choice, *, listener: Listener = ignore) -> Score:
    """Run the lab's tasks, or its checks where it names no tasks, and look which flags with points were handed in.

    Raises UsageError where it has none of all that, or where checks may not run here yet.
    """
    flags = () if choice.expression else submitting.checks(lab)
    if flags and checking.folder_of(lab) is None:
        return Score(flags, submitting.borrowed(lab))
    todo = checking.task(lab, replace(choice, only=True))
    if todo.folder is None:
        return Score(())
    found = checking.run(lab, todo.folder, choice.expression, tasks=True, listener=listener)
    return Score((*found, *flags), submitting.borrowed(lab))


def table(rows: Sequence[tuple[str, str, str, Score | None, str]]) -> str:
    """Points as CSV (RFC 4180). A row: instance, students' ids, their names, the score, what went wrong.

    After those columns comes one for each check with the points earned by it; empty where it could not be made.
    """
    names = list(dict.fromkeys(check.name for *_, found, _ in rows if found is not None for check in found.checks))
    text = io.StringIO()
    sheet = csv.writer(text)
    sheet.writerow(["instance", "students", "names", "points", "of", "trouble", *map(_cell, names)])
    for instance, students, people, found, failed in rows:
        earned = {c.name: _number(worth(c) if c.verdict is Verdict.PASS else 0) for c in found.checks} if found else {}
        unsure = {c.name for c in found.checks if c.verdict is Verdict.INCONCLUSIVE} if found else set()
        total = [_number(found.earned), _number(found.possible)] if found else ["", ""]
        cells = ["" if name in unsure else earned.get(name, "") for name in names]
        trouble = failed or (f"not to be checked: {len(unsure)}" if unsure else "")
        sheet.writerow([instance, students, _cell(people), *total, _cell(trouble), *cells])
    return text.getvalue()


def _number(points: float) -> str:
    return f"{points:g}"


def _cell(text: str) -> str:
    """Text that stays text in a spreadsheet: names are the students' own."""
    return f"'{text}" if text.startswith(_FORMULA) else text
