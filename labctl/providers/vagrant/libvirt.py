"""libvirt under Vagrant: labctl makes the networks, Vagrant the machines."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import ClassVar

from labctl.errors import LabctlError
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, NetworkPlan
from labctl.providers.agent import GuestAgent
from labctl.providers.base import (
    MANAGEMENT,
    ONE_MOMENT,
    BootImage,
    Capabilities,
    Checkpoints,
    MachineStatus,
    Observed,
    ObservedNic,
)
from labctl.providers.qemu.accelerator import accelerator
from labctl.providers.vagrant import libvirt_wires, networks
from labctl.providers.vagrant.engine import Engine, Names
from labctl.providers.vagrant.libvirt_checkpoints import LibvirtCheckpoints
from labctl.providers.vagrant.virsh import Domain, Virsh

_SSH = 22
_POOL, _DISKS = "default", "/var/lib/libvirt/images"  # where vagrant-libvirt puts disks


class Libvirt(Engine):
    """Domains of the system's libvirt daemon."""

    name: ClassVar[str] = "libvirt"
    parallel: ClassVar[bool] = True

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self._virsh = Virsh(networks.SYSTEM_URI, runner)

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(
            promiscuous=False,
            isolated_ports=True,
            egress=False,
            seal=True,
            checkpoints=True,
            console=False,
            windows=True,
            consistency=ONE_MOMENT,
            secrets=True,
        )

    def names(self, plan: LabPlan) -> Names:
        machines = {m.name: (f"labctl.{plan.lab}.{plan.instance}.{m.name}", m.uuid) for m in plan.machines}
        return Names(machines, (networks.management(plan).name, *(network.wire for network in plan.networks)))

    def prepare(self, plan: LabPlan) -> None:
        # Vagrant makes it where it is missing, and of several that run at once one fails at that
        self._virsh.keep_pool(_POOL, _DISKS)
        management = networks.management(plan)
        self._virsh.define_network(management.xml)
        for machine in plan.machines:  # some may be newer than the network
            if machine.management_address is not None:
                self._virsh.keep_lease(management.name, machine.management_mac, str(machine.management_address.ip))
        self._runner.run(
            ["nft", "-f", "-"],
            stdin=networks.host_filter(plan).encode(),
            hint="Run labctl as root: it closes this host to the guests' management network with nftables.",
        )
        for network in plan.networks:
            self._define(network)

    def settle(self, plan: LabPlan, machine: str) -> None:
        libvirt_wires.settle(plan, machine, self._runner)

    def variables(self, images: Collection[BootImage]) -> Mapping[str, str]:
        """KVM only where it was shown to run a guest; a box has its kernel beside it in the image store."""
        beside = (image.disk.with_name("kernel") for image in images)
        found = accelerator(next((kernel for kernel in beside if kernel.exists()), None))
        return {"LABCTL_LIBVIRT_DRIVER": "kvm" if found.name == "kvm" else "qemu"}

    def observe(self, plan: LabPlan, known: Names) -> Observed:
        planned = self.names(plan)
        there = set(self._virsh.domains())
        statuses: list[MachineStatus] = []
        nics: list[ObservedNic] = []
        openings: list[tuple[str, str]] = []
        wires = {network.wire: network.name for network in plan.networks}
        wires[networks.management(plan).name] = self._management(plan)
        for machine in plan.machines:
            name, uuid = planned.machines[machine.name]
            domain = self._virsh.domain(name) if name in there else None
            if domain is None:
                statuses.append(MachineStatus(machine.name, "absent"))
                continue
            details = "" if domain.uuid == uuid else f"the domain {name} is not labctl's"
            statuses.append(MachineStatus(machine.name, domain.state, details=details))
            if domain.state in ("running", "paused"):
                nics += _nics(machine.name, domain, wires)
                openings += [(machine.name, f"a share of this host, {share}") for share in domain.shares]
        leftovers = [
            f"domain {name}"
            for machine, (name, _) in known.machines.items()
            if machine not in planned.machines and name in there
        ]
        gone = set(known.networks) - set(planned.networks)
        leftovers += [f"network {name}" for name in self._virsh.networks() if name in gone] if gone else []
        wires_open, faults = self._wires(plan) if nics else ((), ())
        return Observed(
            tuple(statuses), tuple(nics), tuple(leftovers), faults, openings=tuple(openings), wires=wires_open
        )

    def address(self, plan: LabPlan, machine: str) -> tuple[str, int] | None:
        found = self._virsh.lease(networks.management(plan).name, plan.machine(machine).management_mac)
        return None if found is None else (found, _SSH)

    def agent(self, plan: LabPlan, machine: str) -> GuestAgent | None:
        return self._virsh.agent(self.names(plan).machines[machine][0])

    def wake(self, plan: LabPlan, machine: str) -> None:
        self._virsh.resume(self.names(plan).machines[machine][0])

    def joined(self, plan: LabPlan, machine: str) -> bool:
        found = self._virsh.domain(self.names(plan).machines[machine][0])
        mac = plan.machine(machine).management_mac
        return found is not None and any(nic.linked for nic in found.nics if nic.mac == mac)

    def join(self, plan: LabPlan, machine: str, joined: bool) -> None:
        self._virsh.set_link(self.names(plan).machines[machine][0], plan.machine(machine).management_mac, joined)

    def checkpoints(self, plan: LabPlan, forget: Callable[[str], None]) -> Checkpoints:
        def restored(machine: str) -> None:
            self.settle(plan, machine)
            forget(machine)

        return LibvirtCheckpoints(self._virsh, self.names(plan).machines, lambda: self.prepare(plan), restored)

    def remove(self, machines: Mapping[str, tuple[str, str]]) -> None:
        if not machines:
            return
        there = set(self._virsh.domains())
        for name, uuid in machines.values():
            if name in there:
                self._virsh.remove_domain(name, uuid)
        volumes = self._virsh.volumes(_POOL)
        for name, _ in machines.values():
            for volume in volumes:
                if _disk_of(name, volume):
                    self._virsh.remove_volume(_POOL, volume)

    def remove_networks(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._virsh.remove_network(name)
            table = networks.host_table(name)
            for family in ("inet", "arp"):
                if table in self._tables(family):
                    self._runner.run(["nft", "delete", "table", family, table])

    def _tables(self, family: str) -> frozenset[str]:
        """Names of the nftables tables of this host; none where they cannot be read."""
        said = self._runner.run(["nft", "list", "tables", family], check=False, changes=False)
        return frozenset(line.split()[-1] for line in said.text.splitlines() if line.strip())

    def _define(self, network: NetworkPlan) -> None:
        """Make a wire. One whose ports are isolated and should not be, or the other way round, is made anew, because
        libvirt does not change that of a network that is there: its cables are dead until their machines are settled.
        """
        found = self._virsh.network(network.wire)
        if found is not None and found.isolated == network.peers:
            libvirt_wires.unplug(network, self._runner)
            self._virsh.remove_network(network.wire)
        self._virsh.define_network(networks.wire(network))

    def _wires(self, plan: LabPlan) -> tuple[tuple[libvirt_wires.Opening, ...], tuple[str, ...]]:
        """What the wires let through beyond the plan, and what they do not although they should, or why that is not
        known."""
        try:
            return libvirt_wires.look(plan, self._virsh, self._runner)
        except LabctlError as error:
            return (), (error.brief,)

    def _management(self, plan: LabPlan) -> str:
        """What to call the management network: by its name only where it is as closed as it was made."""
        try:
            found = self._virsh.network(networks.management(plan).name)
        except LabctlError as error:
            return f"management (unknown: {error.brief})"
        if found is None:
            return "management (gone)"
        faults = [] if found.isolated else ["ports not isolated"]
        faults += [f"forwards: {found.forward}"] if found.forward else []
        faults += ["answers names"] if found.resolver else []
        closed = all(networks.host_table(found.name) in self._tables(family) for family in ("inet", "arp"))
        faults += [] if closed else ["this host is open to it"]
        faults += ["IPv6"] if any(":" in address for address in found.addresses) else []
        return f"{MANAGEMENT} ({', '.join(faults)})" if faults else MANAGEMENT


def _disk_of(domain: str, volume: str) -> bool:
    """Whether vagrant-libvirt gives a domain's disk this name: of its box, the first or another, or an extra one."""
    return re.fullmatch(rf"{re.escape(domain)}(_\d+)?\.img|{re.escape(domain)}-[a-z]+\.(qcow2|raw)", volume) is not None


def _nics(machine: str, domain: Domain, wires: Mapping[str, str]) -> Iterator[ObservedNic]:
    for nic in domain.nics:
        yield ObservedNic(machine, nic.mac, wires.get(nic.network, nic.network), nic.linked)
