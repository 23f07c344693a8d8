"""``class tidy``: stop instances that nobody uses, or that run while the class is closed, and keep their state.

It is for a timer: what one run has seen, the next one knows by a note in each instance's folder. An instance is in use
while somebody is logged in over SSH or labctl works on it. Its state, memory and disks, is kept as a checkpoint where
the engine is quick at that, and ``class up`` goes on from there, unless a machine has run in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from labctl.errors import HostError, LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.host.connections import targets
from labctl.host.files import write_json
from labctl.lifecycle import checkpoint, fresh, teardown
from labctl.lifecycle.classroom import work
from labctl.lifecycle.classroom.seats import Place
from labctl.lifecycle.classroom.work import Done, Result
from labctl.lifecycle.locate import Running, running
from labctl.providers.base import MachineStatus
from labctl.spec.classfile import ClassSpec
from labctl.state.checkpoints import Checkpoint, CheckpointFolder
from labctl.state.lock import holder, locked
from labctl.state.record import InstanceFolder

NAME = "left"
"""The checkpoint of an instance that was stopped."""
_UP = ("running", "paused")


@dataclass(frozen=True, slots=True)
class _Note:
    """What is known of an instance. active: when it was in use last. spared: until when it may run while the class is
    closed. Both in seconds since the epoch, 0 for never.
    """

    active: float = 0.0
    spared: float = 0.0


def check_open(spec: ClassSpec, now: float) -> None:
    """Raises LabctlError, with when it opens, where a class is closed."""
    if spec.hours is not None and not spec.hours.is_open(now):
        raise LabctlError(
            f"{spec.name} is closed until {spec.hours.told(spec.hours.opens(now))}",
            hint="--anyway brings it up all the same; `hours` in the class file says when it is open.",
        )


def spare(spec: ClassSpec, folder: InstanceFolder, now: float) -> None:
    """Let an instance of a closed class run until the class has been open the next time."""
    if spec.hours is not None and not spec.hours.is_open(now):
        until = spec.hours.closes(spec.hours.opens(now))
        _write(folder, replace(_read(folder), spared=until))


def tidy(
    spec: ClassSpec,
    there: Sequence[Place],
    now: float,
    *,
    jobs: int,
    dry_run: bool = False,
    listener: Listener = ignore,
) -> tuple[Result, ...]:
    """Stop what is to be stopped of these instances; dry_run: only say what. facts: ``why`` and ``kept``.

    Raises HostError where this host does not tell who is logged in.
    """
    connected = targets()

    def part(place: Place, heard: Listener) -> Done:
        if place.folder is None:
            return Done("not made")
        lab = running(place.folder, listener=heard)
        up = [status for status in lab.provider.observe(lab.plan).machines if status.state in _UP]
        if not up:
            return Done("was down")
        used = bool(holder(lab.plan.lab, lab.plan.instance)) or any(_logged_in(lab, up, connected))
        note = _seen(lab.folder, up, now, used=used)
        why = _why(spec, note, now)
        if not why or (used and why == "idle"):
            return Done("in use" if used else "idle", {"why": "", "kept": False})
        if dry_run:
            return Done("would be stopped", {"why": why, "kept": False})
        return Done("stopped", {"why": why, "kept": stop(lab, heard)})

    return work.each(there, part, verb="tidy", jobs=jobs, listener=listener)


def stop(lab: Running, listener: Listener = ignore) -> bool:
    """Stop an instance; its state is kept where that can be. Gives whether it is."""
    kept = _keep(lab, listener)
    teardown.down(lab)
    with locked(lab.folder.lab, lab.folder.instance):
        record = lab.folder.record()
        if kept is not None and record is not None and record.phase == "down":  # else somebody has started it since
            lab.folder.write_record(replace(record, left=kept.id))
    return kept is not None


def resume(folder: InstanceFolder, listener: Listener = ignore) -> bool:
    """Go on from the state that an instance was stopped in, if it still stands as it was. Gives whether it does.

    Raises what ``checkpoint.restore`` raises.
    """
    record = folder.record()
    found = next(
        (one for one in CheckpointFolder(folder).whole() if record is not None and one.id == record.left), None
    )
    if found is None:
        return False
    lab = running(folder, listener=listener)
    checkpoint.restore(lab, found.name, listener=listener)
    checkpoint.delete(running(folder, listener=listener), found.name)
    return True


def _why(spec: ClassSpec, note: _Note, now: float) -> str:
    if spec.hours is not None and not spec.hours.is_open(now) and now >= note.spared:
        return "closed"
    return "idle" if spec.limits.idle is not None and now - note.active >= spec.limits.idle else ""


def _logged_in(lab: Running, up: Sequence[MachineStatus], connected: frozenset[tuple[str, int]]) -> Iterator[bool]:
    for status in up:
        try:
            endpoint = lab.provider.endpoint(lab.plan, status.name)
        except LabctlError:
            continue
        yield (endpoint.host, endpoint.port) in connected


def _seen(folder: InstanceFolder, up: Sequence[MachineStatus], now: float, *, used: bool) -> _Note:
    """The note as of now: the time begins when an instance was in use last, was started, or is seen first."""
    before = _read(folder)
    started = max((status.since or 0.0 for status in up), default=0.0)
    active = now if used else max(before.active, started) or now
    note = replace(before, active=active)
    if note != before:
        _write(folder, note)
    return note


def _keep(lab: Running, listener: Listener) -> Checkpoint | None:
    """The checkpoint of the present state; None, with a warning, where there can be none."""
    if not lab.provider.capabilities(lab.plan).fresh:
        return None
    try:
        there = next((one for one in CheckpointFolder(lab.folder).whole() if one.name == NAME), None)
        if there is not None and not there.automatic:
            raise UsageError(f"there is a checkpoint called {NAME} that somebody has saved")
        if there is not None:
            checkpoint.delete(lab, NAME, listener=listener)
        if lacking := fresh.lacks_room(lab):
            raise HostError(lacking)
        return checkpoint.save(lab, NAME, automatic=True, listener=listener)
    except LabctlError as error:
        listener(Event("warning", "save", message=f"stopped without its memory: {error.brief}"))
        return None


def _read(folder: InstanceFolder) -> _Note:
    try:
        value = json.loads(_path(folder).read_text(encoding="utf-8"))
        return _Note(float(value["active"]), float(value["spared"]))
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or nothing that is worth a word
        return _Note()


def _write(folder: InstanceFolder, note: _Note) -> None:
    write_json(_path(folder), asdict(note), mode=0o600, durable=False)


def _path(folder: InstanceFolder) -> Path:
    return folder.path / "tidy.json"
