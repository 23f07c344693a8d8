"""``labctl class``: one lab for a whole class."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli import class_door, class_papers, score_commands
from labctl.cli.class_options import (
    ClassArgument,
    JobsOption,
    MachineOption,
    OnlyOption,
    chosen_of,
    workers,
)
from labctl.cli.class_view import show_plan, show_status, tell, to_json
from labctl.cli.options import DryRunOption, JsonOption, ProviderOption, QuietOption, YesOption
from labctl.cli.output import agreed, progress, remark, say_json
from labctl.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from labctl.lifecycle.classroom.work import Result
    from labctl.spec.classfile import ClassSpec

class_ = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="One lab for a whole class: an instance for every student or team on a roster.\n\n"
    "`labctl class plan`, `labctl class up`, and after the lesson `labctl class down`.",
)


@class_.command("plan")
def plan(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    provider: ProviderOption = None,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what `class up` would do, what each instance costs, and how many of them fit. Exit code 1: not all fit."""
    from labctl.lifecycle.classroom.survey import refusal, survey

    spec, chosen = chosen_of(target, only)
    with progress(as_json) as listener:
        found = survey(spec, chosen, provider=provider, jobs=workers(jobs), listener=listener)
    show_plan(spec, found, as_json=as_json)
    if spec.hours is not None and not spec.hours.is_open(now := time.time()):
        remark(f"Closed until {spec.hours.told(spec.hours.opens(now))}: until then `class up` wants --anyway.")
    if found.estimate.short:
        raise refusal(found, spec)
    return int(ExitCode.ERROR if any(intent.error for intent in found.intents) else ExitCode.OK)


