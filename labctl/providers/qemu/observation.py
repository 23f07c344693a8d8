"""What is: processes, NICs and wires as QEMU and the kernel report them, never as the plan meant them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from labctl.errors import LabctlError
from labctl.host.processes import ProcessId
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import MANAGEMENT, MachineState, MachineStatus, Observed, ObservedNic, is_management
from labctl.providers.qemu import record as records
from labctl.providers.qemu import vm, way_in
from labctl.providers.qemu.argv import CHANNELS, NAMELESS, devices_of
from labctl.providers.qemu.exits import port_of_exit, with_exit
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.qmp import Monitor, monitor
from labctl.providers.qemu.wires import Wires, port_of

_MONITOR_SECONDS = 3.0
_JOBS = 16
_STATE_OF_STATUS: Mapping[str, MachineState] = {
    "paused": "paused",
    "prelaunch": "paused",
    "inmigrate": "paused",
    "restore-vm": "paused",
    "io-error": "paused",
    "internal-error": "dead",
    "shutdown": "dead",
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What there is to see of one machine. strange: what is open that is not in the plan."""

    status: MachineStatus
    nics: tuple[ObservedNic, ...] = ()
    strange: tuple[str, ...] = ()
    unseen: bool = False


def observe(layout: Layout, wires: Wires, plan: LabPlan) -> Observed:
    """Look at everything of an instance, at all machines at once, as a busy one takes its time; changes nothing."""
    ports = wires.ports(plan)
    with ThreadPoolExecutor(_JOBS, thread_name_prefix="labctl") as pool:
        opened = pool.submit(wires.openings, plan)
        seen = list(pool.map(lambda machine: _machine(layout, plan, machine.name, ports), plan.machines))
    faults = [*_faults(plan, ports)]
    try:
        open_wires = opened.result()
    except LabctlError as error:
        open_wires = ()
        faults.append(f"the wires cannot be looked at: {error.brief}")
    return Observed(
        machines=tuple(one.status for one in seen),
        nics=tuple(nic for one in seen for nic in one.nics),
        leftovers=(*_leftovers(layout, plan), *_strangers(plan, ports)),
        faults=tuple(faults),
        openings=tuple((one.status.name, what) for one in seen for what in one.strange),
        wires=open_wires,
        unseen=tuple((one.status.name, one.status.details) for one in seen if one.unseen),
    )


def _machine(layout: Layout, plan: LabPlan, name: str, ports: Mapping[str, str]) -> _Seen:
    record = records.read(layout, name)
    process = vm.find(layout, record)
    if record is None or process is None:
        return _Seen(_gone(layout, name, record))
    try:
        seen = _running(layout, plan, record, process, ports)
    except LabctlError as error:  # a busy monitor is no dead machine
        details = f"{error.brief}: {error.details}".rstrip(": ")
        return _Seen(MachineStatus(name, "running", process.pid, process.started, details), unseen=True)
    loose = [nic.mac for nic in seen.nics if not (nic.linked or is_management(nic))]
    if loose:  # such a machine cannot be joined again while it runs
        details = f"its wires are gone: {', '.join(loose)}"
        return replace(seen, status=replace(seen.status, state="dead", details=details))
    return seen


def _gone(layout: Layout, name: str, record: records.MachineRecord | None) -> MachineStatus:
    if record is None:
        return MachineStatus(name, "absent")
    if record.wanted == "stopped":
        return MachineStatus(name, "stopped")
    files = layout.machine(name)
    words = vm.tail(files.log) or vm.tail(files.console_log)
    return MachineStatus(
        name, "dead", details=f"its process ended; last words:\n{words}" if words else "its process ended"
    )


def _running(
    layout: Layout, plan: LabPlan, record: records.MachineRecord, process: ProcessId, ports: Mapping[str, str]
) -> _Seen:
    """A machine as its monitor describes it. Raises LabctlError."""
    name = record.name
    with monitor(layout.machine(name).monitor, timeout=_MONITOR_SECONDS) as session:
        status = str(session.execute("query-status")["status"])
        picture = session.human("info network")
        nics = tuple(_nics(name, process, picture, ports))
        strange = (
            *way_in.strange_forwards(session, plan.management, record.port),
            *_strange_channels(session),
            *_strange_devices(session, plan.machine(name)),
            *_strange_ends(picture, plan.machine(name)),
        )
    booted = f"booted: {record.booted}" if record.booted else ""
    details = {"io-error": "the host's disk is full", "running": booted}.get(status, status)
    state = _STATE_OF_STATUS.get(status, "running")
    return _Seen(MachineStatus(name, state, process.pid, process.started, details), nics, strange)


def _strange_channels(session: Monitor) -> Iterator[str]:
    """Character devices that labctl does not give a machine; each forward out of user-mode networking is one."""
    for channel in session.execute("query-chardev"):
        if channel["label"] not in CHANNELS:
            yield f"it has a channel {channel['label']} to {channel['filename']}"


