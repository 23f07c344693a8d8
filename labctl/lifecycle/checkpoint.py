"""Checkpoints of a whole lab: all machines at one moment, all or nothing, and proof that a restore restored.

Two phases: a manifest that is not complete comes first, the engine's snapshots second, the complete manifest last. So a
crash at any point leaves what ``mend`` can tell apart: half a checkpoint, which it removes, or a restore that it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from labctl.errors import LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.lifecycle import restoring, sealing, witness
from labctl.lifecycle.locate import Running
from labctl.providers.base import Checkpoints, MachineState
from labctl.providers.workers import Stop, each, raise_failures
from labctl.state.checkpoints import Checkpoint, CheckpointFolder, check_name, digest_of, new_id
from labctl.state.lock import locked

_JOBS = 8


@dataclass(frozen=True, slots=True)
class Listing:
    """The checkpoints of an instance, the oldest first; current is the id of the one that it goes on from.

    damaged: what is wrong with those that cannot be read, for people.
    """

    checkpoints: tuple[Checkpoint, ...]
    current: str | None
    damaged: tuple[str, ...] = ()


def save(lab: Running, name: str, *, automatic: bool = False, listener: Listener = ignore) -> Checkpoint:
    """Keep the state of all machines, disks and memory, under a name that is not taken. automatic: as for ``keep``.

    The machines stand still meanwhile. Where one of them cannot be saved, nothing is kept and all go on.
    """
    check_name(name)
    with locked(lab.folder.lab, lab.folder.instance):
        engine, notes = _engine(lab), CheckpointFolder(lab.folder)
        _mend_saves(lab, engine, notes)
        if any(one.name == name for one in notes.whole()):
            raise UsageError(
                f"there is a checkpoint called {name!r} already",
                hint=f"Choose another name, or labctl snapshot delete {name} first.",
            )
        return keep(lab, name, _settled(lab), automatic=automatic, listener=listener)


def keep(
    lab: Running,
    name: str,
    states: Mapping[str, MachineState] | None = None,
    *,
    automatic: bool = False,
    origin: str = "",
    listener: Listener = ignore,
) -> Checkpoint:
    """``save`` for a caller that holds the instance's lock and knows that the name is not taken.

    states: of every machine: running or stopped; None where all run. automatic: nobody has asked for it by name.
    origin: as in ``Checkpoint``. Gives the whole checkpoint; where it fails, there is none.
    """
    engine, notes = _engine(lab), CheckpointFolder(lab.folder)
    machines = [machine.name for machine in lab.plan.machines] if states is None else list(states)
    running = [machine for machine in machines if states is None or states[machine] == "running"]
    checkpoint = Checkpoint(
        new_id(),
        name,
        lab.plan,
        automatic=automatic,
        origin=origin,
        parent=notes.current(),
        files=lab.record.files,
        machines={machine: "running" if machine in running else "stopped" for machine in machines},
        sealed=lab.record.sealed,
        images=lab.provider.image_digests(lab.plan),
        plan_digest=digest_of(lab.plan),
    )
    notes.write(checkpoint)
    began = time.monotonic()
    try:
        checkpoint = replace(checkpoint, witnesses=witness.leave(lab, running, checkpoint.key))
        checkpoint = replace(checkpoint, skew=_keep(engine, checkpoint, running, listener))
        # Before it counts as whole: without another mark in its place, this one would prove nothing.
        marked = witness.leave(lab, checkpoint.witnesses, witness.replaced(checkpoint.key), soon=True)
        checkpoint = replace(checkpoint, witnesses=marked)
    except BaseException:
        _discard(engine, notes, checkpoint)
        raise
    checkpoint = notes.write(replace(checkpoint, complete=True, completed=time.time()))
    notes.set_current(checkpoint.id)
    if unmarked := sorted(set(running) - set(marked)):
        listener(Event("warning", "save", message=f"a restore will not be proven in {', '.join(unmarked)}: no mark"))
    listener(Event("done", "save", message=checkpoint.name, seconds=time.monotonic() - began))
    return checkpoint


def restore(lab: Running, name: str, *, listener: Listener = ignore) -> Checkpoint:
    """Put all machines back to a checkpoint, and show that they are: their marks are there again.

    What ran then runs now, with its clock set right. Raises ProviderError, GuestError where one was not restored.
    """
    with locked(lab.folder.lab, lab.folder.instance):
        engine, notes = _engine(lab), CheckpointFolder(lab.folder)
        _mend_saves(lab, engine, notes)
        checkpoint = notes.find(name)
        restoring.check_fits(lab.plan, checkpoint)
        restoring.put_back(lab, engine, notes, checkpoint, listener)
        return checkpoint


def delete(lab: Running, name: str, *, listener: Listener = ignore) -> None:
    """Forget a checkpoint; those made after it stay usable."""
    with locked(lab.folder.lab, lab.folder.instance):
        engine, notes = _engine(lab), CheckpointFolder(lab.folder)
        _mend_saves(lab, engine, notes)
        forget(lab, notes.find(name), listener=listener)


def forget(lab: Running, checkpoint: Checkpoint, *, listener: Listener = ignore) -> None:
    """``delete`` for a caller that holds the instance's lock and knows of no half checkpoint."""
    engine, notes = _engine(lab), CheckpointFolder(lab.folder)
    checkpoint = notes.write(replace(checkpoint, complete=False))
    began = time.monotonic()
    machines = list(checkpoint.machines)
    raise_failures(_each(machines, lambda one: engine.delete(one, checkpoint.key)), len(machines))
    notes.remove(checkpoint)
    listener(Event("done", "delete", message=checkpoint.name, seconds=time.monotonic() - began))


