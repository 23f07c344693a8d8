"""Writes down for ``labctl verify`` which checks there are and how each went."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import pytest

from labctl.errors import LabctlError
from labctl.verify.checks import Journal, is_points
from labctl.verify.model import Check, Verdict


class Recorder:
    """A pytest plug-in with a journal. A check is settled when its last phase (setup, call, teardown) is over.

    tasks: "none" runs what is no task; "alone" runs the tasks alone, where there are any. None runs all.
    """

    def __init__(self, journal: Path, root: Path, tasks: Literal["alone", "none"] | None = None) -> None:
        self._journal, self._root, self._tasks = Journal(journal), root, tasks
        self._open: dict[str, Check] = {}

    @pytest.hookimpl(tryfirst=True)  # before pytest's own -k: a lab has tasks also where none of them fits
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out the tasks, or all else."""
        tasks: list[pytest.Item] = []
        others: list[pytest.Item] = []
        for item in items:
            (others if item.get_closest_marker("task") is None else tasks).append(item)
        if not tasks or self._tasks is None:
            return
        items[:], left_out = (tasks, others) if self._tasks == "alone" else (others, tasks)
        config.hook.pytest_deselected(items=left_out)
        if not items:
            self._journal.only_tasks()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note all that is going to run, so that it is known what did not."""
        for item in session.items:
            self._journal.found(item.nodeid, _name(item), _points(item))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file whose checks cannot even be found: an error in it, or one that skips itself."""
        if not report.passed:
            why = _words(report)
            name = report.nodeid or self._root.name
            self._journal.settled(Check(name, f"the checks in {name}", Verdict.INCONCLUSIVE, why))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Judge one phase, and note the check when it was the last."""
        report: pytest.TestReport = yield
        before = self._open.pop(item.nodeid, None) or Check(
            item.nodeid, _name(item), Verdict.PASS, points=_points(item)
        )
        verdict, message = _judged(report, call)
        if before.verdict is not Verdict.PASS:
            verdict, message = before.verdict, before.message
        check = Check(before.id, before.name, verdict, message, before.seconds + report.duration, before.points)
        if report.when == "teardown":
            self._journal.settled(check)
        else:
            self._open[item.nodeid] = check
        return report


def _judged(report: pytest.TestReport, call: pytest.CallInfo[None]) -> tuple[Verdict, str]:
    """Only a check that was made and did not hold is a FAIL; what kept it from being made leaves the question open."""
    if report.passed:
        return Verdict.PASS, ""
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, LabctlError):
        return Verdict.INCONCLUSIVE, "\n".join(filter(None, (error.brief, error.details, error.hint)))
    if report.skipped:
        expected = getattr(report, "wasxfail", None)
        return Verdict.INCONCLUSIVE, _words(report) if expected is None else f"it is expected to fail: {expected}"
    if report.when == "call":
        return Verdict.FAIL, _words(report)
    return Verdict.INCONCLUSIVE, f"its {report.when} failed: {_words(report)}"


def _words(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What pytest says of an ending that is no success, without the lines of the program."""
    said: Any = report.longrepr
    if isinstance(said, tuple):  # a skip: file, line, reason
        said = f"it skips itself: {str(said[2]).removeprefix('Skipped: ')}"
    crash = getattr(said, "reprcrash", None)
    return str(crash.message if crash is not None else said).removeprefix("Failed: ")


def _name(item: pytest.Item) -> str:
    text = (getattr(getattr(item, "obj", None), "__doc__", None) or "").strip()
    if not text:
        return item.name
    callspec = getattr(item, "callspec", None)
    return text.splitlines()[0].strip() + (f" [{callspec.id}]" if callspec is not None else "")


def _points(item: pytest.Item) -> float | None:
    mark = item.get_closest_marker("points") or item.get_closest_marker("task")
    return mark.args[0] if mark is not None and mark.args and is_points(mark.args[0]) else None
