"""Starting a machine's QEMU process: once, on a port of its own, with a boot or as a copy of a template."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from labctl.errors import ProviderError
from labctl.events import Event, Listener
from labctl.host import ports
from labctl.host.files import write_atomic
from labctl.host.processes import ProcessId
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.qemu import bases, streams, vm
from labctl.providers.qemu import record as records
from labctl.providers.qemu import template as templates
from labctl.providers.qemu.argv import Ram, Seat, machine_argv
from labctl.providers.qemu.layout import Layout, MachineFiles
from labctl.providers.qemu.qmp import Monitor, RefusedError
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.template import Base, Template
from labctl.providers.qemu.wires import Wires

_START_SECONDS = 15.0
_COPY_TRIES = 2
_END_SECONDS = 1.0
Fill = Callable[[Monitor, ProcessId], None]
"""Gives a machine that has not moved its memory and the state of its devices. Raises ProviderError."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a process did not begin. refused: QEMU itself did not want to, so it will not another time."""

    why: str
    refused: bool
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Starter:
    """What the machines of an instance are started with."""

    layout: Layout
    wires: Wires
    plan: LabPlan
    accelerator: str
    runner: Runner
    listener: Listener

    def start(self, machine: MachinePlan, record: MachineRecord) -> MachineRecord:
        """Start a machine that does not run. The intent is noted first, the process second.

        One whose disk is a template's begins as a copy of that, where it works; its guest has to be told who it is.
        Raises ProviderError with QEMU's own words where it does not start.
        """
        why = templates.hindrance(machine, record.boot_image) or record.booted
        if record.template:
            begun = self._copied(machine, record, Template(record.template))
            if begun is not None:
                return begun
            why = "its template could not be loaded"
        # A copy's disk is that of a guest that lost power, which boots as well.
        return self._booted(machine, replace(record, template="", copied=False, booted=why))

    def start_still(self, machine: MachinePlan, record: MachineRecord) -> MachineRecord:
        """Start a machine that does not move until ``vm.go_on``, for a snapshot to be loaded. Raises ProviderError."""
        return self._booted(machine, record, still=True)

    def start_filled(self, machine: MachinePlan, record: MachineRecord, base: Base, fill: Fill) -> MachineRecord:
        """Start a machine that has its memory from ``base`` and stands still with what ``fill`` makes of that.

        Raises ProviderError.
        """
        begun = self._try(machine, record, base, still=True, fill=fill)
        if isinstance(begun, MachineRecord):
            return begun
        if isinstance(begun.error, ProviderError):
            raise ProviderError(
                f"{machine.name}: {begun.error.brief}", details=begun.error.details or begun.why
            ) from begun.error
        raise ProviderError(f"{machine.name} does not start", details=begun.why) from begun.error

    def _copied(self, machine: MachinePlan, record: MachineRecord, template: Template) -> MachineRecord | None:
        """Begin as a copy, or None, of which ``listener`` is told.

        A busy host takes longer than anybody waits, so that is tried again, and says nothing about the template. One
        that QEMU does not take would stop every machine that comes after, so that goes.
        """
        failure = _Failure("the template is gone", refused=False)
        for tries in range(_COPY_TRIES):
            if not template.there():  # another machine has dropped it, and a third one may be making it anew
                break
            try:
                base = bases.keep(self.layout, template)
            except FileNotFoundError:
                break
            begun = self._try(machine, record, base)
            if isinstance(begun, MachineRecord):
                return begun
            failure = begun
            if failure.refused and tries == _COPY_TRIES - 1:
                template.drop()
        self.listener(Event("warning", "template", machine.name, f"{failure.why}; it boots instead"))
        return None

    def _booted(self, machine: MachinePlan, record: MachineRecord, *, still: bool = False) -> MachineRecord:
        begun = self._try(machine, record, None, still=still)
        if isinstance(begun, MachineRecord):
            return begun
        log = self.layout.machine(machine.name).log
        details = vm.tail(log) or begun.why
        raise ProviderError(f"{machine.name} does not start", details=details, hint=f"QEMU's whole log: {log}")

    def _try(
        self,
        machine: MachinePlan,
        record: MachineRecord,
        base: Base | None,
        *,
        still: bool = False,
        fill: Fill | None = None,
    ) -> MachineRecord | _Failure:
        """Start a process on a free port."""
        files = self.layout.machine(machine.name)
        hardware = vm.hardware_digest(self.plan, machine, self.wires)
        tries = ports.candidates(int(machine.uuid.replace("-", "")[:8], 16))
        if record.port and ports.is_free(record.port):
            tries = vm.first(record.port, tries)
        for _, port in zip(range(vm.PORT_TRIES), tries, strict=False):
            intent = replace(record, wanted="running", pid=None, started=None, hardware=hardware, port=port)
            intent = replace(intent, base=base.key if base else "", filling=fill is not None)
            records.write(self.layout, intent)
            process = self._spawn(machine, intent, Ram(base.ram, shared=False) if base else None, still)
            try:
                return self._begun(intent, process, files, base, fill)
            except (ProviderError, OSError) as error:
                refused = _ended(process) or isinstance(error, RefusedError)
                if "host forwarding rule" not in vm.tail(files.log):
                    return _Failure(_words(files, error), refused, error)
            # Somebody else has taken the port meanwhile: the next one.
        return _Failure("no loopback port is free", refused=False)

    def _begun(
        self,
        record: MachineRecord,
        process: subprocess.Popen[bytes],
        files: MachineFiles,
        base: Base | None,
        fill: Fill | None,
    ) -> MachineRecord:
        """Note a process that serves; a copy moves only then, so that what is noted is never behind what it did.

        Raises ProviderError, OSError.
        """
        with served(process, files) as session:
            found = ProcessId.of(process.pid)
            if found is None:
                raise ProviderError("the process ended")
            if fill is not None:
                fill(session, found)
            elif base is not None:
                with base.state.open("rb") as state:
                    templates.load(session, state.fileno())
            if base is None or fill is not None:
                return records.write(self.layout, vm.noted(replace(record, filling=False), found))
            copy = replace(record, template="", copied=True, booted="")
            copy = records.write(self.layout, vm.noted(copy, found))
            vm.let_go_on(session)
            return copy

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
            # one log per start: its last words must be about this process
            write_atomic(files.log, b"", durable=False)
            return self.runner.spawn(argv, output=files.log, pass_fds=ends.fds)
        finally:
            for fd in ends.fds:
                os.close(fd)


@contextlib.contextmanager
def served(process: subprocess.Popen[bytes], files: MachineFiles) -> Iterator[Monitor]:
    """A session with a QEMU that has set everything up, which its answer shows. Raises ProviderError."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            session = Monitor(files.monitor)
        except ProviderError:
            if process.poll() is not None:
                raise
            if time.monotonic() > deadline:
                raise ProviderError(f"QEMU does not answer within {_START_SECONDS:g} s") from None
            time.sleep(0.01)
        else:
            break
    try:
        yield session
    finally:
        session.close()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """End a process that is of no use; whether it has ended by itself, and nobody has killed it."""
    try:
        code = process.wait(_END_SECONDS)  # its monitor hangs up a moment earlier
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    return code > 0


def _words(files: MachineFiles, error: Exception) -> str:
    """What went wrong, for people: QEMU's last line where it has said something."""
    said = vm.tail(files.log, lines=1)
    return said or ": ".join(filter(None, (str(error), getattr(error, "details", ""))))
