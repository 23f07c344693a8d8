"""What checkpoints take on the disk, and which of them nobody can want any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labctl.errors import LabctlError, UsageError
from labctl.events import Listener, ignore
from labctl.lifecycle import checkpoint, restoring
from labctl.lifecycle.locate import Running
from labctl.providers.base import Checkpoints, SnapshotSize
from labctl.state.checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class Doomed:
    """A checkpoint that ``prune`` removes, and why. own: bytes that its removal gives back, None where unknown."""

    name: str
    why: str
    own: int | None


def sizes(lab: Running) -> Mapping[str, SnapshotSize]:
    """What each checkpoint takes, by id. One is left out where the engine cannot tell of any machine in it."""
    engine = lab.provider.checkpoints(lab.plan)
    if engine is None:
        return {}
    machines = {m.name: sizes for m in lab.plan.machines if (sizes := _sizes(engine, m.name))}
    found = {}
    for one in checkpoint.listing(lab).checkpoints:
        parts = [machines[name][one.key] for name in one.machines if one.key in machines.get(name, {})]
        if parts:
            found[one.id] = SnapshotSize(sum(part.own for part in parts), sum(part.shared for part in parts))
    return found


def doomed(lab: Running, keep: int | None = None) -> tuple[Doomed, ...]:
    """What ``prune`` would remove: checkpoints that cannot be restored any more because a machine in them was made
    anew, and labctl's own that are of other machines than there are now. keep: also all but so many of the newest that
    users have named; None for no such limit.
    """
    if keep is not None and keep < 0:
        raise UsageError("no fewer than none can be kept", hint="--keep takes a number from 0.")
    engine = lab.provider.checkpoints(lab.plan)
    if engine is None:
        return ()
    whys: dict[str, str] = {}
    usable: list[Checkpoint] = []
    there = checkpoint.listing(lab).checkpoints
    needed = {name for one in there for name in one.machines}
    keys = restoring.keys_of(engine, [machine.name for machine in lab.plan.machines if machine.name in needed])
    for one in there:
        if lost := restoring.lacking(one, keys):
            whys[one.id] = f"cannot be restored any more: {', '.join(lost)} made anew or gone"
        elif one.automatic:
            if restoring.misfits(lab.plan, one):
                whys[one.id] = "automatic, and of other machines than there are"
        else:
            usable.append(one)
    if keep is not None:
        whys |= {one.id: f"older than the newest {keep}" for one in usable[: max(0, len(usable) - keep)]}
    taken = sizes(lab)
    found = [one for one in there if one.id in whys]
    return tuple(Doomed(one.name, whys[one.id], taken[one.id].own if one.id in taken else None) for one in found)


def prune(lab: Running, keep: int | None = None, *, listener: Listener = ignore) -> tuple[Doomed, ...]:
    """Remove what ``doomed`` names, one after the other. Gives what is gone."""
    gone = doomed(lab, keep)
    for one in gone:
        checkpoint.delete(lab, one.name, listener=listener)
    return gone


def _sizes(engine: Checkpoints, machine: str) -> Mapping[str, SnapshotSize]:
    try:
        return engine.sizes(machine)
    except LabctlError:
        return {}
