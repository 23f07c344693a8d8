"""The QEMU process of a machine: find it again, let it go on, stop it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from labctl.errors import GuestError, LabctlError, ProviderError
from labctl.host import ports
from labctl.host.processes import ProcessId, marked
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.qemu import record as records
from labctl.providers.qemu import streams, way_in
from labctl.providers.qemu.agent import agent
from labctl.providers.qemu.layout import Layout, MachineFiles
from labctl.providers.qemu.qmp import Monitor, monitor
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.wires import Wires

PORT_TRIES = 8
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
    """Let a machine move that stands still: a copy whose labctl was killed in between, or one that found the disk full.

    Raises ProviderError.
    """
    with monitor(layout.machine(record.name).monitor) as session:
        let_go_on(session)


def let_go_on(session: Monitor) -> None:
    """``go_on`` where somebody speaks with the machine's monitor already."""
    if session.execute("query-status")["status"] in ("paused", "prelaunch", "restore-vm", "io-error"):
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


def idle(layout: Layout, machines: Sequence[MachinePlan]) -> list[MachinePlan]:
    """Those of the machines that do not run."""
    return [machine for machine in machines if find(layout, records.read(layout, machine.name)) is None]


def open_way_in(layout: Layout, plan: LabPlan, record: MachineRecord, session: Monitor) -> MachineRecord:
    """Join a machine's management NIC to the way in again, on another port where its own was taken meanwhile.

    Raises ProviderError.
    """
    if way_in.joined(session):
        return record
    tries = first(record.port, ports.candidates(record.port))
    for _, port in zip(range(PORT_TRIES), tries, strict=False):
        try:
            way_in.join(session, plan.management, port)
        except ProviderError as error:
            if "host forwarding rule" not in error.details:
                raise
            continue
        return records.write(layout, replace(record, port=port))
    raise ProviderError(f"{record.name} cannot be opened: no loopback port is free")


def stop(
    layout: Layout, record: MachineRecord, *, graceful: bool, cancelled: Callable[[], bool] = lambda: False
) -> MachineRecord:
    """Stop a machine: ask its guest, then press its power button, then end its process."""
    process = find(layout, record)
    record = records.write(layout, noted(replace(record, wanted="stopped", booted=""), process))
    files = layout.machine(record.name)
    if process is not None:
        if graceful and not cancelled():
            _shut_down(files, process, cancelled)
        process.stop(grace=5)  # QEMU ends cleanly on SIGTERM: it flushes and closes the disk
    streams.remove(files.agent)
    for path in (files.monitor, files.console, files.pid):
        path.unlink(missing_ok=True)
    return records.write(layout, replace(noted(record, None), base="", filling=False))


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


def noted(record: MachineRecord, process: ProcessId | None) -> MachineRecord:
    """The record with this process in it, or with none."""
    return replace(record, pid=process.pid if process else None, started=process.started if process else None)


def first(port: int, others: Iterator[int]) -> Iterator[int]:
    """A port, then others."""
    yield port
    yield from others
