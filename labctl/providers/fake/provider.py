"""Machines as notes in ``machines.json``: every verb of a provider, without a single process."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from labctl.errors import GuestError, ProviderError
from labctl.events import Event, Listener, ignore
from labctl.host.files import allocated, private_folder, remove_tree
from labctl.plan.diff import Action
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import (
    MANAGEMENT,
    ONE_MOMENT,
    BootImage,
    Capabilities,
    Endpoint,
    ExecResult,
    Footprint,
    Job,
    MachineStatus,
    Observed,
    ObservedNic,
    Provider,
)
from labctl.providers.fake.checkpoints import FakeCheckpoints
from labctl.providers.fake.freight import FakeFreight
from labctl.providers.fake.notes import FakeMachine, Notes


class FakeProvider(Provider):
    """Does in notes what an engine does with machines, so that lifecycles can be tested in milliseconds."""

    name: ClassVar[str] = "fake"

    def __init__(self, workdir: Path, listener: Listener = ignore) -> None:
        super().__init__(workdir, listener)
        self._notes = Notes(workdir)

    @classmethod
    def capabilities(cls, plan: LabPlan | None = None) -> Capabilities:
        _ = plan  # it can do as much for every plan
        return Capabilities(
            True,
            True,
            True,
            True,
            checkpoints=True,
            console=False,
            windows=True,
            consistency=ONE_MOMENT,
            fresh=True,
            freight=True,
            secrets=True,
        )

    @classmethod
    def footprint(cls, plan: LabPlan, machine: MachinePlan, image: BootImage | None) -> Footprint:
        _ = plan, machine, image  # notes take nothing
        return Footprint(0, 0, processes=0)

    def up(self, job: Job) -> None:
        private_folder(self.workdir)
        machines = self._notes.read()
        for name, action in job.actions.items():
            if action == "remove" and name in machines:
                del machines[name]
                self.listener(Event("done", "remove", name))
        self._notes.write(machines)
        for name in (name for wave in job.plan.waves for name in wave):
            before = machines.get(name)
            machines[name] = _lifted(job.plan.machine(name), job.actions.get(name, "keep"), before)
            if machines[name] != before:
                self._notes.write(machines)
                self.listener(Event("done", "boot", name, seconds=0.0))

    def down(self, plan: LabPlan, machines: Sequence[str]) -> None:
        machines = [self._machine(plan, name).name for name in machines]
        for name in set(machines) & set(self._notes.read()):
            self._notes.change(name, state="stopped")

    def destroy(self) -> None:
        remove_tree(self.workdir)

    def observe(self, plan: LabPlan) -> Observed:
        machines = self._notes.read()
        statuses = [
            MachineStatus(m.name, machines[m.name].state if m.name in machines else "absent") for m in plan.machines
        ]
        nics = [
            ObservedNic(machine.name, mac, wire, linked=not (machine.sealed and wire == MANAGEMENT))
            for machine in machines.values()
            if machine.state in ("running", "paused")
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
        """Knows ``hostname``, ``cat``, ``true`` and the marks of checkpoints; any other program is not there."""
        found = self._running(plan, machine)
        _ = timeout
        if argv[:2] == ["sh", "-c"] and "/run/labctl/checkpoint" in argv[2]:
            self._notes.change(machine, marks=(argv[-1], argv[-1]))
            return ExecResult(0, "\n".join(found.marks).encode() if "cat" in argv[2] else b"", b"")
        if argv[:2] == ["/bin/sh", "-c"]:  # one word and its arguments are all that these guests understand of a shell
            argv = shlex.split(argv[2])
        outputs = {"hostname": f"{machine}\n".encode(), "cat": stdin, "true": b""}
        if argv[0] not in outputs:
            raise GuestError(
                f"{machine}: {argv[0]} is not there", hint="The fake provider's guests know only a few programs."
            )
        return ExecResult(0, outputs[argv[0]], b"")

    def seal(self, plan: LabPlan, machine: str) -> None:
        self._seal(plan, machine, True)

    def unseal(self, plan: LabPlan, machine: str) -> None:
        self._seal(plan, machine, False)

    def checkpoints(self, plan: LabPlan) -> FakeCheckpoints:
        _ = plan
        return FakeCheckpoints(self._notes)

    def freight(self, job: Job) -> FakeFreight:
        return FakeFreight(self._notes, job)

    def disk_use(self) -> int:
        return allocated(self.workdir)

    def kill(self, machine: str) -> None:
        """Let a machine die, as engines' machines do at times."""
        self._notes.change(machine, state="dead")

    def _seal(self, plan: LabPlan, machine: str, sealed: bool) -> None:
        found = self._notes.read().get(self._machine(plan, machine).name)
        if found is None or found.state not in ("running", "paused"):
            raise ProviderError(f"{machine} does not run")
        self._notes.change(machine, sealed=sealed)

    def _running(self, plan: LabPlan, name: str) -> FakeMachine:
        found = self._notes.read().get(self._machine(plan, name).name)
        if found is None or found.state != "running":
            raise ProviderError(f"{name} does not run", hint="labctl up starts it; labctl status shows what runs.")
        return found


def _lifted(machine: MachinePlan, action: Action, before: FakeMachine | None) -> FakeMachine:
    """The note of a machine after ``up``."""
    wires = ((machine.management_mac, MANAGEMENT), *((i.mac, i.network) for i in machine.interfaces))
    applied = repr((machine.hosts, machine.users, machine.steps))
    if before is None:
        return FakeMachine(machine.name, "running", 1, 1, wires, applied)
    disk = before.disk + (action == "replace")
    if before.state == "running" and action not in ("replace", "restart"):
        return replace(before, applied=applied)
    marks = ("", before.marks[1] if action != "replace" else "")
    return FakeMachine(machine.name, "running", disk, before.boots + 1, wires, applied, marks=marks)
