"""Machines as notes in ``machines.json``: every verb of a provider, without a single process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from labctl.errors import GuestError, ProviderError
from labctl.events import Event
from labctl.host.files import private_folder, remove_tree, write_json
from labctl.plan.diff import Action
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import (
    Capabilities,
    Endpoint,
    ExecResult,
    Job,
    MachineState,
    MachineStatus,
    Observed,
    ObservedNic,
    Provider,
)


@dataclass(frozen=True, slots=True)
class FakeMachine:
    """A machine as noted. disk counts the disks made, boots the starts; applied is its configuration."""

    name: str
    state: MachineState = "stopped"
    disk: int = 1
    boots: int = 0
    wires: tuple[tuple[str, str], ...] = ()  # MAC and network of each NIC
    applied: str = ""


class FakeProvider(Provider):
    """Does in notes what an engine does with machines, so that lifecycles can be tested in milliseconds."""

    name: ClassVar[str] = "fake"

    @classmethod
    def capabilities(cls, plan: LabPlan | None = None) -> Capabilities:
        _ = plan  # it can do as much for every plan
        return Capabilities(True, True, True, True, checkpoints=False, console=False, windows=True)

    def up(self, job: Job) -> None:
        private_folder(self.workdir)
        machines = self._read()
        for name, action in job.actions.items():
            if action == "remove" and name in machines:
                del machines[name]
                self.listener(Event("done", "remove", name))
        self._write(machines)
        for name in (name for wave in job.plan.waves for name in wave):
            before = machines.get(name)
            machines[name] = _lifted(job.plan.machine(name), job.actions.get(name, "keep"), before)
            if machines[name] != before:
                self._write(machines)
                self.listener(Event("done", "boot", name, seconds=0.0))

    def down(self, plan: LabPlan, machines: Sequence[str]) -> None:
        machines = [self._machine(plan, name).name for name in machines]
        self._write({name: replace(m, state="stopped") if name in machines else m for name, m in self._read().items()})

    def destroy(self) -> None:
        remove_tree(self.workdir)

    def observe(self, plan: LabPlan) -> Observed:
        machines = self._read()
        statuses = [
            MachineStatus(m.name, machines[m.name].state if m.name in machines else "absent") for m in plan.machines
        ]
        nics = [
            ObservedNic(machine.name, mac, wire)
            for machine in machines.values()
            if machine.state == "running"
            for mac, wire in machine.wires
        ]
        planned = {machine.name for machine in plan.machines}
        return Observed(
            tuple(statuses), tuple(nics), tuple(f"note of {name}" for name in machines if name not in planned)
        )

    def endpoint(self, plan: LabPlan, machine: str) -> Endpoint:
        self._running(plan, machine)
        return Endpoint("127.0.0.1", 22, "root", self.workdir / "id_ed25519", self.workdir / "known_hosts")

    def execute(
        self, plan: LabPlan, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
    ) -> ExecResult:
        """Knows ``hostname``, ``cat`` and ``true``; anything else is a program that is not there."""
        _ = self._running(plan, machine), timeout
        outputs = {"hostname": f"{machine}\n".encode(), "cat": stdin, "true": b""}
        if argv[0] not in outputs:
            raise GuestError(
                f"{machine}: {argv[0]} is not there", hint="The fake provider's guests know only a few programs."
            )
        return ExecResult(0, outputs[argv[0]], b"")

    def kill(self, machine: str) -> None:
        """Let a machine die, as engines' machines do at times."""
        machines = self._read()
        machines[machine] = replace(machines[machine], state="dead")
        self._write(machines)

    def _running(self, plan: LabPlan, name: str) -> FakeMachine:
        found = self._read().get(self._machine(plan, name).name)
        if found is None or found.state != "running":
            raise ProviderError(f"{name} does not run", hint="labctl up starts it; labctl status shows what runs.")
        return found

    @property
    def _notes(self) -> Path:
        return self.workdir / "machines.json"

    def _read(self) -> dict[str, FakeMachine]:
        if not self._notes.exists():
            return {}
        values = json.loads(self._notes.read_text(encoding="utf-8"))
        return {
            v["name"]: FakeMachine(**{**v, "wires": tuple((mac, wire) for mac, wire in v["wires"])}) for v in values
        }

    def _write(self, machines: dict[str, FakeMachine]) -> None:
        write_json(self._notes, [asdict(machine) for machine in machines.values()])


def _lifted(machine: MachinePlan, action: Action, before: FakeMachine | None) -> FakeMachine:
    """The note of a machine after ``up``."""
    wires = ((machine.management_mac, "management"), *((i.mac, i.network) for i in machine.interfaces))
    applied = repr((machine.hosts, machine.users, machine.steps))
    if before is None:
        return FakeMachine(machine.name, "running", 1, 1, wires, applied)
    disk = before.disk + (action == "replace")
    if before.state == "running" and action not in ("replace", "restart"):
        return replace(before, applied=applied)
    return FakeMachine(machine.name, "running", disk, before.boots + 1, wires, applied)
