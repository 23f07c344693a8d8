"""Checkpoints of VirtualBox machines: its own snapshots, disks and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from labctl.errors import LabctlError, ProviderError
from labctl.providers.base import Checkpoints
from labctl.providers.vagrant.vboxmanage import VBoxManage
from labctl.providers.workers import Stop, each, raise_failures

_JOBS = 8


class VirtualBoxCheckpoints(Checkpoints):
    """Snapshots of an instance's machines.

    A machine goes on by itself when its memory is loaded; it is paused right after, so it has moved for a moment.
    """

    def __init__(
        self, vbox: VBoxManage, machines: Mapping[str, tuple[str, str]], forget: Callable[[str], None]
    ) -> None:
        self._vbox, self._machines, self._forget = vbox, machines, forget

    def pause(self, machines: Sequence[str]) -> Mapping[str, float]:
        ids = {machine: self._mine(machine) for machine in machines}
        stood: dict[str, float] = {}

        def one(machine: str) -> None:
            self._vbox.pause(ids[machine])
            stood[machine] = time.monotonic()

        failures = each(list(machines), one, jobs=_JOBS, stop=Stop())
        if failures:
            self.resume([machine for machine in machines if machine not in failures])
        raise_failures(failures, len(machines))
        return stood

    def resume(self, machines: Sequence[str]) -> None:
        def one(machine: str) -> None:
            uuid = self._mine(machine)
            if self._vbox.details(uuid).state == "paused":
                self._vbox.resume(uuid)

        raise_failures(each(list(machines), one, jobs=_JOBS, stop=Stop()), len(machines))

    def prepare(self) -> None:
        """Nothing: wires come with the machines."""

    def save(self, machine: str, key: str) -> None:
        self._vbox.snapshot_take(self._mine(machine), key)

    def restore(self, machine: str, key: str) -> None:
        uuid = self._mine(machine)
        found = self._find(uuid, key)
        if found is None:
            raise ProviderError(f"{machine} has no snapshot {key}")
        self._vbox.poweroff(uuid)
        self._vbox.snapshot_restore(uuid, found)
        self._forget(machine)
        if self._vbox.details(uuid).state == "saved":
            self._vbox.start(uuid)
            self._vbox.pause(uuid)

    def delete(self, machine: str, key: str) -> None:
        try:
            uuid = self._mine(machine)
        except LabctlError:
            return  # gone, and its snapshots with it
        if (found := self._find(uuid, key)) is not None:
            self._vbox.snapshot_delete(uuid, found)

    def keys(self, machine: str) -> frozenset[str]:
        return frozenset(snapshot.name for snapshot in self._vbox.snapshots(self._mine(machine)))

    def _find(self, uuid: str, key: str) -> str | None:
        return next((snapshot.uuid for snapshot in self._vbox.snapshots(uuid) if snapshot.name == key), None)

    def _mine(self, machine: str) -> str:
        found = self._vbox.find(self._machines[machine][0]) if machine in self._machines else None
        if found is None:
            raise ProviderError(f"{machine} does not exist", hint="labctl up makes it; labctl status shows what runs.")
        return found.uuid
