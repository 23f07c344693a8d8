"""``labctl verify``: prove the isolation of a running lab, or say what its plan lets anybody reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.options import InstanceOption, JsonOption, LabArgument, QuietOption
from labctl.cli.output import progress, remark, say, say_json
from labctl.errors import ExitCode, UsageError


def verify(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    outside: Annotated[
        list[str] | None,
        typer.Option(
            "--outside",
            metavar="ADDRESS:PORT",
            help="Also show that this TCP service out there is out of reach; may be repeated. "
            "Nobody else's address is sent to.",
        ),
    ] = None,
    plug: Annotated[
        bool,
        typer.Option(
            "--plug",
            help="Ask sealed guests without an agent (VirtualBox) by plugging their management cable in before and "
            "after the probes, never meanwhile.",
        ),
    ] = False,
    expression: Annotated[
        str, typer.Option("-k", metavar="EXPR", help="Of the lab's own checks only those that fit, as for pytest.")
    ] = "",
    run_checks: Annotated[
        bool | None,
        typer.Option(
            "--checks/--no-checks",
            help="The lab's own checks. They are programs and run on this computer with your rights; those of a lab "
            "out of a bundle wait until --checks was said once.",
            show_default="yes, unless the lab came in a bundle",
        ),
    ] = None,
    only_checks: Annotated[bool, typer.Option("--only-checks", help="The lab's own checks, and no probes.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Also write report.json, junit.xml (for CI) and report.html (one page, opens anywhere) here.",
        ),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Plant leaks in the running lab, which end by themselves in two minutes, and say which are seen.",
        ),
    ] = False,
    static: Annotated[
        bool,
        typer.Option(
            "--static", help="Probe nothing: say from the lab file what the owner of each machine could reach."
        ),
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MACHINE", help="With --static: only this machine, in full.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every FAIL and INCONCLUSIVE, where many have one cause too.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Prove the isolation: probe from inside every guest that what should pass passes and nothing else does.

    Every denial has a positive control; a check that could not have failed is INCONCLUSIVE. Then the lab's own checks
    run: the pytest files of its author in the folder that the lab file names under `checks`.
    Exit code 0: all PASS. 3: at least one FAIL. 4: no FAIL, but something INCONCLUSIVE.
    """
    if static:
        if outside or plug or report is not None:
            raise UsageError("--static probes nothing, so --outside, --plug and --report do not go with it")
        return _reach(lab, start, as_json=as_json)
    if start is not None:
        raise UsageError("--from goes with --static only", hint="labctl verify probes from every machine.")
    if self_test:
        return _self_test(lab, instance, quiet=quiet, as_json=as_json)
    from labctl.lifecycle import inspect, locate, proof
    from labctl.lifecycle.checking import Choice
    from labctl.verify.reports import exit_code, show, to_json

    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        checks = Choice(run_checks, only_checks, expression)
        proven = proof.prove(running, outside=outside or (), plug=plug, checks=checks, listener=listener)
    written = proof.write(proven, report) if report is not None else ()
    if as_json:
        say_json(to_json(proven.report))
    else:
        show(proven.report, verbose=verbose, since=proven.since)
        if late := inspect.behind(running):
            remark(f"{late} What was tried is the lab as it runs.")
        remark(f"The full report: {', '.join(str(path) for path in written) or proven.path}")
    return int(exit_code(proven.report))


def _self_test(lab: Path, instance: str, *, quiet: bool, as_json: bool) -> int:
    """Exit codes as those of a verification: 3 where a leak was missed, 4 where one could not be planted."""
    from labctl.lifecycle import locate, proof

    with progress(quiet or as_json) as listener:
        found = proof.self_test(locate.find(lab, instance=instance, listener=listener), listener)
    if as_json:
        say_json({"planted": [{"what": one.what, "found": one.found, "trouble": one.trouble} for one in found]})
    for one in () if as_json else found:
        outcome = "seen" if one.found else f"could not be planted: {one.trouble}" if one.trouble else "MISSED"
        say(f"{one.what}: {outcome}")
    if any(not one.found and not one.trouble for one in found):
        return int(ExitCode.FAIL)
    if not found or any(one.trouble for one in found):
        remark("Not every kind of leak could be planted here, so this shows less than it could.")
        return int(ExitCode.INCONCLUSIVE)
    remark("Whatever was planted ends by itself within two minutes; verify again after that.")
    return int(ExitCode.OK)


def _reach(lab: Path, start: str | None, *, as_json: bool) -> int:
    """What could be reached by the plan alone; needs no engine and no running lab."""
    from labctl.cli.reach_view import show_all, show_one, to_json
    from labctl.lifecycle.locate import spec_file
    from labctl.plan.build import build
    from labctl.plan.reach import blast_of, blasts
    from labctl.spec.load import load

    plan = build(load(spec_file(lab)))
    chosen = blasts(plan) if start is None else (blast_of(plan, start),)
    if as_json:
        say_json({"lab": plan.lab, "machines": [to_json(blast) for blast in chosen]})
        return int(ExitCode.OK)
    say(f"{plan.lab}: what the owner of one machine could reach, by the lab file. Nothing was probed.")
    if start is None:
        show_all(chosen)
        remark("`--from MACHINE` says by which ports, and why.")
    else:
        show_one(chosen[0])
    return int(ExitCode.OK)
