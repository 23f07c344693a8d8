"""Checkpoints of QEMU machines: internal snapshots of their own disks, made by QEMU itself.

The memory is within the disk's snapshot, too. Of a copy of a template it is beside the disk, as what differs from the
template, where the host lets labctl see that. Beside the disks a note per snapshot keeps the machine's record of that
moment: what was configured and provisioned goes back with the guest.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from labctl.errors import ProviderError
from labctl.host import memory as memories
from labctl.host.files import write_json
from labctl.host.processes import ProcessId
from labctl.host.runner import CommandError, Runner
from labctl.plan.model import LabPlan
from labctl.providers.base import Checkpoints, SnapshotSize
from labctl.providers.qemu import bases, disks, habitat, memory, shares, vm, way_in
from labctl.providers.qemu import record as records
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.memory import Kept
from labctl.providers.qemu.qmp import Monitor, RefusedError, monitor
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.start import Starter
from labctl.providers.qemu.template import Base
from labctl.providers.workers import Stop, each, raise_failures

_JOBS = 16
_SECONDS = 900.0
_PASSING = "passing"  # a snapshot that lives for a moment; no checkpoint is called so
# What of a record belongs to the guest's state; the rest belongs to its process.
_OF_THE_GUEST = ("image", "disk", "hardware", "personality", "steps", "steps_done", "complete", "template", "copied")


@dataclass(frozen=True, slots=True)
class Note:
    """What is kept of a snapshot beside the disk. needs: what its memory can only be loaded into, as in ``habitat``.

    It is empty without memory, and of snapshots of a labctl that did not note it. base: what the memory beside the disk
    is the difference to; ``""`` where it is within the disk.
    """

    running: bool
    record: MachineRecord
    needs: Mapping[str, str] = field(default_factory=dict)
    base: str = ""

    @classmethod
    def read(cls, layout: Layout, machine: str, key: str) -> Note:
        """Of a machine's snapshot. Raises ProviderError."""
        try:
            value = json.loads(note_file(layout, machine, key).read_text(encoding="utf-8"))
            record, needs = MachineRecord(**value["record"]), dict(value.get("needs", {}))
            return cls(bool(value["running"]), record, needs, str(value.get("base", "")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProviderError(f"{machine} has no whole snapshot {key}", details=str(error)) from error

    def write(self, path: Path) -> None:
        """Keep it."""
        value = {"running": self.running, "record": asdict(self.record), "needs": dict(self.needs), "base": self.base}
        write_json(path, value, mode=0o600)


def note_file(layout: Layout, machine: str, key: str) -> Path:
    """Where the note of a snapshot is."""
    return layout.machine(machine).folder / f"{key}.json"


def beside(layout: Layout, machine: str, key: str) -> Kept:
    """Where the memory of a snapshot is that is not within its disk."""
    return Kept(layout.machine(machine).folder / key)


def bases_in_use(layout: Layout) -> Collection[str]:
    """What snapshots of an instance are the difference to, and what its machines' processes began with."""
    found: set[str] = set()
    for machine in layout.known_machines():
        record = records.read(layout, machine)
        found.add(record.base if record is not None else "")
        for path in layout.machine(machine).folder.glob("labctl-*.json"):
            with contextlib.suppress(ProviderError):  # half a snapshot needs nothing
                found.add(Note.read(layout, machine, path.stem).base)
    return found


class QemuCheckpoints(Checkpoints):
    """Snapshots of an instance's machines. starter: what starts one that does not run."""

    def __init__(
        self,
        layout: Layout,
        plan: LabPlan,
        runner: Runner,
        *,
        prepare: Callable[[], None],
        starter: Callable[[MachineRecord], Starter],
    ) -> None:
        self._layout, self._plan, self._runner = layout, plan, runner
        self._prepare, self._starter = prepare, starter

    def pause(self, machines: Sequence[str]) -> Mapping[str, float]:
        if not machines:
            return {}
        # Their memory is about to be written; a guest that finds the disk full afterwards stands still.
        disks.check_room(self._layout, sum(self._room(machine) for machine in machines))
        stood: dict[str, float] = {}
        barrier = threading.Barrier(len(machines), timeout=20)

        def one(machine: str) -> None:
            try:
                with self._monitor(machine) as session:  # connected first: that takes longer than to stop
                    barrier.wait()
                    session.execute("stop")
                    stood[machine] = time.monotonic()
            except threading.BrokenBarrierError as error:
                raise ProviderError(f"{machine} was not paused, because another machine could not be") from error
            except BaseException:
                barrier.abort()
                raise

        failures = each(list(machines), one, jobs=len(machines), stop=Stop())
        if failures:
            self.resume(list(stood))
        raise_failures(failures, len(machines))
        return stood

    def _room(self, machine: str) -> int:
        """What the memory of a machine will take on the disk, at the most."""
        record = records.read(self._layout, machine)
        process = vm.find(self._layout, record)
        if record is not None and process is not None and (found := self._copied(record, process)) is not None:
            with contextlib.suppress(OSError), found[1].opened():
                return memories.size_of(found[1].changed())
        return self._plan.machine(machine).memory

    def resume(self, machines: Sequence[str]) -> None:
        def one(machine: str) -> None:
            record = records.read(self._layout, machine)
            if record is not None and not record.filling and vm.find(self._layout, record) is not None:
                vm.go_on(self._layout, record)

        raise_failures(each(list(machines), one, jobs=_JOBS, stop=Stop()), len(machines))

    def prepare(self) -> None:
        self._prepare()

    def save(self, machine: str, key: str) -> None:
        record = self._record(machine)
        self._clear(machine)
        process = vm.find(self._layout, record)
        if process is not None:
            note = self._save_running(record, key, process)
        else:
            for disk in self._disks(machine):
                self._qemu_img("-c", key, disk)
            note = Note(False, record)
        note.write(note_file(self._layout, machine, key))

    def _save_running(self, record: MachineRecord, key: str, process: ProcessId) -> Note:
        """Without the way in: a state that has one can only be loaded where there is one, so in no sealed machine."""
        names = self._nodes(record.name)
        with self._monitor(record.name) as session:
            needs = habitat.of(process.argv(), habitat.release(session.execute("query-version")))
            joined = way_in.joined(session)
            try:
                way_in.cut(session)
                base = self._save_beside(session, record, key, process)
                if base:
                    _snapshot(session, names, key)
                else:
                    run_job(session, "snapshot-save", tag=key, vmstate=names[0], devices=names)
            finally:
                if joined:
                    vm.open_way_in(self._layout, self._plan, record, session)
        return Note(True, record, needs, base)

    def _save_beside(self, session: Monitor, record: MachineRecord, key: str, process: ProcessId) -> str:
        """Keep a copy's memory as what differs from its base, whose name this gives; ``""`` where that cannot be."""
        found = self._copied(record, process)
        if found is None:
            return ""
        base, mapped = found
        return base.key if memory.save(session, mapped, base, beside(self._layout, record.name, key)) else ""

    def _copied(self, record: MachineRecord, process: ProcessId) -> tuple[Base, memories.Mapped] | None:
        """What a machine's process has begun with, and where it has that."""
        base = bases.find(self._layout, record.base)
        mapped = memories.mapped(process.pid, base.ram) if base is not None else None
        return (base, mapped) if base is not None and mapped is not None else None

    def restore(self, machine: str, key: str) -> None:
        note = Note.read(self._layout, machine, key)
        running, saved = note.running, note.record
        record = self._record(machine)
        process = vm.find(self._layout, record)
        # a copy is given its memory before it has moved, so with a process of its own
        afresh = bool(note.base) or record.filling or record.hardware != saved.hardware
        if process is not None and (afresh or not running):
            record, process = vm.stop(self._layout, record, graceful=False), None
        record = replace(record, **{name: getattr(saved, name) for name in _OF_THE_GUEST})
        if not running:
            for disk in self._disks(machine):
                self._qemu_img("-a", key, disk)
            records.write(self._layout, replace(record, wanted="stopped"))
            return
        if note.base:
            self._restore_copy(record, key, note.base)
            return
        if process is not None:
            record = records.write(self._layout, record)
        else:
            record = self._starter(record).start_still(self._plan.machine(machine), record)
        with self._monitor(machine) as session:
            if session.execute("query-status")["status"] == "running":
                session.execute("stop")
            names = self._nodes(machine)
            try:
                run_job(session, "snapshot-load", tag=key, vmstate=names[0], devices=names)
            except ProviderError:
                vm.stop(self._layout, record, graceful=False)  # half a memory must not run
                raise

    def _restore_copy(self, record: MachineRecord, key: str, name: str) -> None:
        machine, base = record.name, bases.find(self._layout, name)
        if base is None:
            raise ProviderError(f"{machine} has no whole snapshot {key}: what it is the difference to is gone")
        for disk in self._disks(machine):
            self._qemu_img("-a", key, disk)
        kept = beside(self._layout, machine, key)
        try:
            self._starter(record).start_filled(
                self._plan.machine(machine),
                record,
                base,
                lambda session, process: memory.load(session, process.pid, base, kept),
            )
        except ProviderError:
            vm.stop(self._layout, self._record(machine), graceful=False)
            raise

    def delete(self, machine: str, key: str) -> None:
        record = records.read(self._layout, machine)
        self._clear(machine)
        if record is None or not self._layout.machine(machine).overlay.exists():
            return
        if record.filling:  # it does not let its disk be changed, and is of no use
            record = vm.stop(self._layout, record, graceful=False)
        if vm.find(self._layout, record) is not None:
            with self._monitor(machine) as session:
                run_job(session, "snapshot-delete", tag=key, devices=self._nodes(machine))
                self._delete_forgotten(session, machine, key)
        else:
            for disk in self._disks(machine):
                if key in self._tags(machine, disk):
                    self._qemu_img("-d", key, disk)
        beside(self._layout, machine, key).remove()
        note_file(self._layout, machine, key).unlink(missing_ok=True)

    def _clear(self, machine: str) -> None:
        """Remove what a labctl that was killed was writing."""
        for path in self._layout.machine(machine).folder.glob(".labctl-*"):
            path.unlink(missing_ok=True)

    def _delete_forgotten(self, session: Monitor, machine: str, key: str) -> None:
        """Delete what is on a disk still, although the running QEMU knows nothing of it any more.

        Where there was no room for the shorter list of snapshots, QEMU has forgotten the snapshot and left the list
        on the disk as it was. The next list that it writes is without: that of a snapshot which is deleted at once.
        """
        for node, disk in zip(self._nodes(machine), self._disks(machine), strict=True):
            if key in self._tags(machine, disk):
                session.execute("blockdev-snapshot-internal-sync", device=node, name=_PASSING)
                session.execute("blockdev-snapshot-delete-internal-sync", device=node, name=_PASSING)

    def keys(self, machine: str) -> frozenset[str]:
        """Those of its present disk, another one made anew has none of them, and of which all parts are there."""
        record = records.read(self._layout, machine)
        if record is None or not self._layout.machine(machine).overlay.exists():
            return frozenset()
        noted = [path.stem for path in self._layout.machine(machine).folder.glob("labctl-*.json")]
        there = self._there(record) if noted else frozenset()
        return frozenset(key for key in noted if key in there and self._whole(record, key))

    def _there(self, record: MachineRecord) -> frozenset[str]:
        """Tags of the snapshots that all disks of a machine have."""
        if vm.find(self._layout, record) is not None:
            with self._monitor(record.name) as session:
                nodes = {node.get("node-name"): node for node in session.execute("query-named-block-nodes", flat=True)}
            tags = [_tags_of(nodes[name]["image"]) for name in self._nodes(record.name)]
        else:
            tags = [self._tags(record.name, disk) for disk in self._disks(record.name)]
        return frozenset.intersection(*tags)

    def _tags(self, machine: str, disk: Path) -> frozenset[str]:
        """Tags of the snapshots in a disk as it lies there, whether or not a QEMU has it open."""
        try:
            said = self._runner.run(["qemu-img", "info", "--force-share", "--output=json", disk], changes=False).text
            return _tags_of(json.loads(said))
        except CommandError as error:
            raise ProviderError(f"{machine}: its disk cannot be read", details=error.details) from error

    def _whole(self, record: MachineRecord, key: str) -> bool:
        """Whether all that is beside the disk is there, and of this disk."""
        try:
            note = Note.read(self._layout, record.name, key)
        except ProviderError:
            return False
        if note.base and not (bases.find(self._layout, note.base) and beside(self._layout, record.name, key).there()):
            return False
        return note.record.disk == record.disk

    def sizes(self, machine: str) -> Mapping[str, SnapshotSize]:
        found: dict[str, SnapshotSize] = {}
        for disk in self._disks(machine):
            for key, size in shares.sizes(disk).items():
                before = found.get(key, SnapshotSize(0, 0))
                found[key] = SnapshotSize(before.own + size.own, before.shared + size.shared)
        for key, size in found.items():
            found[key] = replace(size, own=size.own + beside(self._layout, machine, key).size())
        return found

    def _record(self, machine: str) -> MachineRecord:
        record = records.read(self._layout, machine)
        if record is None or not record.disk:
            raise ProviderError(f"{machine} does not exist", hint="labctl up makes it.")
        return record

    @contextlib.contextmanager
    def _monitor(self, machine: str) -> Iterator[Monitor]:
        """A session whose errors name the machine."""
        try:
            with monitor(self._layout.machine(machine).monitor) as session:
                yield session
        except ProviderError as error:
            raise ProviderError(f"{machine}: {error.brief}", details=error.details, hint=error.hint) from error

    def _nodes(self, machine: str) -> list[str]:
        """Names of the machine's disks in QEMU; the memory goes into the first."""
        return [f"disk{number}" for number in range(1 + len(self._plan.machine(machine).disks))]

    def _disks(self, machine: str) -> list[Path]:
        files = self._layout.machine(machine)
        return [files.overlay, *(files.disk(disk.name) for disk in self._plan.machine(machine).disks)]

    def _qemu_img(self, what: str, key: str, disk: Path) -> None:
        try:
            self._runner.run(["qemu-img", "snapshot", what, key, disk], timeout=_SECONDS)
        except CommandError as error:
            raise ProviderError(error.brief, details=error.details) from error


def _tags_of(image: Any) -> frozenset[str]:
    """Tags of the snapshots of an image, as QEMU and qemu-img describe it."""
    return frozenset(one["name"] for one in image.get("snapshots", ()))


def _snapshot(session: Monitor, nodes: Sequence[str], key: str) -> None:
    """Keep the present content of disks, all or none. Raises ProviderError."""
    actions = [{"type": "blockdev-snapshot-internal-sync", "data": {"device": node, "name": key}} for node in nodes]
    try:
        session.execute("transaction", actions=actions)
    except RefusedError as error:
        raise _failed("snapshot-save", error.details) from error


def run_job(session: Monitor, command: str, **arguments: object) -> None:
    """Run a job of QEMU's to its end. Raises ProviderError with its words."""
    job = f"labctl-{secrets.token_hex(4)}"
    session.execute(command, job_id=job, **arguments)
    if not session.concluded(job, _SECONDS):
        raise ProviderError(f"{command} does not end")
    found = next((one for one in session.execute("query-jobs") if one["id"] == job), None)
    if found is not None:
        session.execute("job-dismiss", id=job)
        if error := str(found.get("error", "")):
            raise _failed(command, error)


def _failed(command: str, error: str) -> ProviderError:
    full = os.strerror(errno.ENOSPC) in error or re.search(rf"-{errno.ENOSPC}\b", error)
    return ProviderError(f"{command} failed{': the disk is full' if full else ''}", details=error)
