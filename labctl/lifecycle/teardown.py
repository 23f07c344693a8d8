"""``down`` and ``destroy``: stop machines, or remove an instance with all that is ours."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from labctl.errors import HostError, LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.lifecycle.locate import Running
from labctl.providers import PROVIDERS
from labctl.spec.problems import choices
from labctl.state.lock import locked
from labctl.state.record import InstanceFolder


def down(lab: Running, machines: Sequence[str] = ()) -> tuple[str, ...]:
    """Stop machines (all, unless some are named); their disks stay. Gives the names that were stopped.

    Raises UsageError for a name that the lab does not have.
    """
    names = [machine.name for machine in lab.plan.machines]
    unknown = sorted(set(machines) - set(names))
    if unknown:
        raise UsageError(
            f"{lab.plan.lab} has no machine called {', '.join(unknown)}", hint=choices("Machines", names, *unknown)
        )
    wanted = [name for name in names if not machines or name in machines]
    with locked(lab.folder.lab, lab.folder.instance):
        before = {
            status.name for status in lab.provider.observe(lab.plan).machines if status.state in ("running", "paused")
        }
        lab.provider.down(lab.plan, wanted)
        if set(wanted) == set(names):
            lab.folder.write_record(replace(lab.record, phase="down" if lab.record.phase == "up" else lab.record.phase))
    return tuple(name for name in wanted if name in before)


def destroy(folder: InstanceFolder, *, listener: Listener = ignore) -> None:
    """Stop and remove an instance, whatever state it was left in. Repeating it after an interruption finishes it."""
    with locked(folder.lab, folder.instance):
        try:
            record = folder.record()
        except LabctlError as error:
            # An unreadable record must not keep machines running: every engine knows its own from its folder.
            listener(Event("warning", "destroy", message=f"{error.brief}; removing what every provider finds"))
            record = None
        names = [record.provider] if record else list(PROVIDERS)
        if record is not None:
            with contextlib.suppress(HostError):  # on a full disk this is how to make room
                folder.write_record(replace(record, phase="destroying"))
        for name in names:
            engine = PROVIDERS[name].engine
            if engine is not None and folder.engine.exists():
                engine(folder.engine, listener).destroy()
        folder.remove()
