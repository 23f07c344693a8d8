"""VirtualBox under Vagrant: Vagrant makes machines and their wires, which exist while machines are on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from labctl.errors import LabctlError, ProviderError
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.agent import GuestAgent
from labctl.providers.base import Capabilities, Checkpoints, MachineStatus, Observed, ObservedNic
from labctl.providers.vagrant import virtualbox_copies as copies
from labctl.providers.vagrant import virtualbox_observation as observation
from labctl.providers.vagrant.engine import Engine, Names
from labctl.providers.vagrant.vboxmanage import VBoxManage
from labctl.providers.vagrant.virtualbox_checkpoints import VirtualBoxCheckpoints
from labctl.providers.vagrant.virtualbox_model import Details
from labctl.providers.workers import raise_failures

_LOOPBACK = "127.0.0.1"
_SSH = "ssh"  # what Vagrant calls the port that it forwards
_APART = (
    "VirtualBox cannot stop machines at one moment, and each moves by itself for a moment once its memory is loaded; "
    "labctl pauses each as soon as it can, and lets them go on together"
)


class VirtualBox(Engine):
    """Machines of the user's own VirtualBox."""

    name: ClassVar[str] = "virtualbox"
    parallel: ClassVar[bool] = False  # imports of one box at the same time collide

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self._vbox = VBoxManage(runner)

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(
            promiscuous=True,
            isolated_ports=False,
            egress=True,
            seal=True,  # nothing but the screen leads in then
            checkpoints=True,
            console=False,
            windows=True,
            consistency=_APART,
            secrets=True,
        )

    def names(self, plan: LabPlan) -> Names:
        machines = {m.name: (f"labctl.{plan.lab}.{plan.instance}.{m.name}", "") for m in plan.machines}
        return Names(machines, tuple(network.wire for network in plan.networks if network.egress == "nat"))

    def prepare(self, plan: LabPlan) -> None:
        """Nothing: the Vagrantfile makes ways out, and wires come with the machines."""

    def clear(self, noted: Path, kept: str) -> None:
        copies.clear(self._vbox, noted, kept)

    def observe(self, plan: LabPlan, known: Names) -> Observed:
        there = {found.name: found.uuid for found in self._vbox.machines()}
        planned = self.names(plan)
        statuses: list[MachineStatus] = []
        nics: list[ObservedNic] = []
        openings: list[tuple[str, str]] = []
        for machine in plan.machines:
            uuid = there.get(planned.machines[machine.name][0])
            if uuid is None:
                statuses.append(MachineStatus(machine.name, "absent"))
                continue
            details = self._vbox.details(uuid)
            state = observation.state(details)
            statuses.append(MachineStatus(machine.name, state, details="" if state == "running" else details.state))
            if state in ("running", "paused"):
                nics += observation.nics(plan, machine, details)
                openings += [(machine.name, text) for text in observation.drift(machine, details)]
        leftovers = tuple(
            f"machine {name}"
            for machine, (name, _) in known.machines.items()
            if machine not in planned.machines and name in there
        )
        strangers, faults = self._strangers(plan) if nics else ((), ())
        return Observed(tuple(statuses), tuple(nics), leftovers, faults, openings=tuple(openings), wires=strangers)

    def _strangers(self, plan: LabPlan) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """Other running machines on the lab's wires, and which of them cannot be read."""
        own = {name for name, _ in self.names(plan).machines.values()}
        found: list[tuple[str, str]] = []
        faults: list[str] = []
        for other in self._vbox.running():
            if other.name not in own:
                try:
                    found += observation.strangers(plan, other.name, self._vbox.details(other.uuid))
                except LabctlError as error:  # it may have ended meanwhile
                    if other in self._vbox.running():
                        faults.append(f"what the machine {other.name} is plugged into is not known: {error.brief}")
        return tuple(found), tuple(faults)

    def address(self, plan: LabPlan, machine: str) -> tuple[str, int] | None:
        details = self._details(plan, machine)
        if details is None or observation.state(details) != "running":
            return None
        port = next((forward.host_port for forward in details.forwards if forward.name == _SSH), None)
        return None if port is None else (_LOOPBACK, port)

    def agent(self, plan: LabPlan, machine: str) -> GuestAgent | None:
        _ = plan, machine  # there is none: Guest Additions are not in labctl's boxes
        return None

    def wake(self, plan: LabPlan, machine: str) -> None:
        if (found := self._details(plan, machine)) is not None:
            self._vbox.resume(found.uuid)

    def joined(self, plan: LabPlan, machine: str) -> bool:
        details = self._details(plan, machine)
        nic = details.nic(observation.MANAGEMENT_SLOT) if details else None
        return nic is not None and nic.connected

    def join(self, plan: LabPlan, machine: str, joined: bool) -> None:
        found = self._vbox.find(self.names(plan).machines[machine][0])
        if found is None:
            raise ProviderError(f"{machine} does not exist", hint="labctl up makes it.")
        self._vbox.set_link(found.uuid, observation.MANAGEMENT_SLOT, joined)

    def checkpoints(self, plan: LabPlan, forget: Callable[[str], None]) -> Checkpoints:
        return VirtualBoxCheckpoints(self._vbox, self.names(plan).machines, forget)

    def remove(self, machines: Mapping[str, tuple[str, str]]) -> None:
        """What they were cloned from stays: it is Vagrant's, one for each box, and other labs are cloned from it."""
        failures: dict[str, LabctlError] = {}
        for found in self._vbox.machines() if machines else ():
            # By its UUID, too: until Vagrant has named a clone it is called otherwise.
            machine = next(
                (key for key, names in machines.items() if found.name == names[0] or found.uuid == names[1]), None
            )
            if machine is None:
                continue
            try:
                if found.accessible:
                    self._vbox.poweroff(found.uuid)
                self._vbox.unregister(found.uuid)
            except LabctlError as error:
                failures[machine] = error
        raise_failures(failures, len(machines))

    def remove_networks(self, names: tuple[str, ...]) -> None:
        """Ways out only: an internal network ends with its last machine."""
        for network in self._vbox.nat_networks():
            if network.name in names:
                self._vbox.remove_nat_network(network.name)

    def _details(self, plan: LabPlan, machine: str) -> Details | None:
        found = self._vbox.find(self.names(plan).machines[machine][0])
        return None if found is None else self._vbox.details(found.uuid)