def _strange_devices(session: Monitor, machine: MachinePlan) -> Iterator[str]:
    """Devices that labctl does not give a machine: another NIC, a folder or a socket of the host's."""
    for place, known in (("peripheral", devices_of(machine)), ("peripheral-anon", NAMELESS)):
        for entry in session.execute("qom-list", path=f"/machine/{place}"):
            child = re.fullmatch(r"child<(.*)>", entry["type"])  # anything else is a property of the place
            name = entry["name"] if place == "peripheral" else child and child.group(1)
            if child is not None and name not in known:
                yield f"it has a device {entry['name']} of the kind {child.group(1)}"


def _strange_ends(picture: str, machine: MachinePlan) -> Iterator[str]:
    """NICs and ends of wires that labctl does not give a machine, but those on the hub of the management NIC.

    picture: as in ``_nics``.
    """
    known = {f"{end}-{interface.device}" for interface in machine.interfaces for end in ("nic", "net")}
    on_hub = False
    for line in picture.splitlines():
        if not line.startswith(" "):
            on_hub = line == way_in.HUB_HEADING
        name, _, what = line.removeprefix(" \\ ").partition(": ")
        if what and not on_hub and name not in known | {way_in.BACK_END}:
            yield f"it has an end of a wire {name}: {what}"


def _nics(name: str, process: ProcessId, picture: str, ports: Mapping[str, str]) -> Iterator[ObservedNic]:
    """The NICs that QEMU has, each with the wire that its other end is really plugged into.

    The monitor's picture is ``nic-eth0: …macaddr=…`` followed by `` \\ net-eth0: index=0,type=tap,fd=12``. The
    management NIC is on a hub: `` \\ net-mgmt: nic-mgmt: …macaddr=…`` beside what it is joined to.
    """
    mac = ""
    for line in picture.splitlines():
        if found := re.match(rf" \\ {way_in.NIC_PORT}: \S+: .*macaddr=([0-9a-f:]{{17}})", line):
            yield _management(name, found.group(1), way_in.other_end(picture))
        elif found := re.match(r"nic-\S+: .*macaddr=([0-9a-f:]{17})", line):
            mac = found.group(1)
        elif (end := re.match(r" \\ net-\S+: index=\d+,type=(\w+),(.*)", line)) and mac:
            yield _nic(name, mac, end.group(1), end.group(2), process, ports)
            mac = ""


def _management(name: str, mac: str, other_end: str | None) -> ObservedNic:
    if other_end is None:
        return ObservedNic(name, mac, MANAGEMENT, linked=False, details="cut off")
    closed = re.fullmatch(r"user,\S*restrict=on", other_end) is not None
    return ObservedNic(name, mac, MANAGEMENT if closed else f"{MANAGEMENT} ({other_end})", details=other_end)


def _nic(name: str, mac: str, kind: str, details: str, process: ProcessId, ports: Mapping[str, str]) -> ObservedNic:
    port = _tap(process, details) if kind == "tap" else _socket_port(details)
    wire = ports.get(port, "")
    return ObservedNic(name, mac, wire or f"{kind} {port}".strip(), linked=bool(wire), details=f"{kind} {port}")


def _tap(process: ProcessId, details: str) -> str:
    """The tap behind a descriptor of QEMU's, as the kernel has it."""
    fd = re.search(r"fd=(\d+)", details)
    try:
        text = Path(f"/proc/{process.pid}/fdinfo/{fd.group(1)}").read_text() if fd else ""
    except OSError:
        return ""
    name = re.search(r"^iff:\s*(\S+)", text, re.MULTILINE)
    return name.group(1) if name else ""


def _socket_port(details: str) -> str:
    port = re.search(r"(t[0-9a-f]{12})\.hub", details)
    return port.group(1) if port else ""


def _leftovers(layout: Layout, plan: LabPlan) -> Iterator[str]:
    planned = {machine.name for machine in plan.machines}
    for name, process in vm.processes(layout):
        if name not in planned:
            yield f"process {process.pid} of machine {name}"
    for name in layout.known_machines():
        if name not in planned:
            yield f"files of machine {name}"


def _strangers(plan: LabPlan, ports: Mapping[str, str]) -> Iterator[str]:
    """What is plugged into a wire and belongs to no machine of the plan and to no way out."""
    known = {port_of(machine.name, interface.device) for machine in plan.machines for interface in machine.interfaces}
    known |= {port_of_exit(network) for network in with_exit(plan)}
    yield from (f"port {port} on {wire}" for port, wire in ports.items() if port not in known)


def _faults(plan: LabPlan, ports: Mapping[str, str]) -> Iterator[str]:
    """Ways out that are gone; where no machine has a port there are no wires, and nothing is expected of them."""
    for network in with_exit(plan) if ports else ():
        if ports.get(port_of_exit(network)) != network.name:
            yield f"the way out of {network.name} is gone"
