"""The lab's own checks as a part of ``verify``: whether they run, and running them in a process of their own.

They are Python programs of the lab's author, and run on this computer with the user's rights. Those of a lab that came
out of a bundle wait until the user has said once that they may.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from labctl.errors import LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.host.runner import Result, Runner, mortal
from labctl.lifecycle.lab_folder import BUNDLE_MARK
from labctl.lifecycle.locate import Running
from labctl.spec.load import load
from labctl.verify.checks import Journal, plain
from labctl.verify.model import Check, Finding, Report, Verdict
from labctl.verify.run import plan_digest

SECONDS = 900.0
"""How long all checks of a lab may take together."""

_RAN = (0, 1)  # statuses of pytest that mean that all checks have run
_NOTHING = 5  # pytest found no check
_USAGE = 4  # pytest does not understand its command line: the -k


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user wants of the lab's own checks.

    run: True (also where they came in a bundle, from now on), False, or None where nothing was said. only: them and no
    probes. expression: as pytest's ``-k``, those with fitting names.
    """

    run: bool | None = None
    only: bool = False
    expression: str = ""


USUAL = Choice()


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done. folder: that of the checks, None where none run. note: why they do not, for people."""

    folder: str | None
    note: str = ""


def task(lab: Running, choice: Choice) -> Task:
    """Decide before anything is probed. Raises UsageError where the user asks for what cannot be."""
    asked = choice.run or choice.only or bool(choice.expression)
    if choice.run is False:
        if choice.only or choice.expression:
            raise UsageError("--no-checks does not go together with --only-checks or -k")
        return Task(None, "the lab's own checks were left out")
    folder = folder_of(lab)
    if folder is None:
        if asked:
            hint = "Write checks: checks/ into the lab file, and tests into that folder."
            raise UsageError(f"{lab.plan.lab} has no checks of its own", hint=hint)
        return Task(None)
    mark = lab.root / BUNDLE_MARK
    if mark.exists():
        if choice.run is None:
            words = f"the lab's own checks did not run: they are programs that came in a bundle, in {lab.root / folder}"
            hint = "Read them; labctl verify --checks lets them run on this computer, now and from then on."
            if asked:
                raise UsageError(words, hint=hint)
            return Task(None, f"{words}. {hint}")
        with contextlib.suppress(OSError):  # in somebody else's folder the user is asked again the next time
            mark.unlink()
    return Task(folder)


def unprobed(lab: Running) -> Report:
    """The report of a verification without probes."""
    note = Finding("note", "", "the isolation was not probed: only the lab's own checks ran", Verdict.PASS)
    now, plan = time.time(), lab.plan
    return Report(plan.lab, plan.instance, plan.provider, plan_digest(plan), now, now, (), (note,))


def complete(
    report: Report, lab: Running, todo: Task, choice: Choice, *, plug: bool = False, listener: Listener = ignore
) -> Report:
    """The report with the results of the lab's own checks, or with a note that they did not run."""
    if todo.note:
        report = replace(report, host_evidence=(*report.host_evidence, Finding("note", "", todo.note, Verdict.PASS)))
    if todo.folder is None:
        return report
    checks = run(lab, todo.folder, choice.expression, plug=plug, listener=listener)
    return replace(report, checks=checks, finished=time.time())


def run(
    lab: Running,
    folder: str,
    expression: str = "",
    *,
    tasks: bool = False,
    plug: bool = False,
    listener: Listener = ignore,
    seconds: float = SECONDS,
) -> tuple[Check, ...]:
    """Run the checks in a folder of the lab. Nothing that goes wrong raises: it makes checks INCONCLUSIVE.

    tasks: those marked as a student's task alone, or all where none is; else all but them, for a lab whose tasks are
    open yet is as it should be.
    """
    place = (lab.root / folder).resolve()
    if not place.is_dir() or not place.is_relative_to(lab.root.resolve()):
        return (_open_question(folder, f"there is no folder {folder} in {lab.root}"),)
    with tempfile.TemporaryDirectory(prefix="labctl-checks-") as private:
        home = Path(private)  # 0700
        (home / "work").mkdir()
        (home / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # else pytest takes one from above the lab
        journal = Journal(home / "journal")

        def heard(_line: str) -> None:
            done, found = journal.progress()
            listener(Event("progress", "checks", message=f"{done} of {found}"))

        listener(Event("started", "checks"))
        argv = [*mortal(), *_argv(lab, place, home, expression), f"--lab-tasks={'alone' if tasks else 'none'}"]
        argv += ["--lab-plug"] if plug else []
        result = Runner(log=lab.folder.commands_log, environment=_ENVIRONMENT).follow(
            argv, heard, timeout=seconds, cwd=home / "work"
        )
        ending = _ending(result, seconds)
        checks = journal.read(f"it did not end: {ending.splitlines()[0]}" if ending else "pytest left it out")
        no_wonder = journal.has_only_tasks()
        listener(Event("done", "checks", seconds=result.seconds))
    if result.code == _USAGE:
        checks = ()  # pytest looked for them and ran none, because of what it says
    if ending or not (checks or no_wonder):
        missing = f"no check fits -k {expression}" if expression else "there is no check in it"
        why = ending or (missing if result.code in (*_RAN, _NOTHING) else _said(result))
        checks = (*checks, _open_question(folder, why))
    return checks


# No plug-in of the user's but ours and testinfra's, nothing written beside the checks, and lines as they come.
_ENVIRONMENT = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_ADDOPTS": "",
    "PYTEST_PLUGINS": "",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


def _argv(lab: Running, place: Path, home: Path, expression: str) -> list[str]:
    """pytest of this interpreter. Conftest files above the checks' folder are none of the lab's."""
    asked = [f"-k{expression}"] if expression else []
    return [
        sys.executable,
        *("-m", "pytest", "-v", "--color=no", "--strict-markers", "--continue-on-collection-errors", *asked),
        *("-p", "labctl.pytest_plugin", "-p", "testinfra.plugin", "-p", "no:cacheprovider"),
        *("-c", str(home / "pytest.ini"), f"--rootdir={lab.root.resolve()}", f"--confcutdir={place}"),
        *(f"--basetemp={home / 'tmp'}", f"--lab={lab.record.spec_file}", f"--lab-instance={lab.plan.instance}"),
        *(f"--lab-journal={home / 'journal'}", str(place)),
    ]


def _ending(result: Result, seconds: float) -> str:
    """Why the run broke off, or ``""``."""
    if result.code is None:
        return f"the checks took longer than {seconds:g} s"
    return "" if result.code in (*_RAN, _NOTHING) else _said(result)


def _said(result: Result) -> str:
    return f"pytest ended with status {result.code}\n{result.last_words()}"


def _open_question(folder: str, why: str) -> Check:
    return Check(folder, "the lab's own checks", Verdict.INCONCLUSIVE, plain(why))


def folder_of(lab: Running) -> str | None:
    """The folder of the checks: as the lab file says now, for they are read now as well; else as at the last ``up``."""
    try:
        return load(Path(lab.record.spec_file)).checks
    except LabctlError:
        return lab.plan.checks
