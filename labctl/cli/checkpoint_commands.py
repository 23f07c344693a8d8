"""Commands that keep and bring back the state of a lab, and that cut its management path."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli import checkpoint_view as view
from labctl.cli.options import DryRunOption, InstanceOption, JsonOption, LabArgument, QuietOption
from labctl.cli.output import progress, remark, say, say_json, size, table

if TYPE_CHECKING:
    from labctl.lifecycle.checkpoint import Listing
    from labctl.lifecycle.locate import Running

snapshot = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Keep the state of all machines of a lab, disks and memory, and bring it back.\n\n"
    "`labctl snapshot save clean`, break things, `labctl snapshot restore clean`.",
)

_NONE = "There are no checkpoints. `labctl snapshot save NAME` makes one."

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What the checkpoint is called.")]


@snapshot.command("save")
def save(
    name: NameArgument,
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Keep the state of all machines under a name. They stand still together meanwhile; all are kept or none."""
    from labctl.lifecycle import checkpoint, locate

    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        saved = checkpoint.save(running, name, listener=listener)
    if as_json:
        say_json({**view.fields(saved), "consistency": _consistency(running)})
        return
    skew = "" if saved.skew is None else f"; they stood still within {view.skew(saved)} of each other"
    say(f"Saved {saved.name}: {len(saved.machines)} machines{skew}.")
    _tell_apart(running)


@snapshot.command("restore")
def restore(
    name: NameArgument,
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put all machines back to a checkpoint. What has happened since is gone.

    That each machine is back is shown by marks that labctl left in its memory and on its disk.
    """
    from labctl.lifecycle import checkpoint, locate

    began = time.monotonic()
    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        restored = checkpoint.restore(running, name, listener=listener)
    seconds = time.monotonic() - began
    if as_json:
        say_json({**view.fields(restored), "seconds": round(seconds, 2), "consistency": _consistency(running)})
        return
    say(f"Restored {restored.name}: {len(restored.machines)} machines, in {seconds:.1f} s.")
    _tell_apart(running)


def reset(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put a lab back to what it was after its first `up`. What has happened in its machines since is gone.

    It goes back to the checkpoint called `fresh`, which `up` keeps of every lab that it has made anew; it asks nothing,
    just as `labctl snapshot restore fresh`, which does the same. To go back to another state from now on, delete that
    checkpoint and save one by the same name.
    """
    from labctl.lifecycle import fresh, inspect, locate

    began = time.monotonic()
    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        restored = fresh.reset(running, listener=listener)
    seconds, late = time.monotonic() - began, inspect.behind(locate.running(running.folder))
    if as_json:
        consistency = _consistency(running)
        say_json({**view.fields(restored), "seconds": round(seconds, 2), "behind": late, "consistency": consistency})
        return
    say(f"{running.plan.lab}/{running.plan.instance} is as it was {view.when(restored)}, after {seconds:.1f} s.")
    _tell_apart(running)
    if late:
        remark(f"{late} `labctl up` makes it so.")


@snapshot.command("list")
def list_(lab: LabArgument = Path(), instance: InstanceOption = "default", as_json: JsonOption = False) -> None:
    """List the checkpoints of a lab, the oldest first.

    SIZE is what a checkpoint has for itself, which deleting it gives back, and what it shares with others and with the
    machines. A restored machine shares the memory that it was restored from until the next save. SKEW is how long after
    the first machine the last one stood still.
    """
    from labctl.lifecycle import frugality, locate

    running = locate.find(lab, instance=instance)
    found, sizes = _listing(running), frugality.sizes(running)
    if as_json:
        rows_json = [{**view.fields(one), "size": sizes.get(one.id)} for one in found.checkpoints]
        say_json({"current": found.current, "checkpoints": rows_json, "damaged": found.damaged})
    elif not found.checkpoints:
        remark(_NONE)
    else:
        rows = [
            (
                f"{one.name} *" if one.id == found.current else one.name,
                view.when(one),
                view.size(sizes.get(one.id)),
                view.skew(one),
                ", ".join(f"{name} ({state})" for name, state in one.machines.items()),
                ", ".join(view.words(one)),
            )
            for one in found.checkpoints
        ]
        table(("NAME", "SAVED", "SIZE", "SKEW", "MACHINES", ""), rows)


@snapshot.command("tree")
def tree(lab: LabArgument = Path(), instance: InstanceOption = "default") -> None:
    """Show which checkpoint was made after which; the lab goes on from the one with a star."""
    from labctl.lifecycle import locate

    found = _listing(locate.find(lab, instance=instance))
    if not found.checkpoints:
        remark(_NONE)
    for line in view.tree(found):
        say(line)


@snapshot.command("delete")
def delete(
    name: NameArgument,
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forget a checkpoint. The lab stays as it is, and so do the checkpoints made after it."""
    from labctl.lifecycle import checkpoint, locate

    with progress(quiet or as_json) as listener:
        checkpoint.delete(locate.find(lab, instance=instance, listener=listener), name, listener=listener)
    if as_json:
        say_json({"name": name, "deleted": True})
    else:
        say(f"Deleted {name}.")


@snapshot.command("prune")
def prune(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Remove named ones too, all but the newest N.", show_default="all"),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove checkpoints that are of no use any more; what you have named stays, unless --keep says how many.

    Of no use are those that cannot be restored, because a machine in them was made anew since, and a `fresh` that is of
    other machines than there are. The lab stays as it is.
    """
    from labctl.lifecycle import frugality, locate

    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        gone = frugality.doomed(running, keep) if dry_run else frugality.prune(running, keep, listener=listener)
    if as_json:
        say_json({"removed": gone, "dry_run": dry_run})
    elif not gone:
        remark("There is nothing to remove.")
    for one in () if as_json else gone:
        own = "" if one.own is None else f", {size(one.own)}"
        say(f"{'Would remove' if dry_run else 'Removed'} {one.name}: {one.why}{own}.")


def seal(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Cut all machines off the path by which labctl logs in, on the host's side, until `labctl unseal`.

    Where a guest agent speaks over a channel of its own (qemu, libvirt), `exec`, `verify` and `snapshot` go on working.
    """
    from labctl.lifecycle import locate, sealing

    with progress(quiet or as_json) as listener:
        machines = sealing.seal(locate.find(lab, instance=instance, listener=listener), listener=listener)
    _tell(machines, "sealed", as_json)


def unseal(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Open the path by which labctl logs in again."""
    from labctl.lifecycle import locate, sealing

    with progress(quiet or as_json) as listener:
        machines = sealing.unseal(locate.find(lab, instance=instance, listener=listener), listener=listener)
    _tell(machines, "unsealed", as_json)


def _tell(machines: tuple[str, ...], what: str, as_json: bool) -> None:
    if as_json:
        say_json({what: machines})
    elif machines:
        say(f"{what.capitalize()} {', '.join(machines)}.")
    else:
        say(f"No machine runs; the lab starts {what}.")


def _consistency(running: Running) -> str:
    return running.provider.capabilities(running.plan).consistency


def _tell_apart(running: Running) -> None:
    """Say it where the machines of a checkpoint are not of one moment on this engine."""
    from labctl.providers.base import ONE_MOMENT

    if (consistency := _consistency(running)) != ONE_MOMENT:
        remark(f"! {consistency}.")


def _listing(running: Running) -> Listing:
    from labctl.lifecycle import checkpoint

    found = checkpoint.listing(running)
    for what in found.damaged:
        remark(f"! {what}")
    return found
