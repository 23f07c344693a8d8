"""What a lab's checks are worth and what its secrets are: of one instance, and of a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labctl.cli.class_options import ClassArgument, JobsOption, OnlyOption, chosen_of, workers
from labctl.cli.options import InstanceOption, JsonOption, LabArgument, QuietOption
from labctl.cli.output import progress, remark, say, say_json, table

if TYPE_CHECKING:
    from labctl.lifecycle.classroom.work import Result
    from labctl.lifecycle.scoring import Score

ExpressionOption = Annotated[str, typer.Option("-k", metavar="EXPR", help="Only checks that fit, as for pytest.")]
ChecksOption = Annotated[
    bool, typer.Option("--checks", help="Let the checks of a lab that came in a bundle run, now and from now on.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write it here.", show_default="standard output"),
]


def score(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    expression: ExpressionOption = "",
    run_checks: ChecksOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Run the lab's tasks, checks marked `@pytest.mark.task(N)`, or all checks where none is, and count the points.

    A check without a number is worth one point. Flags with `points:` count once they were handed in: `labctl submit`.

    Exit code 0, however many there are. 4: something could not be checked.
    """
    from labctl.lifecycle import locate, scoring
    from labctl.lifecycle.checking import Choice

    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        found = scoring.score(running, Choice(run_checks or None, expression=expression), listener=listener)
    if as_json:
        say_json({"lab": running.plan.lab, "instance": running.plan.instance, **_plain(found)})
    else:
        _show(found)
    return int(found.exit_code)


def secrets(lab: LabArgument = Path(), instance: InstanceOption = "default", as_json: JsonOption = False) -> None:
    """Print what the secrets of an instance are: its flags, passwords and ports."""
    from labctl.lifecycle import locate

    known = locate.find(lab, instance=instance).secrets()
    if as_json:
        say_json(known)
    elif known:
        table(("SECRET", "VALUE"), list(known.items()))
    else:
        remark("This lab has no secrets.")


def class_score(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    expression: ExpressionOption = "",
    run_checks: ChecksOption = False,
    output: OutputOption = None,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Run the lab's tasks, or its checks, in every instance; write the points as a table (CSV), a line for each.

    The column `trouble` also says who has handed in a flag of somebody else's.
    Exit code 0: everybody was checked. 1: some could not be at all. 4: some checks could not be made.
    """
    from labctl.errors import ExitCode
    from labctl.host.files import write_atomic
    from labctl.lifecycle import scoring
    from labctl.lifecycle.checking import Choice
    from labctl.lifecycle.classroom import verbs, work

    spec, chosen = chosen_of(target, only)
    chosen = chosen if only else verbs.on_roster(chosen)
    with progress(quiet or as_json) as listener:
        results = verbs.score(
            chosen, choice=Choice(run_checks or None, expression=expression), jobs=workers(jobs), listener=listener
        )
    if as_json:
        say_json({"class": spec.name, "instances": [_scored(result) for result in results]})
    else:
        text = scoring.table([_row(result) for result in results])
        if output is None:
            say(text.rstrip("\r\n"))
        else:
            write_atomic(output, text, mode=0o600)
            say(f"{spec.name}: {len(results)} instances in {output}.")
    unsure = any(found is not None and found.exit_code for found in map(_found, results))
    return int(work.worst(results)) or int(ExitCode.INCONCLUSIVE) * unsure


def _found(result: Result) -> Score | None:
    """What the checks said, where they could be made."""
    found: Score | None = result.facts.get("score")
    return found


def _students(result: Result) -> list[str]:
    """Ids of those who sit at the instance, none where nobody on the roster does."""
    return [student.id for student in result.place.seat.students] if result.place.seat is not None else []


def _scored(result: Result) -> dict[str, Any]:
    """One instance's line of a score as plain values."""
    found = _found(result)
    return {
        "instance": result.place.instance,
        "students": _students(result),
        "error": result.error.brief if result.error is not None else None,
        **(_plain(found) if found is not None else {}),
    }


def _row(result: Result) -> tuple[str, str, str, Score | None, str]:
    """One instance's line of the table."""
    found = _found(result)
    trouble = result.error.brief if result.error is not None else ""
    if found is not None and found.borrowed:
        trouble = f"handed in a flag of {', '.join(found.borrowed)}"
    return result.place.instance, " ".join(_students(result)), result.place.people, found, trouble


def class_key(
    target: ClassArgument = Path(), only: OnlyOption = None, output: OutputOption = None, as_json: JsonOption = False
) -> None:
    """Print the answer sheet: every student's or team's secrets, also before anything is up.

    They come from the file class.key beside the class file, which `class up` or this makes. Keep it: with it the same
    students get the same secrets again, on any host.
    """
    from labctl.host.files import write_atomic
    from labctl.lifecycle.classroom import answers

    spec, chosen = chosen_of(target, only)
    found = answers.sheet(spec, chosen)
    if as_json:
        say_json({"class": spec.name, "instances": [{"instance": name, "secrets": known} for name, known in found]})
        return
    if not found or not found[0][1]:
        remark("This class's lab has no secrets.")
        return
    columns = ("INSTANCE", *found[0][1])
    rows = [(name, *known.values()) for name, known in found]
    if output is None:
        table(columns, rows)
    else:
        write_atomic(output, answers.csv_text(found), mode=0o600)
        say(f"{spec.name}: {len(found)} instances in {output}.")


def _show(found: Score) -> None:
    from labctl.lifecycle.scoring import worth
    from labctl.verify.model import Verdict

    rows = []
    for check in found.checks:
        points = "?" if check.verdict is Verdict.INCONCLUSIVE else f"{worth(check) * (check.verdict is Verdict.PASS):g}"
        rows.append((check.verdict.value, f"{points} of {worth(check):g}", check.name))
    table(("CHECK", "POINTS", "WHAT"), rows)
    say(f"{found.earned:g} of {found.possible:g} points")


def _plain(found: Score) -> dict[str, Any]:
    from labctl.verify.checks import to_json

    return {
        "earned": found.earned,
        "possible": found.possible,
        "borrowed": found.borrowed,
        "checks": [to_json(check) for check in found.checks],
    }