def listing(lab: Running) -> Listing:
    """All whole checkpoints; nothing is changed."""
    notes = CheckpointFolder(lab.folder)
    return Listing(notes.whole(), notes.current(), tuple(error.brief for error in notes.damaged()))


def interrupted(lab: Running) -> str:
    """What a labctl that was killed has left of a checkpoint, for people; ``""`` where there is nothing."""
    notes = CheckpointFolder(lab.folder)
    begun = notes.restoring()
    found = [one for one in notes.all() if not one.complete or one.id == begun]
    return "; ".join(f"{'the restore of' if one.complete else 'half of'} checkpoint {one.name}" for one in found)


def failed(lab: Running) -> LabctlError | None:
    """That the last restore has failed, which ``up`` does not try again by itself; None where it has not."""
    notes = CheckpointFolder(lab.folder)
    begun, why = _begun(notes), notes.failure()
    if begun is None or not why:
        return None
    return LabctlError(
        f"the restore of checkpoint {begun.name} has failed: {why}",
        details="What the machines hold now is no state that labctl knows.",
        hint=restoring.ways_out(begun),
    )


def mend(lab: Running, *, listener: Listener = ignore) -> None:
    """Remove half checkpoints and end a restore that was interrupted. The caller holds the instance's lock.

    Raises LabctlError where the restore has failed: it would again.
    """
    notes = CheckpointFolder(lab.folder)
    if notes.restoring() is None and all(one.complete for one in notes.all()):
        return
    engine = _engine(lab)
    _mend_saves(lab, engine, notes)
    if error := failed(lab):
        raise error
    begun = _begun(notes)
    if begun is None:
        notes.set_restoring(None)
    else:
        restoring.put_back(lab, engine, notes, begun, listener)


def _begun(notes: CheckpointFolder) -> Checkpoint | None:
    """The checkpoint that was being restored last, where that was not ended and the checkpoint is there still."""
    identifier = notes.restoring()
    return None if identifier is None else next((one for one in notes.whole() if one.id == identifier), None)


def _engine(lab: Running) -> Checkpoints:
    engine = lab.provider.checkpoints(lab.plan)
    if engine is None:
        raise UsageError(
            f"{lab.record.provider} has no checkpoints", hint="labctl doctor says what each provider can do."
        )
    return engine


def _settled(lab: Running) -> dict[str, MachineState]:
    """The state of every machine of a lab that is as its plan says. Raises UsageError where it is not."""
    where = f"{lab.plan.lab}/{lab.plan.instance}"
    if error := failed(lab):
        raise UsageError(error.brief, details=error.details, hint=error.hint)
    if lab.record.phase not in ("up", "down") or CheckpointFolder(lab.folder).restoring() is not None:
        raise UsageError(f"{where} is half changed", hint="labctl up goes on; then save.")
    states = {status.name: status.state for status in lab.provider.observe(lab.plan).machines}
    wrong = [f"{name} is {state}" for name, state in states.items() if state not in ("running", "stopped")]
    if wrong:
        raise UsageError(f"{where} cannot be saved: {', '.join(wrong)}", hint="labctl up mends it; then save.")
    return states


def _keep(engine: Checkpoints, checkpoint: Checkpoint, running: Sequence[str], listener: Listener) -> float | None:
    """Save every machine while all stand still. Gives the skew in seconds."""

    def one(machine: str) -> None:
        listener(Event("started", "save", machine))
        began = time.monotonic()
        engine.save(machine, checkpoint.key)
        listener(Event("done", "save", machine, seconds=time.monotonic() - began))

    machines = list(checkpoint.machines)
    try:
        stood = engine.pause(running)
        raise_failures(_each(machines, one), len(machines))
    finally:
        engine.resume(running)
    return max(stood.values()) - min(stood.values()) if len(stood) > 1 else None


def _discard(engine: Checkpoints, notes: CheckpointFolder, checkpoint: Checkpoint) -> None:
    """Remove what there is of a checkpoint; where that fails, its manifest stays, so that the next command tries."""
    failures = _each(list(checkpoint.machines), lambda machine: engine.delete(machine, checkpoint.key))
    if not failures:
        notes.remove(checkpoint)


def _mend_saves(lab: Running, engine: Checkpoints, notes: CheckpointFolder) -> None:
    """Remove checkpoints that were left half saved or half deleted, and let machines go on that stood for them."""
    halves = [one for one in notes.all() if not one.complete]
    if not halves:
        return
    states = {status.name: status.state for status in lab.provider.observe(lab.plan).machines}
    if notes.restoring() is None:
        sealing.enforce(lab)  # engines may save a machine without its way in
        engine.resume([name for name, state in states.items() if state == "paused"])
    for one in halves:
        _discard(engine, notes, one)


def _each(machines: Sequence[str], work: Callable[[str], None]) -> dict[str, LabctlError]:
    return dict(each(machines, work, jobs=_JOBS, stop=Stop()))
