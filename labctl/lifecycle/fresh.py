"""``fresh``: the checkpoint that ``up`` keeps of a lab that is complete and untouched, and that ``reset`` goes back to.

What a user has done in a machine is never taken for fresh, and never thrown away unasked: ``up`` keeps the state only
where it has made every machine anew. After an ``up`` that changed some machines and kept others the old ``fresh`` stays
as it is, and ``up`` says so; who wants the present state instead deletes that one and saves another by the same name.
One that a user has saved is the user's: ``reset`` goes back to it, ``up`` leaves it alone. Engines that take long for a
snapshot, or keep disks in another form from then on, are not made to take one: there users save ``fresh`` themselves.
A lab that came in a file with a checkpoint was made by that: ``reset`` goes back to it where there is no ``fresh``.

Keeping it is the last step of ``up``, before its plan counts as carried out: after an ``up`` that was killed at any
moment the next one still has to make the machines, finds them made, and keeps them. What somebody did meanwhile in a
lab that was not up yet is then part of how it was made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from labctl.errors import LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.host.room import free_bytes
from labctl.lifecycle import checkpoint, restoring
from labctl.lifecycle.locate import Running
from labctl.plan.diff import Action
from labctl.state.checkpoints import Checkpoint, CheckpointFolder
from labctl.state.record import InstanceFolder

NAME = "fresh"
_HOW = f"`labctl snapshot delete {NAME}`, then `labctl snapshot save {NAME}`, makes it go back to the present state."
_NOT_KEPT = "not kept, so `labctl reset` has nothing to go back to"
_DISK_LEFT = 1 << 30
_ANEW: tuple[Action, ...] = ("create", "replace", "remove")


def keep(lab: Running, actions: Mapping[str, Action], *, listener: Listener = ignore) -> Checkpoint | None:
    """At the end of an ``up``: keep the state as ``fresh`` where nobody can have done anything in it yet.

    actions: what ``up`` did with each machine, all of which run now. The caller holds the instance's lock. Gives what
    was kept. A lab that cannot be kept is up all the same, so what goes wrong is a warning.
    """
    if all(action == "keep" for action in actions.values()):
        return None
    try:
        there = _there(lab.folder)
        if not lab.provider.capabilities(lab.plan).fresh or not _may(lab, actions, there, listener):
            return None
        if there is not None:
            if _kept_already(lab, there):
                return there
            checkpoint.forget(lab, there)
        return checkpoint.keep(lab, NAME, automatic=True, listener=listener)
    except LabctlError as error:
        why = ": ".join(part for part in (error.brief, error.details) if part)
        listener(Event("warning", NAME, message=f"{_NOT_KEPT}: {why}"))
        return None


def reset(lab: Running, *, listener: Listener = ignore) -> Checkpoint:
    """Put all machines back to ``fresh``, or to what they came with; what has happened in them since is gone.

    Raises UsageError where there is none or where it is of other machines, and what ``checkpoint.restore`` raises.
    """
    found = _there(lab.folder) or next((one for one in CheckpointFolder(lab.folder).whole() if one.origin), None)
    if found is None:
        raise UsageError(
            f"{lab.plan.lab}/{lab.plan.instance} has no checkpoint called {NAME!r} to go back to",
            details="`labctl up` keeps one on qemu when it has made all machines anew, unless it was told --no-fresh.",
            hint=f"labctl snapshot save {NAME} makes the present state the one to go back to.",
        )
    return checkpoint.restore(lab, found.name, listener=listener)


def lacks_room(lab: Running) -> str:
    """What keeps the disk from taking a checkpoint of a lab, for people; ``""`` where nothing does."""
    # a checkpoint takes what the machines use of their memory
    most, free = sum(machine.memory for machine in lab.plan.machines), free_bytes(lab.folder.path)
    if free is None or most + _DISK_LEFT <= free:
        return ""
    return f"it takes up to {most >> 20} MiB of disk and {free >> 20} MiB are free"


def _there(folder: InstanceFolder) -> Checkpoint | None:
    return next((one for one in CheckpointFolder(folder).whole() if one.name == NAME), None)


def _kept_already(lab: Running, there: Checkpoint) -> bool:
    """Whether it is of these very machines, from an ``up`` that was killed right after: it is the untouched state."""
    engine = lab.provider.checkpoints(lab.plan)
    return engine is not None and not restoring.misfits(lab.plan, there) and not restoring.lost(lab, engine, there)


def _may(lab: Running, actions: Mapping[str, Action], there: Checkpoint | None, listener: Listener) -> bool:
    """Whether this is the state of a new lab, and there is room for it; where a user would wonder, says why not."""
    anew = all(action in _ANEW for action in actions.values())
    if there is not None and not (anew and there.automatic):
        listener(Event("warning", NAME, message=_stale(there)))
        return False
    if anew and (lacking := lacks_room(lab)):
        listener(Event("warning", NAME, message=f"{_NOT_KEPT}: {lacking}"))
        return False
    return anew and bool(lab.plan.machines)


def _stale(there: Checkpoint) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(there.created))
    return f"`labctl reset` goes back to {since}, before this change. {_HOW}"
