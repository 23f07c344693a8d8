"""How labctl's SSH gets into a machine: user-mode networking of its own process, closed but for one loopback port.

It hangs on a hub with the management NIC, so that it can be taken away and put back while the machine runs: QEMU can
remove a back end, and cannot give a NIC another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from labctl.plan.model import ManagementPlan
from labctl.providers.qemu.options import option
from labctl.providers.qemu.qmp import Monitor

_HUB, _SSH = 0, 22
HUB_HEADING = f"hub {_HUB}"
"""What the monitor's picture of the network calls the hub of the management NIC."""
BACK_END, _PORT, NIC_PORT = "mgmt", "port-mgmt", "net-mgmt"
# A port with nothing behind it takes every frame. Without it, what a guest sends while it is cut off waits for somebody
# to take it, and QEMU never tries again: the NIC would be mute afterwards.
_SINK = "sink-mgmt"


def netdevs(management: ManagementPlan, port: int) -> tuple[str, ...]:
    """The ``-netdev`` values: the hub's port for the NIC, one for nobody, the back end, and the hub's port for that.

    port: of the host's loopback, forwarded to the guest's SSH; 0 for none. TFTP and SMB stay off because they are not
    named; ``restrict`` closes DNS and everything outward.
    """
    forward = {"hostfwd": _forward(management, port)} if port else {}
    return (
        option("hubport", id=NIC_PORT, hubid=_HUB),
        option("hubport", id=_SINK, hubid=_HUB),
        option("user", id=BACK_END, restrict="on", ipv6="off", **_addresses(management), **forward),
        option("hubport", id=_PORT, hubid=_HUB, netdev=BACK_END),
    )


def cut(session: Monitor) -> None:
    """Take the back end away. Raises ProviderError."""
    if joined(session):
        session.execute("netdev_del", id=_PORT)
    if _there(session):
        session.execute("netdev_del", id=BACK_END)


def join(session: Monitor, management: ManagementPlan, port: int) -> None:
    """Put the back end back. Raises ProviderError, also where somebody else has the port."""
    if joined(session):
        return
    if not _there(session):
        forward = [{"str": _forward(management, port)}]
        values: dict[str, Any] = {"restrict": True, "ipv6": False, **_addresses(management), "hostfwd": forward}
        session.execute("netdev_add", type="user", id=BACK_END, **values)
    session.execute("netdev_add", type="hubport", id=_PORT, hubid=_HUB, netdev=BACK_END)


def joined(session: Monitor) -> bool:
    """Whether anything but the NIC is on the hub."""
    return other_end(session.human("info network")) is not None


def other_end(picture: str) -> str | None:
    """What is on the hub of the management NIC beside it, as the monitor describes it; None where nothing is.

    picture: of ``info network``, ``hub 0`` and then a line `` \\ port-mgmt: mgmt: index=0,type=user,…`` per port.
    """
    hub = re.search(rf"^{HUB_HEADING}\r?\n((?: \\ .*\n?)*)", picture, re.MULTILINE)
    lines = hub.group(1).splitlines() if hub else []
    ports = [line.removeprefix(" \\ ") for line in lines]
    others = [port.partition("type=")[2] for port in ports if not port.startswith(NIC_PORT) and port != _SINK]
    return "; ".join(others) if others else None


def strange_forwards(session: Monitor, management: ManagementPlan, port: int) -> Iterator[str]:
    """Forwards from this host that are not the one to the guest's SSH, for people."""
    planned = ("TCP", "127.0.0.1", str(port), str(management.guest.ip), str(_SSH))
    for forward in forwards(session):
        if forward != planned:
            protocol, address, number, _, target = forward
            where = "every address of this host" if address == "*" else f"this host's {address}"
            yield f"{protocol.lower()} port {number} of {where} leads to its port {target}"


def forwards(session: Monitor) -> Iterator[tuple[str, ...]]:
    """Forwards from this host of any user-mode network: protocol, address and port here, address and port there.

    The monitor's ``info usernet`` has a line ``TCP[HOST_FORWARD] 16 127.0.0.1 22763 10.0.2.15 22 0 0`` for each.
    """
    line = r"(\w+)\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)"
    return (found.groups() for found in re.finditer(line, session.human("info usernet")))


def _there(session: Monitor) -> bool:
    """Whether the back end exists, on the hub or left beside it by a labctl that was killed in between."""
    return re.search(rf"(?:^|: ){BACK_END}: index=", session.human("info network"), re.MULTILINE) is not None


def _addresses(management: ManagementPlan) -> dict[str, str]:
    return {
        "net": str(management.subnet),
        "host": str(management.host),
        "dns": str(management.dns),
        "dhcpstart": str(management.guest.ip),
    }


def _forward(management: ManagementPlan, port: int) -> str:
    return f"tcp:127.0.0.1:{port}-{management.guest.ip}:{_SSH}"
