"""Putting machines back to a checkpoint: what keeps it from being done, doing it, and what follows where it fails.

A restore that was interrupted is ended by the next ``up``. One that failed would most likely fail again in the same
way, so that is noted, and ``up`` says it and names the ways out instead of trying.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from labctl.errors import GuestError, HostError, LabctlError, ProviderError, UsageError
from labctl.events import Event, Listener
from labctl.lifecycle import sealing, witness
from labctl.lifecycle.locate import Running
from labctl.plan.diff import STRENGTH, Change, compare
from labctl.plan.model import LabPlan
from labctl.providers.base import Checkpoints
from labctl.providers.workers import Stop, each, raise_failures
from labctl.state.checkpoints import Checkpoint, CheckpointFolder

_JOBS = 8


def keys_of(engine: Checkpoints, machines: Collection[str]) -> Mapping[str, frozenset[str]]:
    """Machine to the keys of the snapshots that it has."""
    found: dict[str, frozenset[str]] = {}

    def one(machine: str) -> None:
        found[machine] = engine.keys(machine)

    raise_failures(each(list(machines), one, jobs=_JOBS, stop=Stop()), len(machines))
    return found


def lost(lab: Running, engine: Checkpoints, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Machines that do not have their part of a checkpoint any more: it cannot be restored."""
    there = {machine.name for machine in lab.plan.machines}
    return lacking(checkpoint, keys_of(engine, [name for name in checkpoint.machines if name in there]))


def lacking(checkpoint: Checkpoint, known: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """``lost``, where it is known already which keys machines have."""
    return tuple(name for name in checkpoint.machines if checkpoint.key not in known.get(name, frozenset()))


def misfits(plan: LabPlan, checkpoint: Checkpoint) -> tuple[str, ...]:
    """What keeps a checkpoint from being restored in a lab with this plan, a line per machine that is another one."""
    return tuple(
        _difference(change)
        for change in compare(checkpoint.plan, plan).changes
        if STRENGTH.index(change.action) > STRENGTH.index("provision")
    )


def check_fits(plan: LabPlan, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint of other machines than there are. Raises UsageError that says what differs."""
    if found := misfits(plan, checkpoint):
        raise UsageError(
            f"the checkpoint {checkpoint.name} is of other machines",
            details="\n".join(found),
            hint="Put the lab file back to what it was then and run labctl up, or save a new checkpoint.",
        )


def put_back(
    lab: Running, engine: Checkpoints, notes: CheckpointFolder, checkpoint: Checkpoint, listener: Listener
) -> None:
    """Put all machines back, and show that they are. The caller holds the instance's lock.

    Raises LabctlError where one was not; that is noted then.
    """
    if missing := lost(lab, engine, checkpoint):
        raise ProviderError(
            f"the checkpoint {checkpoint.name} is not whole any more: {', '.join(missing)} lack their part",
            details="Their disks were made anew since, or somebody has removed the snapshot.",
            hint=f"labctl snapshot delete {checkpoint.name}; nothing was changed.",
        )
    if not checkpoint.checked:
        said = f"whether {checkpoint.name} was altered is not known: labctl {checkpoint.labctl} wrote no checksum"
        listener(Event("warning", "restore", message=said))
    engine.prepare()
    notes.set_restoring(checkpoint.id)
    try:
        unproven = _carry_out(lab, engine, checkpoint, listener)
    except LabctlError as error:
        with contextlib.suppress(HostError):  # on a full disk the next `up` tries again
            notes.set_failure(error.brief)
        hint = f"{error.hint} {ways_out(checkpoint)}".strip()
        kind = type(error) if isinstance(error, GuestError | HostError) else ProviderError
        raise kind(error.brief, details=error.details, hint=hint) from error
    notes.set_current(checkpoint.id)
    notes.set_restoring(None)
    if unproven:
        listener(Event("warning", "restore", message=f"not proven in {', '.join(unproven)}: no way to look for a mark"))


def ways_out(checkpoint: Checkpoint) -> str:
    """What can be done where a checkpoint could not be restored, for people."""
    return (
        f"labctl snapshot restore tries {checkpoint.name} again, or another checkpoint; after labctl snapshot delete "
        f"{checkpoint.name}, labctl up goes on with all machines as they are now; labctl destroy removes the lab."
    )


def _carry_out(lab: Running, engine: Checkpoints, checkpoint: Checkpoint, listener: Listener) -> Sequence[str]:
    """Do it. Gives machines of which it could not be shown."""

    def one(machine: str) -> None:
        listener(Event("started", "restore", machine))
        began = time.monotonic()
        engine.restore(machine, checkpoint.key)
        listener(Event("done", "restore", machine, seconds=time.monotonic() - began))

    if failures := each(list(checkpoint.machines), one, jobs=_JOBS, stop=Stop()):
        raise ProviderError(
            f"{', '.join(sorted(failures))} could not be restored",
            details="\n".join(_told(name, error) for name, error in failures.items()),
            hint="The others stand still.",
        )
    lab.folder.finish(checkpoint.plan)
    running = [machine for machine, state in checkpoint.machines.items() if state == "running"]
    record = replace(lab.record, files=checkpoint.files, phase="up" if running else "down", left="")
    lab.folder.write_record(record)
    if record.sealed or checkpoint.sealed:
        # Engines put cables back as they were at the save, so they are set anew before anything moves.
        sealing.enforce(replace(lab, record=record, plan=checkpoint.plan))
    engine.resume(running)
    closed = witness.look(lab, checkpoint.witnesses, checkpoint.key)
    return sorted(set(running) - set(checkpoint.witnesses) | set(closed))


def _told(name: str, error: LabctlError) -> str:
    brief = error.brief if error.brief.startswith(f"{name}: ") else f"{name}: {error.brief}"
    return f"{brief}\n{error.details}".strip()


def _difference(change: Change) -> str:
    words = {"create": "is new since", "remove": "is gone since"}
    return f"{change.machine} {words.get(change.action) or 'changed: ' + ', '.join(change.fields or ['its wires'])}"
