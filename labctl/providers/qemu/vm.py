"""The QEMU process of a machine: start it once, find it again, stop it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from labctl.errors import GuestError, LabctlError, ProviderError
from labctl.host import ports
from labctl.host.files import write_atomic
from labctl.host.processes import ProcessId, marked
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.qemu import record as records
from labctl.providers.qemu import way_in
from labctl.providers.qemu.agent import agent
from labctl.providers.qemu.argv import Ram, Seat, machine_argv
from labctl.providers.qemu.layout import Layout, MachineFiles
from labctl.providers.qemu.qmp import Monitor, monitor
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.template import Template, load
from labctl.providers.qemu.wires import Wires

_START_SECONDS = 15.0
_PORT_TRIES = 8
_AGENT_SECONDS = 2.0
_SHUTDOWN_SECONDS = 30.0
_BUTTON_SECONDS = 8.0


def processes(layout: Layout) -> Iterator[tuple[str, ProcessId]]:
    """Machine name and process of every living QEMU of this instance, found by its arguments."""
    prefix = layout.process_mark("")
    for process, argv in marked(prefix):
        if "-name" in argv[:-1]:
            value = argv[argv.index("-name") + 1]
            if value.startswith(prefix) and value != prefix:
                yield value.removeprefix(prefix), process


def go_on(layout: Layout, record: MachineRecord) -> None:
    """Let a machine move that stands still, such as a copy whose labctl was killed in between. Raises ProviderError."""
    with monitor(layout.machine(record.name).monitor) as session:
        if session.execute("query-status")["status"] in ("paused", "prelaunch", "restore-vm"):
            session.execute("cont")


def find(layout: Layout, record: MachineRecord | None) -> ProcessId | None:
    """The machine's living process, also where labctl was killed before it could note its pid."""
    if record is None:
        return None
    if record.process is not None:
        return record.process if record.process.alive() else None
    if record.wanted != "running":
        return None
    return next((process for name, process in processes(layout) if name == record.name), None)


def start(
    layout: Layout,
    wires: Wires,
    plan: LabPlan,
    machine: MachinePlan,
    record: MachineRecord,
    accelerator: str,
    *,
    runner: Runner,
    still: bool = False,
) -> MachineRecord:
    """Start a machine that does not run. The intent is noted first, the process second.

    still: with an empty memory, for a snapshot to be loaded; it does not move until ``go_on``. Otherwise one whose disk
    is a template's begins as a copy of that, where it works, and its guest has to be told who it is. Raises
    ProviderError with QEMU's own words where it does not start.
    """
    if record.template and not still:
        template = Template(record.template)
        begun = (
            _start(layout, wires, plan, machine, record, accelerator, template, False, runner)
            if template.there()
            else None
        )
        if begun is not None:
            return begun
        # Its disk is that of a guest that lost power, which boots as well.
        record = replace(record, template="")
    begun = _start(layout, wires, plan, machine, replace(record, copied=False), accelerator, None, still, runner)
    if begun is not None:
        return begun
    log = layout.machine(machine.name).log
    raise ProviderError(f"{machine.name} does not start", details=tail(log), hint=f"QEMU's whole log: {log}")


def _start(
    layout: Layout,
    wires: Wires,
    plan: LabPlan,
    machine: MachinePlan,
    record: MachineRecord,
    accelerator: str,
    template: Template | None,
    still: bool,
    runner: Runner,
) -> MachineRecord | None:
    """Start a process on a free port, as a copy of a template or with a boot; None where it does not start."""
    files = layout.machine(machine.name)
    hardware = hardware_digest(plan, machine, wires)
    tries = ports.candidates(int(machine.uuid.replace("-", "")[:8], 16))
    if record.port and ports.is_free(record.port):
        tries = _first(record.port, tries)
    for _, port in zip(range(_PORT_TRIES), tries, strict=False):
        record = records.write(
            layout, replace(record, wanted="running", pid=None, started=None, hardware=hardware, port=port)
        )
        ram = Ram(template.ram, shared=False) if template else None
        process = _spawn(layout, wires, plan, machine, record, accelerator, ram, still, runner)
        begun = _answers(process, files) and (template is None or _loaded(process, files, template))
        found = ProcessId.of(process.pid) if begun else None
        if found is not None:
            return _go(layout, record, found, copied=template is not None)
        if "host forwarding rule" not in tail(files.log):  # else somebody has taken the port meanwhile: the next one
            if template is not None:
                template.drop()
            break
    return None


