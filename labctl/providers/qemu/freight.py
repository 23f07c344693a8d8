"""Snapshots of QEMU machines on their way to another host: the disks, each with nothing but that snapshot in it.

A machine's disk is an overlay over its image, which is there by its digest on both sides; what travels is what the
guest has written since, and its memory. On the way in, no field of the files is believed: the backing file is named
here, and records are written here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from labctl.errors import ProviderError, UsageError
from labctl.host.files import explained, private_folder
from labctl.host.runner import CommandError, Runner
from labctl.plan import guest as personalities
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import BootImage, Crate, Freight, Job
from labctl.providers.qemu import disks, habitat, offcut, within
from labctl.providers.qemu import record as records
from labctl.providers.qemu.argv import Seat, machine_argv
from labctl.providers.qemu.checkpoints import Note, note_file
from labctl.providers.qemu.layout import Layout, MachineFiles
from labctl.providers.qemu.lift import Lift
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.wires import Wires
from labctl.providers.workers import Stop, in_waves, raise_failures
from labctl.spec.files import read_lab_file

_CHECK_SECONDS = 600.0


class QemuFreight(Freight):
    """Freight of an instance. wires, accelerator: tell it when asked. lift: makes what brings machines up."""

    def __init__(
        self,
        layout: Layout,
        job: Job,
        runner: Runner,
        *,
        wires: Callable[[], Wires],
        accelerator: Callable[[], str],
        lift: Callable[[Stop], Lift],
    ) -> None:
        self._layout, self._job, self._runner = layout, job, runner
        self._wires, self._accelerator, self._lift = wires, accelerator, lift

    def pack(self, machine: str, key: str, folder: Path) -> Crate:
        note = Note.read(self._layout, machine, key)
        if not note.record.complete:
            raise UsageError(
                f"{machine} was not finished when this checkpoint was saved",
                hint="labctl up finishes it; then save another checkpoint.",
            )
        packed = []
        for number, disk in enumerate(self._disks(machine)):
            packed.append(folder / f"{machine}.{number}")
            offcut.write(disk, key, packed[-1])
        if note.base:
            within.take_in(self._layout, self._wires(), self._job.plan, note, key, packed[0], runner=self._runner)
        return Crate(tuple(packed), note.needs)

    def offers(self, machine: str) -> Mapping[str, str]:
        plan, accelerator = self._job.plan.machine(machine), self._accelerator()
        nowhere = MachineFiles(Path("machine"), Path("socket"))
        seat = Seat(accelerator, 0, nowhere, {one.device: one.device for one in plan.interfaces}, machine)
        argv = machine_argv(self._job.plan, plan, self._image(machine), seat)
        return habitat.of(argv, habitat.release_here(self._runner))

    def unpack(self, machine: str, key: str, crate: Crate, *, memory: bool) -> None:
        plan, image, places = self._job.plan.machine(machine), self._image(machine), self._disks(machine)
        private_folder(self._layout.machine(machine).folder)
        record = records.write(self._layout, MachineRecord(machine, records.image_value(image)))
        sizes = [self._size(image.disk), *(disk.size for disk in plan.disks)]
        if len(crate.disks) != len(places):
            raise ProviderError(f"{machine} has {len(places)} disks, and {len(crate.disks)} came")
        for came, place, size in zip(crate.disks, places, sizes, strict=True):
            self._check(machine, came, key, size)
            try:
                came.replace(place)
                place.chmod(0o600)
            except OSError as error:
                raise explained(place, error) from error
        self._run(machine, "rebase", "-u", "-f", "qcow2", "-b", image.disk.resolve(), "-F", "qcow2", places[0])
        steps = personalities.steps(plan, lambda source: read_lab_file(self._job.root, source))
        done = replace(record, disk=disks.key(plan, image), steps=records.digest_of(steps), steps_done=len(steps))
        Note(memory, done, crate.needs if memory else {}).write(note_file(self._layout, machine, key))
        records.write(self._layout, done)

    def settle(self, machines: Sequence[str], was: LabPlan) -> None:
        born = {name: _moved(was.machine(name), self._job.plan.machine(name)) for name in machines}
        stop = Stop()
        lift = replace(self._lift(stop), born=born)

        def one(name: str) -> None:
            if name in born:
                lift.machine(name)

        failures = in_waves(self._job.plan, one, jobs=self._job.jobs, stop=stop, listener=lift.listener)
        raise_failures(failures, len(machines))

    def _image(self, machine: str) -> BootImage:
        return self._job.images[machine]

    def _disks(self, machine: str) -> list[Path]:
        files = self._layout.machine(machine)
        return [files.overlay, *(files.disk(disk.name) for disk in self._job.plan.machine(machine).disks)]

    def _check(self, machine: str, disk: Path, key: str, size: int) -> None:
        """Before any program opens it."""
        if wrong := offcut.check(disk, key, size):
            raise ProviderError(f"the disk of {machine} that came is none of labctl's: {wrong}")
        self._run(machine, "check", "-q", "-f", "qcow2", disk)

    def _size(self, disk: Path) -> int:
        found = self._runner.run(["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", disk], changes=False)
        return int(json.loads(found.text)["virtual-size"])

    def _run(self, machine: str, *words: str | Path) -> None:
        try:
            self._runner.run(["qemu-img", *words], timeout=_CHECK_SECONDS)
        except CommandError as error:
            raise ProviderError(f"the disk of {machine} that came is damaged", details=error.details) from error


def _moved(was: MachinePlan, now: MachinePlan) -> tuple[tuple[str, str], ...]:
    """The MACs that a machine's NICs had in another instance, with their own; those that are the same are left out."""
    pairs = zip(_macs(was), _macs(now), strict=True)
    return tuple((old, new) for old, new in pairs if old != new)


def _macs(machine: MachinePlan) -> tuple[str, ...]:
    return (machine.management_mac, *(interface.mac for interface in machine.interfaces))
