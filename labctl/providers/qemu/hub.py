"""Wires as hubs: one QEMU without a machine holds a hub per network, joined by datagram sockets in a private folder.

Works for any user on any system that has unix sockets. It floods: everybody hears everybody on a network, so it cannot
hold ``peers: false`` or keep unicast from a NIC that is not promiscuous.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.qemu.bare import Bare
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.options import option
from labctl.providers.qemu.qmp import Monitor, monitor
from labctl.providers.qemu.wires import Abilities, Attachment, Opening, Wires, port_of

# The monitor's words for a port of ours: the hub's end, the socket behind it, of the same name and in our folder.
_PORT_LINE = r"hub-(t[0-9a-f]{12}): \1: "


class HubWires(Wires):
    """One hub per network. A port is a pair of datagram sockets: ours ends in ``.hub``, the machine's in ``.nic``."""

    kind = "hub"
    abilities = Abilities(promiscuous=False, isolated_ports=False, egress=False)

    def __init__(self, layout: Layout, runner: Runner) -> None:
        super().__init__(layout, runner)
        self._lock = threading.Lock()

    def prepare(self, plan: LabPlan) -> None:
        if not self._runs:
            self._hub.start((), self._runner)
        with monitor(self._hub.socket) as session:
            there, wanted = _plugged(session), _planned(plan)
            for port, hub in there.items():
                if wanted.get(port) != hub:
                    session.execute("netdev_del", id=f"hub-{port}")
                    session.execute("netdev_del", id=port)
            for port, hub in wanted.items():
                if there.get(port) != hub:
                    self._plug(session, port, hub)

    def attach(self, plan: LabPlan, machine: MachinePlan) -> Attachment:
        _ = plan  # ports are made for the whole plan at once, in prepare
        return Attachment(
            {
                interface.device: netdev(
                    interface.device, port_of(machine.name, interface.device), self._layout.runtime
                )
                for interface in machine.interfaces
            }
        )

    def ports(self, plan: LabPlan) -> Mapping[str, str]:
        if not self._runs:
            return {}
        names = {hub_of(network.key): network.name for network in plan.networks}
        with monitor(self._hub.socket) as session:
            return {port: names.get(hub, f"hub {hub}") for port, hub in _plugged(session).items()}

    def openings(self, plan: LabPlan) -> tuple[Opening, ...]:
        if not self._runs:
            return ()
        names = {hub_of(network.key): network.name for network in plan.networks}
        with monitor(self._hub.socket) as session:
            strange = [(hub, line) for hub, line in _lines(session) if not re.match(_PORT_LINE, line)]
        return tuple((names.get(hub, f"hub {hub}"), f"a port is not labctl's: {line}") for hub, line in strange)

    def destroy(self) -> None:
        self._hub.stop()

    def leftovers(self) -> tuple[str, ...]:
        return tuple(f"hub process {process.pid}" for process, _ in self._hub.processes())

    @property
    def _hub(self) -> Bare:
        layout = self._layout
        # a machine has a name after the colon
        return Bare(f"{layout.mark}:", layout.runtime / "hub.qmp", layout.workdir / "hub.log")

    @property
    def _runs(self) -> bool:
        return next(self._hub.processes(), None) is not None

    def _plug(self, session: Monitor, port: str, hub: int) -> None:
        ours, theirs = _ends(self._layout.runtime, port)
        session.execute(
            "netdev_add",
            type="dgram",
            id=port,
            local={"type": "unix", "path": str(ours)},
            remote={"type": "unix", "path": str(theirs)},
        )
        session.execute("netdev_add", type="hubport", id=f"hub-{port}", hubid=hub, netdev=port)


def netdev(device: str, port: str, folder: Path) -> str:
    """The ``-netdev`` value of a machine's end of a port."""
    ours, theirs = _ends(folder, port)
    return option(
        "dgram",
        id=f"net-{device}",
        local__type="unix",
        local__path=theirs,
        remote__type="unix",
        remote__path=ours,
    )


def hub_of(key: str) -> int:
    """A network's hub number, from its key: QEMU takes numbers of 31 bits."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:7], 16)


def _ends(folder: Path, port: str) -> tuple[Path, Path]:
    """The hub's socket of a port, and the machine's."""
    return folder / f"{port}.hub", folder / f"{port}.nic"


def _planned(plan: LabPlan) -> dict[str, int]:
    return {
        port_of(machine.name, interface.device): hub_of(plan.network(interface.network).key)
        for machine in plan.machines
        for interface in machine.interfaces
    }


def _plugged(session: Monitor) -> dict[str, int]:
    """Port to hub."""
    ports = ((re.match(_PORT_LINE, line), hub) for hub, line in _lines(session))
    return {port.group(1): hub for port, hub in ports if port}


def _lines(session: Monitor) -> Iterator[tuple[int, str]]:
    """Hub and port, from the monitor's picture: ``hub 7`` followed by lines `` \\ hub-PORT: PORT: …``."""
    hub = -1
    for line in session.human("info network").splitlines():
        if heading := re.match(r"hub (\d+)", line):
            hub = int(heading.group(1))
        elif line.startswith(" \\ ") and hub >= 0:
            yield hub, line.removeprefix(" \\ ")
        else:
            hub = -1