def open_way_in(layout: Layout, plan: LabPlan, record: MachineRecord) -> MachineRecord:
    """Join a machine's management NIC to the way in again, on another port where its own was taken meanwhile.

    Raises ProviderError.
    """
    with monitor(layout.machine(record.name).monitor) as session:
        if way_in.joined(session):
            return record
        tries = _first(record.port, ports.candidates(record.port))
        for _, port in zip(range(_PORT_TRIES), tries, strict=False):
            try:
                way_in.join(session, plan.management, port)
            except ProviderError as error:
                if "host forwarding rule" not in error.details:
                    raise
                continue
            return records.write(layout, replace(record, port=port))
    raise ProviderError(f"{record.name} cannot be opened: no loopback port is free")


def _go(layout: Layout, record: MachineRecord, process: ProcessId, *, copied: bool) -> MachineRecord:
    """Note a process that was started; a copy moves only now, so that what is noted is never behind what it did."""
    if not copied:
        return records.write(layout, _noted(record, process))
    record = records.write(layout, _noted(replace(record, template="", copied=True), process))
    with monitor(layout.machine(record.name).monitor) as session:
        session.execute("cont")
    return record


def stop(
    layout: Layout, record: MachineRecord, *, graceful: bool, cancelled: Callable[[], bool] = lambda: False
) -> MachineRecord:
    """Stop a machine: ask its guest, then press its power button, then end its process."""
    process = find(layout, record)
    record = records.write(layout, _noted(replace(record, wanted="stopped"), process))
    files = layout.machine(record.name)
    if process is not None:
        if graceful and not cancelled():
            _shut_down(files, process, cancelled)
        process.stop(grace=5)  # QEMU ends cleanly on SIGTERM: it flushes and closes the disk
    for socket in (files.monitor, files.agent, files.console, files.pid):
        socket.unlink(missing_ok=True)
    return records.write(layout, _noted(record, None))


def hardware_digest(plan: LabPlan, machine: MachinePlan, wires: Wires) -> str:
    """Names everything of a machine that cannot change while it runs."""
    nics = [(i.device, i.mac, i.promiscuous, i.isolated, plan.network(i.network).wire) for i in machine.interfaces]
    settings = sorted(machine.settings.get("qemu", {}).items())
    return records.digest_of(
        wires.kind, machine.memory, machine.cpus, machine.management_mac, plan.management, nics, settings
    )


def tail(path: Path, *, lines: int = 8) -> str:
    """The last lines of a log that may not be there."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc", "", text)  # colours and cursor moves of a console
    printable = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return "\n".join(printable.strip().splitlines()[-lines:])


def _spawn(
    layout: Layout,
    wires: Wires,
    plan: LabPlan,
    machine: MachinePlan,
    record: MachineRecord,
    accelerator: str,
    ram: Ram | None,
    still: bool,
    runner: Runner,
) -> subprocess.Popen[bytes]:
    files = layout.machine(machine.name)
    ends = wires.attach(plan, machine)
    try:
        seat = Seat(accelerator, record.port, files, ends.netdevs, layout.process_mark(machine.name), ram, still)
        argv = machine_argv(plan, machine, record.boot_image, seat)
        write_atomic(files.log, b"")  # one log per start: its last words must be about this process
        return runner.spawn(argv, output=files.log, pass_fds=ends.fds)
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


def _shut_down(files: MachineFiles, process: ProcessId, cancelled: Callable[[], bool]) -> None:
    seconds = _SHUTDOWN_SECONDS
    try:
        with agent(files.agent, timeout=_AGENT_SECONDS) as session:
            session.shut_down()
    except GuestError:
        try:
            with monitor(files.monitor, timeout=_AGENT_SECONDS) as button:
                button.execute("system_powerdown")
        except LabctlError:
            return  # nobody to ask: the process is ended
        seconds = _BUTTON_SECONDS
    deadline = time.monotonic() + seconds
    while process.alive() and time.monotonic() < deadline and not cancelled():
        time.sleep(0.05)


def _noted(record: MachineRecord, process: ProcessId | None) -> MachineRecord:
    return replace(record, pid=process.pid if process else None, started=process.started if process else None)


def _first(port: int, others: Iterator[int]) -> Iterator[int]:
    yield port
    yield from others
