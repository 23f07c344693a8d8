"""VirtualBox under Vagrant: Vagrant makes machines and their wires, which exist while machines are on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.agent import GuestAgent
from labctl.providers.base import Capabilities, MachineStatus, Observed, ObservedNic
from labctl.providers.vagrant import virtualbox_observation as observation
from labctl.providers.vagrant.engine import Engine, Names
from labctl.providers.vagrant.vboxmanage import VBoxManage
from labctl.providers.vagrant.virtualbox_model import Details

_LOOPBACK = "127.0.0.1"
_SSH = "ssh"  # what Vagrant calls the port that it forwards


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
            seal=True,  # the Vagrantfile pulls the cable after `up`; nothing but the screen leads in then
            checkpoints=False,
            console=False,
            windows=True,
        )

    def names(self, plan: LabPlan) -> Names:
        machines = {m.name: (f"labctl.{plan.lab}.{plan.instance}.{m.name}", "") for m in plan.machines}
        return Names(machines, ())

    def prepare(self, plan: LabPlan) -> None:
        """Nothing: the Vagrantfile makes ways out, and wires come with the machines."""

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
        return Observed(tuple(statuses), tuple(nics), leftovers, openings=tuple(openings))

    def address(self, plan: LabPlan, machine: str) -> tuple[str, int] | None:
        details = self._details(plan, machine)
        if details is None or observation.state(details) != "running":
            return None
        port = next((forward.host_port for forward in details.forwards if forward.name == _SSH), None)
        return None if port is None else (_LOOPBACK, port)

    def agent(self, plan: LabPlan, machine: str) -> GuestAgent | None:
        _ = plan, machine  # there is none: Guest Additions are not in labctl's boxes
        return None

    def remove(self, machines: Mapping[str, tuple[str, str]]) -> None:
        there = {found.name: found.uuid for found in self._vbox.machines()}
        for name, _ in machines.values():
            if name in there:
                self._vbox.unregister(there[name])

    def remove_networks(self, names: tuple[str, ...]) -> None:
        """Nothing: an internal network ends with its last machine."""

    def _details(self, plan: LabPlan, machine: str) -> Details | None:
        found = self._vbox.find(self.names(plan).machines[machine][0])
        return None if found is None else self._vbox.details(found.uuid)
