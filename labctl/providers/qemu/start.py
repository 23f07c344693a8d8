"""Starting a machine's QEMU process: once, on a port of its own, with a boot or as a copy of a template."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, replace

from labctl.errors import ProviderError
from labctl.host import ports
from labctl.host.files import write_atomic
from labctl.host.processes import ProcessId
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.qemu import record as records
from labctl.providers.qemu import streams, vm
from labctl.providers.qemu.argv import Ram, Seat, machine_argv
from labctl.providers.qemu.layout import Layout, MachineFiles
from labctl.providers.qemu.qmp import Monitor, monitor
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.template import Template, load
from labctl.providers.qemu.wires import Wires

_START_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Starter:
    """What the machines of an instance are started with."""

    layout: Layout
    wires: Wires
    plan: LabPlan
    accelerator: str
    runner: Runner

    def start(self, machine: MachinePlan, record: MachineRecord) -> MachineRecord:
        """Start a machine that does not run. The intent is noted first, the process second.

        One whose disk is a template's begins as a copy of that, where it works; its guest has to be told who it is.
        Raises ProviderError with QEMU's own words where it does not start.
        """
        template = Template(record.template) if record.template else None
        if template is not None and template.there():
            begun = self._try(machine, record, template)
            if begun is not None:
                return begun
            template.drop()
        # A copy's disk is that of a guest that lost power, which boots as well.
        return self._booted(machine, replace(record, template="", copied=False))

    def start_still(self, machine: MachinePlan, record: MachineRecord) -> MachineRecord:
        """Start a machine that does not move until ``vm.go_on``, for a snapshot to be loaded. Raises ProviderError."""
        return self._booted(machine, record, still=True)

    def _booted(self, machine: MachinePlan, record: MachineRecord, *, still: bool = False) -> MachineRecord:
        begun = self._try(machine, record, None, still=still)
        if begun is not None:
            return begun
        log = self.layout.machine(machine.name).log
        raise ProviderError(f"{machine.name} does not start", details=vm.tail(log), hint=f"QEMU's whole log: {log}")

    def _try(
        self, machine: MachinePlan, record: MachineRecord, template: Template | None, *, still: bool = False
    ) -> MachineRecord | None:
        """Start a process on a free port; None where it does not start."""
        files = self.layout.machine(machine.name)
        hardware = vm.hardware_digest(self.plan, machine, self.wires)
        tries = ports.candidates(int(machine.uuid.replace("-", "")[:8], 16))
        if record.port and ports.is_free(record.port):
            tries = vm.first(record.port, tries)
        for _, port in zip(range(vm.PORT_TRIES), tries, strict=False):
            intent = replace(record, wanted="running", pid=None, started=None, hardware=hardware, port=port)
            records.write(self.layout, intent)
            process = self._spawn(machine, intent, Ram(template.ram, shared=False) if template else None, still)
            begun = _answers(process, files) and (template is None or _loaded(process, files, template))
            found = ProcessId.of(process.pid) if begun else None
            if found is not None:
                return self._begun(intent, found, copied=template is not None)
            if "host forwarding rule" not in vm.tail(files.log):
                return None
            # Somebody else has taken the port meanwhile: the next one.
        return None

    def _begun(self, record: MachineRecord, process: ProcessId, *, copied: bool) -> MachineRecord:
        """Note a process; a copy moves only then, so that what is noted is never behind what it did."""
        if not copied:
            return records.write(self.layout, vm.noted(record, process))
        record = records.write(self.layout, vm.noted(replace(record, template="", copied=True), process))
        vm.go_on(self.layout, record)
        return record

    def _spawn(
        self, machine: MachinePlan, record: MachineRecord, ram: Ram | None, still: bool
    ) -> subprocess.Popen[bytes]:
        files = self.layout.machine(machine.name)
        ends = self.wires.attach(self.plan, machine)
        try:
            mark = self.layout.process_mark(machine.name)
            seat = Seat(self.accelerator, record.port, files, ends.netdevs, mark, ram, still)
            argv = machine_argv(self.plan, machine, record.boot_image, seat)
            streams.make_pipes(files.agent)
            write_atomic(files.log, b"")  # one log per start: its last words must be about this process
            return self.runner.spawn(argv, output=files.log, pass_fds=ends.fds)
        finally:
            for fd in ends.fds:
                os.close(fd)


def _answers(process: subprocess.Popen[bytes], files: MachineFiles) -> bool:
    """Wait until QEMU has set everything up, which its monitor's answer shows, or has ended."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None:
        try:
            Monitor(files.monitor).close()
        except ProviderError:
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
            time.sleep(0.01)
        else:
            return True
    return False


def _loaded(process: subprocess.Popen[bytes], files: MachineFiles, template: Template) -> bool:
    """Give a process the state of its template; it is ended where it does not take it."""
    try:
        with template.state.open("rb") as state, monitor(files.monitor) as session:
            load(session, state.fileno())
    except (ProviderError, OSError):
        process.kill()
        process.wait()
        return False
    return True
