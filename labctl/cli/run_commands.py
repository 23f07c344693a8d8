"""Commands that change or look at running labs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.options import (
    DryRunOption,
    InstanceOption,
    JsonOption,
    LabArgument,
    ProviderOption,
    QuietOption,
    YesOption,
)
from labctl.cli.output import agreed, progress, remark, say, say_json, size, table
from labctl.errors import UsageError

if TYPE_CHECKING:
    from labctl.lifecycle.arrival import Brought, Options
    from labctl.lifecycle.converge import Outcome
    from labctl.lifecycle.inspect import Row
    from labctl.lifecycle.locate import Draft


def up(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    provider: ProviderOption = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Machines worked on at once.")] = 4,
    only_locked: Annotated[
        bool, typer.Option("--locked", help="Start from the images that lab.lock.yaml pins, or not at all.")
    ] = False,
    keep_fresh: Annotated[
        bool, typer.Option("--fresh/--no-fresh", help="Keep the state of a new lab for `labctl reset`.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Start machines that do not fit on this host.")] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="Of a file with a checkpoint: boot from the disks, leave the memory out.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="Of a class's file: the token on your handout. Without it `up` asks for it.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make what runs equal to the lab file: create, start, change, remove. Repeating it changes nothing.

    Safe to interrupt at any moment; the next `up` goes on from there. A bundle (LAB.labz) is unpacked into a folder
    with the lab's name here, and comes up from the images in it. One of `labctl export` comes up in the state that it
    was exported in: machines go on from their memory where this host has the QEMU that it was saved with, else they
    boot from their disks. Load the memory of files alone whose maker you trust; --cold leaves it out.
    """
    from labctl.lifecycle import converge, locate
    from labctl.lifecycle.arrival import Options

    arrived = ""
    if lab.suffix == ".labz" and not lab.is_dir():
        if dry_run:
            raise UsageError("a bundle has to be unpacked to be planned", hint=f"labctl unbundle {lab}")
        options = Options(instance, provider, cold, force, jobs)
        brought = _brought(lab, options, quiet or as_json)
        lab, provider, only_locked, arrived = brought.folder, brought.provider, True, brought.arrived
    elif cold:
        raise UsageError("--cold is for a file of labctl export")
    draft = locate.draft(lab, instance=instance, provider=provider)
    if dry_run:
        _rehearse_up(draft, only_locked, as_json)
        return
    draft = _with_token(draft, token)
    with progress(quiet or as_json) as listener:
        outcome = converge.up(
            draft, listener=listener, jobs=jobs, only_locked=only_locked, force=force, keep_fresh=keep_fresh
        )
    _tell_up(outcome, lab, arrived, as_json)


def _brought(bundle: Path, options: Options, quiet: bool) -> Brought:
    """Unpack a bundle, with its checkpoint where it has one."""
    from labctl.lifecycle import arrival

    with progress(quiet) as listener:
        return arrival.bring(bundle, options, listener)


def _with_token(draft: Draft, said: str | None) -> Draft:
    """The draft with a student's secrets, where their token was said or is wanted."""
    from labctl.lifecycle import token

    if said is None and token.wanted(draft):
        if not sys.stdin.isatty():
            raise UsageError(
                f"{draft.spec.name} is a class's, and its secrets come from the token on your handout",
                hint="labctl up --token says it where nobody can be asked.",
            )
        said = str(typer.prompt("The token on your handout"))
    return draft if said is None else token.entered(draft, said)


def _rehearse_up(draft: Draft, only_locked: bool, as_json: bool) -> None:
    from labctl.cli.plan_view import show_plan
    from labctl.lifecycle import converge, pins

    if only_locked:
        pins.choose(draft, only_locked=True)
    diff = converge.difference(draft)
    if as_json:
        say_json({"lab": draft.plan.lab, "instance": draft.plan.instance, "dry_run": True, "changes": diff.changes})
    else:
        show_plan(draft.plan, diff)


def _tell_up(outcome: Outcome, lab: Path, arrived: str, as_json: bool) -> None:
    """arrived: the checkpoint that the lab came with just now."""
    plan = outcome.plan
    if as_json:
        say_json(
            {
                "lab": plan.lab,
                "instance": plan.instance,
                "provider": plan.provider,
                "changes": outcome.changes,
                "started": outcome.started,
                "arrived": arrived or None,
                "seconds": round(outcome.seconds, 2),
            }
        )
    elif arrived:
        say(f"{plan.lab}/{plan.instance} is up on {plan.provider}, as of the checkpoint {arrived}.")
        where = shlex.quote(str(lab))
        remark(f"Next: labctl status {where} | labctl snapshot list {where} | labctl reset {where}")
    elif outcome.unchanged:
        say(f"{plan.lab}/{plan.instance} is up; nothing had to change.")
    else:
        where = "" if lab == Path() else f" {shlex.quote(str(lab))}"
        again = f"; {', '.join(outcome.started)} did not run" if outcome.started else ""
        say(f"{plan.lab}/{plan.instance} is up on {plan.provider} after {outcome.seconds:.0f} s{again}.")
        first = plan.machines[0].name if plan.machines else ""
        enter = f"exec{where} {first} -- COMMAND" if plan.seal else f"ssh{where} {first}"  # sealed, it refuses SSH
        remark(f"Next: labctl verify{where} | labctl {enter} | labctl status{where} | labctl down{where}")


