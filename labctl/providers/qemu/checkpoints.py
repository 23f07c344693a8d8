"""Checkpoints of QEMU machines: internal snapshots of their own disks, memory included, made by QEMU itself.

Beside the disks a note per snapshot keeps the machine's record of that moment: what was configured and provisioned goes
back with the guest.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from labctl.errors import ProviderError
from labctl.host.files import write_json
from labctl.host.runner import CommandError, Runner
from labctl.plan.model import LabPlan
from labctl.providers.base import Checkpoints, SnapshotSize
from labctl.providers.qemu import disks, habitat, shares, vm, way_in
from labctl.providers.qemu import record as records
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.qmp import Monitor, monitor
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.workers import Stop, each, raise_failures

_JOBS = 16
_SECONDS = 900.0
_PASSING = "passing"  # a snapshot that lives for a moment; no checkpoint is called so
# What of a record belongs to the guest's state; the rest belongs to its process.
_OF_THE_GUEST = ("image", "disk", "hardware", "personality", "steps", "steps_done", "complete", "template", "copied")


@dataclass(frozen=True, slots=True)
class Note:
    """What is kept of a snapshot beside the disk. needs: what its memory can only be loaded into, as in ``habitat``.

    It is empty without memory, and of snapshots of a labctl that did not note it.
    """

    running: bool
    record: MachineRecord
    needs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, layout: Layout, machine: str, key: str) -> Note:
        """Of a machine's snapshot. Raises ProviderError."""
        try:
            value = json.loads(note_file(layout, machine, key).read_text(encoding="utf-8"))
            return cls(bool(value["running"]), MachineRecord(**value["record"]), dict(value.get("needs", {})))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProviderError(f"{machine} has no whole snapshot {key}", details=str(error)) from error

    def write(self, path: Path) -> None:
        """Keep it."""
        value = {"running": self.running, "record": asdict(self.record), "needs": dict(self.needs)}
        write_json(path, value, mode=0o600)


def note_file(layout: Layout, machine: str, key: str) -> Path:
    """Where the note of a snapshot is."""
    return layout.machine(machine).folder / f"{key}.json"


class QemuCheckpoints(Checkpoints):
    """Snapshots of an instance's machines. start: starts one that does not run and leaves it standing still."""

    def __init__(
        self,
        layout: Layout,
        plan: LabPlan,
        runner: Runner,
        *,
        prepare: Callable[[], None],
        start: Callable[[MachineRecord], MachineRecord],
    ) -> None:
        self._layout, self._plan, self._runner = layout, plan, runner
        self._prepare, self._start = prepare, start

    def pause(self, machines: Sequence[str]) -> Mapping[str, float]:
        if not machines:
            return {}
        # Their memory is about to be written; a guest that finds the disk full afterwards stands still.
        disks.check_room(self._layout, sum(self._plan.machine(machine).memory for machine in machines))
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

    def resume(self, machines: Sequence[str]) -> None:
        def one(machine: str) -> None:
            record = records.read(self._layout, machine)
            if record is not None and vm.find(self._layout, record) is not None:
                vm.go_on(self._layout, record)

        raise_failures(each(list(machines), one, jobs=_JOBS, stop=Stop()), len(machines))

    def prepare(self) -> None:
        self._prepare()

    def save(self, machine: str, key: str) -> None:
        record = self._record(machine)
        process = vm.find(self._layout, record)
        needs: Mapping[str, str] = {}
        if process is not None:
            needs = self._save_running(record, key, process.argv())
        else:
            for disk in self._disks(machine):
                self._qemu_img("-c", key, disk)
        Note(process is not None, record, needs).write(note_file(self._layout, machine, key))

    def _save_running(self, record: MachineRecord, key: str, argv: Sequence[str]) -> Mapping[str, str]:
        """Without the way in: a state that has one can only be loaded where there is one, so in no sealed machine."""
        names = self._nodes(record.name)
        with self._monitor(record.name) as session:
            needs = habitat.of(argv, habitat.release(session.execute("query-version")))
            joined = way_in.joined(session)
            try:
                way_in.cut(session)
                _job(session, "snapshot-save", tag=key, vmstate=names[0], devices=names)
            finally:
                if joined:
                    vm.open_way_in(self._layout, self._plan, record, session)
        return needs

    def restore(self, machine: str, key: str) -> None:
        note = Note.read(self._layout, machine, key)
        running, saved = note.running, note.record
        record = self._record(machine)
        process = vm.find(self._layout, record)
        if process is not None and (not running or record.hardware != saved.hardware):
            record, process = vm.stop(self._layout, record, graceful=False), None
        record = replace(record, **{name: getattr(saved, name) for name in _OF_THE_GUEST})
        if not running:
            for disk in self._disks(machine):
                self._qemu_img("-a", key, disk)
            records.write(self._layout, replace(record, wanted="stopped"))
            return
        record = records.write(self._layout, record) if process is not None else self._start(record)
        with self._monitor(machine) as session:
            if session.execute("query-status")["status"] == "running":
                session.execute("stop")
            names = self._nodes(machine)
            try:
                _job(session, "snapshot-load", tag=key, vmstate=names[0], devices=names)
            except ProviderError:
                vm.stop(self._layout, record, graceful=False)  # half a memory must not run
                raise

    def delete(self, machine: str, key: str) -> None:
        record = records.read(self._layout, machine)
        if record is None or not self._layout.machine(machine).overlay.exists():
            return
        if vm.find(self._layout, record) is not None:
            with self._monitor(machine) as session:
                _job(session, "snapshot-delete", tag=key, devices=self._nodes(machine))
                self._delete_forgotten(session, machine, key)
        else:
            for disk in self._disks(machine):
                if key in self._tags(machine, disk):
                    self._qemu_img("-d", key, disk)
        note_file(self._layout, machine, key).unlink(missing_ok=True)

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
        """Those of its present disk, another one made anew has none of them, and of which both halves are there."""
        record = records.read(self._layout, machine)
        if record is None or not self._layout.machine(machine).overlay.exists():
            return frozenset()
        noted = [path.stem for path in self._layout.machine(machine).folder.glob("labctl-*.json")]
        there = self._there(record) if noted else frozenset()
        return frozenset(key for key in noted if key in there and self._made_of(machine, key) == record.disk)

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

    def _made_of(self, machine: str, key: str) -> str | None:
        """What the disk was made from that a snapshot was taken of; None where its note cannot be read."""
        try:
            return Note.read(self._layout, machine, key).record.disk
        except ProviderError:
            return None

    def sizes(self, machine: str) -> Mapping[str, SnapshotSize]:
        found: dict[str, SnapshotSize] = {}
        for disk in self._disks(machine):
            for key, size in shares.sizes(disk).items():
                before = found.get(key, SnapshotSize(0, 0))
                found[key] = SnapshotSize(before.own + size.own, before.shared + size.shared)
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


def _job(session: Monitor, command: str, **arguments: object) -> None:
    """Run a job of QEMU's to its end. Raises ProviderError with its words."""
    job = f"labctl-{secrets.token_hex(4)}"
    session.execute(command, job_id=job, **arguments)
    if not session.concluded(job, _SECONDS):
        raise ProviderError(f"{command} does not end")
    found = next((one for one in session.execute("query-jobs") if one["id"] == job), None)
    if found is not None:
        session.execute("job-dismiss", id=job)
        if error := str(found.get("error", "")):
            full = os.strerror(errno.ENOSPC) in error or re.search(rf"-{errno.ENOSPC}\b", error)
            raise ProviderError(f"{command} failed{': the disk is full' if full else ''}", details=error)
