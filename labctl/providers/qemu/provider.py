"""The embedded QEMU engine: one process per machine that outlives labctl, wires without the host on them."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from labctl.errors import GuestError, HostError, LabctlError, ProviderError
from labctl.events import Event, Listener, ignore
from labctl.host.files import allocated, private_folder, remove_tree, write_atomic
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.agent import RefusedError
from labctl.providers.base import (
    ONE_MOMENT,
    BootImage,
    Capabilities,
    Endpoint,
    ExecResult,
    Footprint,
    Job,
    Observed,
    Provider,
    SealedError,
)
from labctl.providers.qemu import bases, disks, keys, vm, way_in, wires
from labctl.providers.qemu import record as records
from labctl.providers.qemu import template as templates
from labctl.providers.qemu.accelerator import accelerator
from labctl.providers.qemu.agent import Agent, agent
from labctl.providers.qemu.checkpoints import QemuCheckpoints, bases_in_use
from labctl.providers.qemu.freight import QemuFreight
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.lift import Lift
from labctl.providers.qemu.observation import observe
from labctl.providers.qemu.qmp import monitor
from labctl.providers.qemu.start import Starter
from labctl.providers.qemu.wires import Wires
from labctl.providers.workers import Stop, each, in_waves, raise_failures

# What a copy of a template has for itself once it is configured and probed; the rest it shares with others. Measured
# under TCG with Debian 12 guests of 256 MiB: 67 to 90 MiB. A boot fills all of it, and so does the restore of a
# checkpoint that has the memory within the disk.
_COPY_MEMORY = 112 << 20
_STOP_JOBS = 16
# That a guest's agent may take to begin to answer. A starved guest needs long, and whoever turns to SSH too early
# starves it more: the handshake costs an emulated guest seconds.
_AGENT_SECONDS = 45.0


class QemuProvider(Provider):
    """Runs a plan as QEMU processes. Needs no root, no daemon and no kernel module."""

    name: ClassVar[str] = "qemu"

    def __init__(self, workdir: Path, listener: Listener = ignore) -> None:
        lock = threading.Lock()

        def serial(event: Event) -> None:
            with lock:  # machines are worked on in parallel; whoever listens need not know
                listener(event)

        super().__init__(workdir, serial)
        self._layout = Layout.of(workdir)

    @classmethod
    def capabilities(cls, plan: LabPlan | None = None) -> Capabilities:
        can = wires.abilities(wires.choose(plan))
        return Capabilities(
            promiscuous=can.promiscuous,
            isolated_ports=can.isolated_ports,
            egress=can.egress,
            seal=True,
            checkpoints=True,
            console=True,
            windows=False,
            consistency=ONE_MOMENT,
            fresh=True,
            freight=True,
            secrets=True,
        )

    @classmethod
    def footprint(cls, plan: LabPlan, machine: MachinePlan, image: BootImage | None) -> Footprint:
        whole = super().footprint(plan, machine, image)
        if image is None or templates.hindrance(machine, image) or whole.memory <= _COPY_MEMORY:
            return whole
        # machines with the same template have all of this in common
        shape = f"{image.digest} {machine.memory} {machine.cpus} {len(machine.interfaces)}"
        return replace(whole, memory=_COPY_MEMORY, shared=shape, shared_memory=machine.memory)

    def up(self, job: Job) -> None:
        stop = Stop()
        self._settle_in(job.plan)
        self._remove([name for name, action in job.actions.items() if action == "remove"])
        bases.tidy(self._layout, bases_in_use(self._layout))
        lift = self._lift(job, stop)
        lift.wires.prepare(job.plan)
        with lift.wires.starting(vm.idle(self._layout, job.plan.machines)):
            failures = in_waves(job.plan, lift.machine, jobs=job.jobs, stop=stop, listener=self.listener)
        raise_failures(failures, len(job.plan.machines))

    def down(self, plan: LabPlan, machines: Sequence[str]) -> None:
        stop = Stop()
        failures: dict[str, LabctlError] = {}
        for wave in reversed(plan.waves):
            names = [name for name in wave if name in set(machines)]
            failures |= each(names, lambda name: self._stop(name, stop), jobs=_STOP_JOBS, stop=stop)
        if not any(True for _ in vm.processes(self._layout)):
            for kind in ("bridge", "hub"):
                self._wires(kind).destroy()
        raise_failures(failures, len(machines))

    def destroy(self) -> None:
        layout = self._layout
        stop = Stop()
        found = list(vm.processes(layout))
        by_name = {f"{name} {process.pid}": process for name, process in found}
        each(list(by_name), lambda key: by_name[key].stop(grace=3), jobs=_STOP_JOBS, stop=stop)
        for kind in ("bridge", "hub"):
            self._wires(kind).destroy()
        remove_tree(layout.runtime)
        remove_tree(layout.workdir)

    def observe(self, plan: LabPlan) -> Observed:
        return observe(self._layout, self._wires(self._noted_kind() or wires.choose(plan)), plan)

    def endpoint(self, plan: LabPlan, machine: str) -> Endpoint:
        record = self._running(plan, machine)
        files = self._layout.machine(machine)
        with monitor(files.monitor) as session:
            if not way_in.joined(session):
                raise SealedError(f"{machine} is sealed", hint="labctl exec works; labctl unseal opens the lab.")
        if not (self._layout.key.exists() and keys.there(files.host_key)):
            raise ProviderError(f"{machine} is not configured yet", hint="labctl up goes on where it was interrupted.")
        keys.pin(files.known_hosts, "127.0.0.1", record.port, files.host_key)
        return Endpoint("127.0.0.1", record.port, record.boot_image.user, self._layout.key, files.known_hosts)

    def execute(
        self, plan: LabPlan, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
    ) -> ExecResult:
        with self._speaking(plan, machine, timeout) as session:
            return session.execute(argv, stdin=stdin, timeout=timeout)

    def ask(
        self, plan: LabPlan, machine: str, door: str, question: bytes, *, takes: float = 0, timeout: float
    ) -> bytes | None:
        with self._speaking(plan, machine, timeout) as session:
            return session.ask(door, question, takes=takes, timeout=timeout)

    def write_over(self, plan: LabPlan, machine: str, files: Mapping[str, bytes]) -> bool:
        with self._speaking(plan, machine, _AGENT_SECONDS) as session:
            try:
                for path, content in files.items():
                    session.write_over(path, content)
            except RefusedError:
                return False
        return True

    def seal(self, plan: LabPlan, machine: str) -> None:
        self._running(plan, machine)
        with monitor(self._layout.machine(machine).monitor) as session:
            way_in.cut(session)
            if way_in.joined(session):
                raise ProviderError(f"{machine} is not cut off from its management NIC")

    def unseal(self, plan: LabPlan, machine: str) -> None:
        record = self._running(plan, machine)
        with monitor(self._layout.machine(machine).monitor) as session:
            vm.open_way_in(self._layout, plan, record, session)

    def disk_use(self) -> int:
        return allocated(self._layout.workdir) - bases.borrowed(self._layout)

    def uses(self) -> frozenset[Path]:
        folders = self._layout.machines.glob("*/") if self._layout.machines.exists() else ()
        found = [records.read(self._layout, folder.name) for folder in folders]
        images = [record.boot_image for record in found if record is not None]
        return frozenset(path for one in images for path in (one.disk, one.kernel, one.initrd) if path is not None)

    def checkpoints(self, plan: LabPlan) -> QemuCheckpoints:
        kind = self._kind(plan)

        def prepare() -> None:
            self._layout.prepare()
            self._wires(kind).prepare(plan)

        def starter(record: records.MachineRecord) -> Starter:
            name = accelerator(record.boot_image.kernel).name
            return Starter(self._layout, self._wires(kind), plan, name, self._runner, self.listener)

        return QemuCheckpoints(self._layout, plan, self._runner, prepare=prepare, starter=starter)

    def freight(self, job: Job) -> QemuFreight:
        def lift(stop: Stop) -> Lift:
            self._settle_in(job.plan)
            return self._lift(job, stop)

        accelerator = functools.cache(lambda: self._accelerator(job))
        return QemuFreight(
            self._layout,
            job,
            self._runner,
            wires=lambda: self._wires(self._noted_kind() or self._kind(job.plan)),
            accelerator=accelerator,
            lift=lift,
        )

    def console(self, plan: LabPlan, machine: str) -> Path | None:
        self._running(plan, machine)
        return self._layout.machine(machine).console

    def logs(self, plan: LabPlan, machine: str) -> tuple[Path, ...]:
        files = self._layout.machine(self._machine(plan, machine).name)
        return tuple(path for path in (files.provision_log, files.console_log, files.log) if path.exists())

    @cached_property
    def _runner(self) -> Runner:
        private_folder(self._layout.workdir)
        return Runner(log=self._layout.commands_log)

    @property
    def _kind_note(self) -> Path:
        return self._layout.workdir / "wires.kind"

    def _noted_kind(self) -> wires.Kind | None:
        """The kind of wires that the instance has now."""
        found = self._kind_note.read_text(encoding="utf-8").strip() if self._kind_note.exists() else ""
        return "bridge" if found == "bridge" else "hub" if found == "hub" else None

    def _kind(self, plan: LabPlan) -> wires.Kind:
        """The kind of wires to use. Raises HostError where machines run on the other kind."""
        chosen, noted = wires.choose(plan), self._noted_kind()
        if noted not in (None, chosen) and any(True for _ in vm.processes(self._layout)):
            raise HostError(
                f"this lab runs on {noted} wires and now needs {chosen} wires",
                hint="labctl down, then labctl up, changes them.",
            )
        return chosen

    def _settle_in(self, plan: LabPlan) -> None:
        """Make what machines of a plan need before the first of them is made. Raises HostError."""
        kind = self._kind(plan)
        self._check(plan, kind)
        self._layout.prepare()
        write_atomic(self._kind_note, f"{kind}\n")
        disks.check_room(self._layout)
        keys.ensure(self._layout.key, comment=f"labctl {plan.lab}/{plan.instance}", runner=self._runner)

    def _lift(self, job: Job, stop: Stop) -> Lift:
        plant, accelerator = self._wires(self._kind(job.plan)), self._accelerator(job)
        return Lift(self._layout, plant, job, accelerator, self._runner, self.listener, stop)

    def _wires(self, kind: wires.Kind) -> Wires:
        return wires.make(kind, self._layout, self._runner if self._layout.workdir.exists() else Runner())

    def _accelerator(self, job: Job) -> str:
        kernel = next((image.kernel for image in job.images.values() if image.kernel), None)
        chosen = accelerator(kernel)
        self.listener(Event("progress", "accelerator", message=chosen.reason))
        return chosen.name

    def image_digests(self, plan: LabPlan) -> Mapping[str, str]:
        known = {machine.name: records.read(self._layout, machine.name) for machine in plan.machines}
        return {name: record.boot_image.digest for name, record in known.items() if record is not None and record.disk}

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            if (record := records.read(self._layout, name)) is not None:
                vm.stop(self._layout, record, graceful=False)
            remove_tree(self._layout.machine(name).folder)
            self.listener(Event("done", "remove", name))

    def _stop(self, name: str, stop: Stop) -> None:
        record = records.read(self._layout, name)
        if record is None:
            return
        self.listener(Event("started", "down", name))
        vm.stop(self._layout, record, graceful=True, cancelled=stop)
        self.listener(Event("done", "down", name))

    @contextlib.contextmanager
    def _speaking(self, plan: LabPlan, machine: str, timeout: float) -> Iterator[Agent]:
        """A session with a guest's agent; whoever has one now may take as long as this one."""
        self._running(plan, machine)
        try:
            path = self._layout.machine(machine).agent
            with agent(path, timeout=min(timeout, _AGENT_SECONDS), turn=timeout) as session:
                yield session
        except GuestError as error:
            raise type(error)(f"{machine}: {error.brief}", details=error.details, hint=error.hint) from error

    def _running(self, plan: LabPlan, name: str) -> records.MachineRecord:
        record = records.read(self._layout, self._machine(plan, name).name)
        if record is None or vm.find(self._layout, record) is None:
            raise ProviderError(f"{name} does not run", hint="labctl up starts it; labctl status shows what runs.")
        return record

    def _check(self, plan: LabPlan, kind: wires.Kind) -> None:
        """Refuse what these wires cannot hold, whatever the caller has checked. Raises HostError."""
        can = wires.abilities(kind)
        refused = list(_beyond(plan, can))
        if refused:
            raise HostError(
                f"{kind} wires cannot hold {', '.join(refused)}",
                hint="Nothing was created. "
                + ("`wires: bridge` can hold more, on Linux." if kind == "hub" else "Leave it out of the spec."),
            )


def _beyond(plan: LabPlan, can: wires.Abilities) -> Iterator[str]:
    if not can.promiscuous and any(_promiscuous(machine) for machine in plan.machines):
        yield "a promiscuous interface"
    if not can.isolated_ports and any(not network.peers for network in plan.networks):
        yield "`peers: false`"
    if not can.egress and any(network.egress != "none" for network in plan.networks):
        yield "`egress: nat`"


def _promiscuous(machine: MachinePlan) -> bool:
    return any(interface.promiscuous for interface in machine.interfaces)