def status(lab: LabArgument = Path(), instance: InstanceOption = "default", as_json: JsonOption = False) -> None:
    """Show every machine of a running lab as its engine has it."""
    from labctl.lifecycle import inspect, locate

    running = locate.find(lab, instance=instance)
    now, late = inspect.status(running), inspect.behind(running)
    if as_json:
        say_json(
            {
                "lab": now.lab,
                "instance": now.instance,
                "provider": now.provider,
                "state": now.summary,
                "spec_file": now.spec_file,
                "leftovers": now.leftovers,
                "faults": now.faults,
                "sealed": now.sealed,
                "failed": now.failed,
                "behind": late,
                "busy": now.busy,
                "disk": now.disk,
                "machines": [_status_fields(row) for row in now.rows],
            }
        )
        return
    say(f"{now.lab}/{now.instance} on {now.provider}: {now.summary}")
    table(
        ("MACHINE", "STATE", "SSH", "ADDRESSES", "DETAILS"),
        [(r.status.name, r.status.state, r.ssh, "; ".join(r.addresses), r.status.details) for r in now.rows],
    )
    if late:
        remark(late)
    if now.leftovers:
        remark(f"Not in the plan but there: {', '.join(now.leftovers)}. `labctl up` removes it.")
    if now.faults:
        remark(f"Broken: {', '.join(now.faults)}. `labctl up` mends it.")
    if now.busy:
        remark(f"{now.busy[0].upper()}{now.busy[1:]}.")
    elif now.failed:
        remark(f"{now.failed[0].upper()}{now.failed[1:]}")
    elif now.interrupted:
        remark(f"Left by an interruption: {now.interrupted}. `labctl up` mends it.")
    elif now.summary == "interrupted":
        remark("The last `up` did not finish. `labctl up` goes on; `labctl destroy` removes what exists.")
    elif any(row.status.state == "dead" for row in now.rows):
        remark("A machine has died. `labctl logs [LAB] MACHINE` shows its last words; `labctl up` mends it.")


def _status_fields(row: Row) -> dict[str, object]:
    state = row.status
    return {
        "name": state.name,
        "state": state.state,
        "pid": state.pid,
        "since": state.since,
        "addresses": row.addresses,
        "ssh": row.ssh,
        "details": state.details,
    }


def list_(as_json: JsonOption = False) -> None:
    """List every instance of every lab on this host."""
    from labctl.lifecycle import inspect

    found = inspect.listing()
    if as_json:
        say_json(found)
    elif not found:
        remark("No labs exist on this host. `labctl init` makes one, `labctl up` brings it up.")
    else:
        table(
            ("LAB", "INSTANCE", "PROVIDER", "STATE", "DISK", "FILE"),
            [(f.lab, f.instance, f.provider, f.summary, size(f.disk), f.spec_file) for f in found],
        )


def down(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    machine: Annotated[
        list[str] | None, typer.Option("--machine", "-m", metavar="NAME", help="Only this machine; may be repeated.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Stop a lab's machines. Their disks stay; `labctl up` starts them again."""
    from labctl.lifecycle import locate, teardown

    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        if dry_run:
            stopped = tuple(m.name for m in running.plan.machines if not machine or m.name in machine)
        else:
            stopped = teardown.down(running, machine or ())
    if as_json:
        say_json({"lab": running.plan.lab, "instance": running.plan.instance, "stopped": stopped, "dry_run": dry_run})
    else:
        verb = "Would stop" if dry_run else "Stopped"
        say(
            f"{verb} {', '.join(stopped)}."
            if stopped
            else f"{running.plan.lab}/{running.plan.instance} was down already."
        )


def destroy(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove an instance: its machines, disks, networks, keys and records. Images and the lab file stay."""
    from labctl.lifecycle import locate, teardown

    folder = locate.find_folder(lab, instance)
    if dry_run:
        say(f"Would remove {folder.lab}/{folder.instance} and everything in {folder.path}.")
        return
    if not agreed(f"Remove {folder.lab}/{folder.instance} with its disks?", yes):
        return
    with progress(quiet or as_json) as listener:
        teardown.destroy(folder, listener=listener)
    if as_json:
        say_json({"lab": folder.lab, "instance": folder.instance, "destroyed": True})
    else:
        say(f"Removed {folder.lab}/{folder.instance}.")