@class_.command("up")
def up(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    was_up: Annotated[
        bool, typer.Option("--was-up", help="Only those that were up before: for a host that was started anew.")
    ] = False,
    provider: ProviderOption = None,
    jobs: JobsOption = None,
    only_locked: Annotated[
        bool, typer.Option("--locked", help="Start from the images that lab.lock.yaml pins, or not at all.")
    ] = False,
    keep_fresh: Annotated[
        bool, typer.Option("--fresh/--no-fresh", help="Keep the state of new instances for `labctl class reset`.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Start instances that do not fit on this host.")] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Also while the class is closed; it may run until it has been open next."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Make every instance of the class what the lab file says. Repeating it mends what is broken and nothing else.

    One student's failure stops nobody else. Safe to interrupt at any moment; the next `class up` goes on from there.
    """
    from labctl.lifecycle.classroom import verbs
    from labctl.lifecycle.classroom.seats import places

    spec, chosen = chosen_of(target, only)
    chosen = verbs.was_up(chosen) if was_up else chosen
    with progress(quiet or as_json) as listener:
        results = verbs.up(
            spec,
            chosen,
            provider=provider,
            jobs=workers(jobs),
            only_locked=only_locked,
            force=force,
            keep_fresh=keep_fresh,
            anyway=anyway,
            listener=listener,
        )
    if gone := [place.instance for place in places(spec) if place.seat is None]:
        remark(
            f"No longer on the roster, and still there: {', '.join(gone)}. `labctl class destroy --gone` removes it."
        )
    return _ended(spec, "up", results, as_json)


@class_.command("status")
def status(target: ClassArgument = Path(), only: OnlyOption = None, as_json: JsonOption = False) -> int:
    """Show every instance of the class, and those of students who are on the roster no more."""
    from labctl.lifecycle.classroom import verbs

    spec, chosen = chosen_of(target, only)
    results = verbs.status(chosen)
    show_status(spec, results, as_json=as_json)
    return int(ExitCode.ERROR if any(result.error for result in results) else ExitCode.OK)


@class_.command("down")
def down(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    machine: MachineOption = None,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Stop the instances of the class. Their disks stay; `labctl class up` starts them again."""
    from labctl.lifecycle.classroom import verbs

    spec, chosen = chosen_of(target, only)
    verbs.check_machines(chosen, machine or ())
    with progress(quiet or as_json) as listener:
        results = verbs.down(chosen, machines=machine or (), jobs=workers(jobs), listener=listener)
    return _ended(spec, "down", results, as_json)


@class_.command("tidy")
def tidy(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    dry_run: DryRunOption = False,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Stop instances that have been idle for longer than `limits: {idle: …}`, and all while `hours` say closed.

    For a timer, every few minutes. Idle is an instance that nobody is logged in to over SSH. Its state is kept, disks
    and on qemu memory, and `labctl class up` goes on from there.
    """
    from labctl.lifecycle.classroom import verbs

    spec, chosen = chosen_of(target, only)
    if spec.hours is None and spec.limits.idle is None:
        raise UsageError(
            f"{spec.name} may always run", hint="`limits: {idle: 2 h}` or `hours` in the class file say when not."
        )
    with progress(quiet or as_json) as listener:
        results = verbs.tidy(spec, chosen, dry_run=dry_run, jobs=workers(jobs), listener=listener)
    return _ended(spec, "tidy", results, as_json)


@class_.command("reset")
def reset(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    jobs: JobsOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Put instances back to what they were after their first `up`. What students have done in them since is gone."""
    from labctl.lifecycle.classroom import verbs

    spec, chosen = chosen_of(target, only)
    chosen = chosen if only else verbs.on_roster(chosen)
    there = [place.instance for place in verbs.existing(chosen)]
    if not only and there and not agreed(f"Throw away all that was done in {_counted(there)} of {spec.name}?", yes):
        return int(ExitCode.OK)
    with progress(quiet or as_json) as listener:
        results = verbs.reset(chosen, jobs=workers(jobs), listener=listener)
    late = next((result.facts["behind"] for result in results if result.facts.get("behind")), "")
    if late:
        remark(f"{late} `labctl class up` makes it so.")
    return _ended(spec, "reset", results, as_json)


@class_.command("verify")
def verify(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", min=1, help="Only so many of them, picked by chance.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Picks the same sample again.", show_default="chance")
    ] = None,
    run_checks: Annotated[
        bool | None,
        typer.Option(
            "--checks/--no-checks",
            help="The lab's own checks, as for `labctl verify`.",
            show_default="yes, unless the lab came in a bundle",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Also write each instance's reports into DIR/INSTANCE."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Instances verified at once.")] = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Prove the isolation of every instance, or of a sample of them.

    Exit code 0: all PASS. 3: at least one FAIL. 1: one could not be verified at all. 4: something INCONCLUSIVE.
    """
    from labctl.lifecycle.checking import Choice
    from labctl.lifecycle.classroom import verbs

    spec, chosen = chosen_of(target, only)
    chosen = chosen if only else verbs.on_roster(chosen)
    if sample is not None:
        chosen = verbs.sample(chosen, sample, seed)
    with progress(quiet or as_json) as listener:
        results = verbs.verify(chosen, checks=Choice(run_checks), report=report, jobs=workers(jobs), listener=listener)
    code = _ended(spec, "verify", results, as_json)
    words = {result.did for result in results}
    return int(ExitCode.FAIL) if "FAIL" in words else code or int(ExitCode.INCONCLUSIVE) * ("INCONCLUSIVE" in words)


@class_.command("destroy")
def destroy(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="Only instances of students who are on the roster no more.")
    ] = False,
    jobs: JobsOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Remove the instances of the class with their disks. The class file, the roster, the lab and its images stay."""
    from labctl.lifecycle.classroom import verbs

    spec, chosen = chosen_of(target, only)
    doomed = tuple(place for place in verbs.existing(chosen) if place.seat is None or not gone)
    if doomed and not agreed(f"Remove {_counted([p.instance for p in doomed])} of {spec.name} with its disks?", yes):
        return int(ExitCode.OK)
    with progress(quiet or as_json) as listener:
        results = verbs.destroy(doomed, jobs=workers(jobs), listener=listener)
    return _ended(spec, "destroy", results, as_json)


def _ended(spec: ClassSpec, verb: str, results: Sequence[Result], as_json: bool) -> int:
    from labctl.lifecycle.classroom.work import worst

    if as_json:
        say_json({"class": spec.name, "verb": verb, "instances": [to_json(result) for result in results]})
    else:
        tell(spec, verb, results)
    return int(worst(results))


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} instances" if len(names) != 1 else f"the instance {names[0]}"


class_.command("score")(score_commands.class_score)
class_.command("key")(score_commands.class_key)
class_.command("ssh-config")(class_papers.ssh_config)
class_.command("handout")(class_papers.handout)
class_.command("authorized-keys")(class_door.authorized_keys)
class_.command("enter")(class_door.enter)
class_.command("schema")(class_papers.schema)
