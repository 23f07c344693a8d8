"""The recipe that brings one machine from whatever it is to running, configured and provisioned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from labctl.errors import ProviderError
from labctl.events import Event, Listener, Status
from labctl.host.runner import Runner
from labctl.plan.diff import Action
from labctl.plan.model import MachinePlan
from labctl.providers.base import BootImage, Job
from labctl.providers.qemu import disks, guest, keys, vm
from labctl.providers.qemu import record as records
from labctl.providers.qemu import template as templates
from labctl.providers.qemu.agent import Agent, agent
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.start import Starter
from labctl.providers.qemu.wires import Wires, port_of
from labctl.providers.workers import Stop

# One Debian guest takes 15 to 25 s under TCG with a core of its own; a crowd on two cores takes its turn.
_BOOT_SECONDS = 300.0
_NO_LOGIN = "no SSH server listens in it; labctl exec and console work"


@dataclass(frozen=True, slots=True)
class Lift:
    """What all machines of one ``up`` share. ``machine`` may run in several threads at once.

    born: machines whose memory comes from elsewhere, with pairs of a MAC that a NIC has there and its own.
    """

    layout: Layout
    wires: Wires
    job: Job
    accelerator: str
    runner: Runner
    listener: Listener
    stop: Stop
    born: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)

    def machine(self, name: str) -> None:
        """Bring one machine up. Every step is noted when it is done, so a repetition goes on where this one ended.

        Raises ProviderError, HostError, GuestError.
        """
        machine, action = self.job.plan.machine(name), self.job.actions.get(name, "keep")
        record = self._disk(machine, action, records.read(self.layout, name))
        record, began = self._process(machine, action, record)
        wanted = self._wanted(machine, action, record)
        if began is None and wanted is None:
            return
        if wanted is not None and record.complete:
            record = records.write(self.layout, replace(record, complete=False))
        with agent(self.layout.machine(name).agent, timeout=_BOOT_SECONDS, alive=self._alive(record)) as session:
            if began is not None:
                self._say("done", "boot", name, seconds=time.monotonic() - began)
            if wanted is not None:
                record = self._configure(session, record, wanted, begun=began is not None)
                record = self._provision(session, record, wanted)
                records.write(self.layout, replace(record, complete=True))

    def _wanted(self, machine: MachinePlan, action: Action, record: MachineRecord) -> guest.Wanted | None:
        """What the guest should have applied, or None where it has all of it."""
        if record.complete and action == "keep":
            return None
        wanted = guest.Wanted.of(self.job, machine, self._access(machine, record))
        return None if record.complete and wanted.applied(record) else wanted

    def _disk(self, machine: MachinePlan, action: Action, record: MachineRecord | None) -> MachineRecord:
        """The machine's disks, made anew where the action says so or where there are none."""
        image = self.job.images.get(machine.name)
        if record is not None and record.disk and self.layout.machine(machine.name).overlay.exists():
            made_from_this = image is not None and record.disk == disks.key(machine, image)
            # a disk of a replace that was interrupted after it was made is not made a second time
            again = action == "replace" and record.complete
            if action not in ("create", "replace") or (made_from_this and not again):
                return record
        if image is None:
            raise ProviderError(f"{machine.name} has no disk and no image to make one from")
        if record is not None:
            vm.stop(self.layout, record, graceful=False)
        template = self._template(machine, image)
        made = disks.create(self.layout, machine, image, template, runner=self.runner)
        failed = template is None and not templates.hindrance(machine, image)
        return replace(made, booted="its template could not be made") if failed else made

    def _template(self, machine: MachinePlan, image: BootImage) -> templates.Template | None:
        """What the machine can be a copy of, made where it is missing."""
        if templates.hindrance(machine, image):
            return None
        plan, found = self.job.plan, templates.of(self.job.plan, machine, image, self.accelerator)
        there = templates.make(
            found, plan, machine, image, self.accelerator, runner=self.runner, listener=self.listener, stop=self.stop
        )
        return found if there else None

    def _process(
        self, machine: MachinePlan, action: Action, record: MachineRecord
    ) -> tuple[MachineRecord, float | None]:
        """The machine's process, on hardware as planned, and since when its guest may be booting, by the steady clock.

        None where it runs and has been brought up before.
        """
        self.stop.check()
        process = vm.find(self.layout, record)
        if process is not None and self._must_restart(machine, action, record):
            record = vm.stop(self.layout, record, graceful=True, cancelled=self.stop)
            process = None
        # a labctl that was killed had not let this copy move yet, or not given it all of its memory
        if process is not None and (record.template or record.filling):
            process.stop(grace=1)
            process = None
        if process is not None and record.process == process and record.complete:
            vm.go_on(self.layout, record)
            return record, None
        began = time.monotonic()
        self._say("started", "boot", machine.name)
        if process is None:
            self.stop.check()
            # Configured again after every boot: whatever root did in there, the machine starts as planned.
            record = replace(record, personality="", complete=False)
            starter = Starter(self.layout, self.wires, self.job.plan, self.accelerator, self.runner, self.listener)
            record = starter.start(machine, record)
        else:
            vm.go_on(self.layout, record)
        if (
            process is not None and record.process != process
        ):  # a labctl that was killed had started it and not noted it yet
            noted = replace(record, wanted="running", pid=process.pid, started=process.started)
            record = records.write(self.layout, noted)
        return record, began

    def _must_restart(self, machine: MachinePlan, action: Action, record: MachineRecord) -> bool:
        if action in ("create", "replace", "restart") and record.hardware != vm.hardware_digest(
            self.job.plan, machine, self.wires
        ):
            return True
        plugged = self.wires.ports(self.job.plan)
        return any(port_of(machine.name, interface.device) not in plugged for interface in machine.interfaces)

    def _access(self, machine: MachinePlan, record: MachineRecord) -> guest.Access:
        files = self.layout.machine(machine.name)
        keys.ensure(files.host_key, comment=machine.name, runner=self.runner)
        return guest.Access(
            record.boot_image.user,
            keys.public(self.layout.key),
            files.host_key.read_text(encoding="utf-8"),
            keys.public(files.host_key),
        )

    def _configure(self, session: Agent, record: MachineRecord, wanted: guest.Wanted, *, begun: bool) -> MachineRecord:
        if record.personality == wanted.personality_digest:
            return record
        self.stop.check()
        began = time.monotonic()
        self._say("started", "configure", record.name)
        log = self.layout.machine(record.name).provision_log
        copy = self._copy(record)
        if not guest.configure(session, record.name, wanted.personality, copy=copy, begun=begun, log=log):
            self._say("warning", "login", record.name, _NO_LOGIN)
        self._say("done", "configure", record.name, seconds=time.monotonic() - began)
        return records.write(self.layout, replace(record, personality=wanted.personality_digest))

    def _copy(self, record: MachineRecord) -> guest.Copy | None:
        """What it is that has its memory from a template, or from another machine."""
        if record.name in self.born:
            return guest.Copy(self.born[record.name])
        if not record.copied:
            return None
        own = keys.public(self.layout.machine(record.name).host_key)
        return guest.Copy(templates.macs(self.job.plan.machine(record.name)), own)

    def _provision(self, session: Agent, record: MachineRecord, wanted: guest.Wanted) -> MachineRecord:
        if record.steps != wanted.steps_digest:
            record = records.write(self.layout, replace(record, steps=wanted.steps_digest, steps_done=0))
        left = wanted.steps[record.steps_done :]
        if not left:
            return record
        began = time.monotonic()
        self._say("started", "provision", record.name)
        for step in left:
            self.stop.check()
            self._say("progress", "provision", record.name, message=step.title)
            guest.run_step(session, record.name, step, log=self.layout.machine(record.name).provision_log)
            record = records.write(self.layout, replace(record, steps_done=record.steps_done + 1))
        self._say("done", "provision", record.name, seconds=time.monotonic() - began)
        return record

    def _alive(self, record: MachineRecord) -> Callable[[], bool]:
        process = record.process

        def alive() -> bool:
            return not self.stop() and process is not None and process.alive()

        return alive

    def _say(self, status: Status, step: str, name: str, message: str = "", seconds: float | None = None) -> None:
        self.listener(Event(status, step, name, message, seconds))
