"""Checkpoints of libvirt domains: internal snapshots, disks and memory in the domains' own disk images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from labctl.errors import ProviderError
from labctl.providers.base import Checkpoints
from labctl.providers.vagrant.virsh import Domain, Virsh


class LibvirtCheckpoints(Checkpoints):
    """Snapshots of an instance's domains.

    prepare: makes its networks where they are gone, as after a restart. restored: is told of machines that were put
    back, whose cables and connections are new.
    """

    def __init__(
        self,
        virsh: Virsh,
        domains: Mapping[str, tuple[str, str]],
        prepare: Callable[[], None],
        restored: Callable[[str], None],
    ) -> None:
        self._virsh, self._domains, self._prepare, self._restored = virsh, domains, prepare, restored

    def pause(self, machines: Sequence[str]) -> Mapping[str, float]:
        """The times given lie as far apart as the whole command took, which is more than the machines did."""
        if not machines:
            return {}
        names = [self._mine(machine).name for machine in machines]
        first = time.monotonic()
        self._virsh.suspend_all(names)
        last = time.monotonic()
        awake = [machine for machine in machines if self._mine(machine).state != "paused"]
        if awake:
            self.resume(machines)
            raise ProviderError(f"{', '.join(awake)} could not be paused")
        return {machine: last if number else first for number, machine in enumerate(machines)}

    def resume(self, machines: Sequence[str]) -> None:
        failed = []
        for machine in machines:
            try:
                if self._mine(machine).state == "paused":
                    self._virsh.resume(self._domains[machine][0])
            except ProviderError as error:
                failed.append(f"{machine}: {error.brief}")
        if failed:
            raise ProviderError("not all machines go on", details="\n".join(failed), hint="labctl up goes on.")

    def prepare(self) -> None:
        self._prepare()

    def save(self, machine: str, key: str) -> None:
        self._virsh.snapshot_take(self._mine(machine).name, key)

    def restore(self, machine: str, key: str) -> None:
        self._virsh.snapshot_revert(self._mine(machine).name, key)
        self._restored(machine)

    def delete(self, machine: str, key: str) -> None:
        name, uuid = self._domains.get(machine, ("", ""))
        found = self._virsh.domain(name) if name else None
        if found is not None and found.uuid == uuid:
            self._virsh.snapshot_delete(name, key)

    def keys(self, machine: str) -> frozenset[str]:
        return frozenset(self._virsh.snapshots(self._mine(machine).name))

    def _mine(self, machine: str) -> Domain:
        name, uuid = self._domains.get(machine, ("", ""))
        found = self._virsh.domain(name) if name else None
        if found is None or found.uuid != uuid:
            raise ProviderError(f"{machine} does not exist", hint="labctl up makes it; labctl status shows what runs.")
        return found
