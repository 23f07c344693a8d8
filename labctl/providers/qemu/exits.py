"""Ways out: QEMU's user-mode networking on a wire of an instance, with the host and what is near it closed.

User-mode networking opens connections as a process of this host, so by itself it would reach the host's loopback (by
any unused address of its subnet), the host's own addresses, its LAN and a cloud's metadata service. What may pass to it
is decided on the bridge before it, where nobody in a guest can change it: public IPv4 addresses and names.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address

import psutil

from labctl.host.processes import ProcessId, marked
from labctl.plan.model import LabPlan, NetworkPlan
from labctl.providers.qemu import way_in
from labctl.providers.qemu.bare import Bare
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.options import option
from labctl.providers.qemu.qmp import monitor

# Special-purpose addresses that are near rather than on the internet (IANA's registry, RFC 6890). Those kept for
# documentation and benchmarks lead nowhere and are left to labs that play the internet with them.
NEAR = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3"),
)
_PREFIX = "x"  # before a network's key: the tap of its way out


def port_of_exit(network: NetworkPlan) -> str:
    """The name of the tap of a network's way out."""
    return f"{_PREFIX}{network.key}"


def with_exit(plan: LabPlan) -> Iterator[NetworkPlan]:
    """The networks that have a way out."""
    return (network for network in plan.networks if network.exit is not None and network.subnet is not None)


def process(layout: Layout, key: str) -> Bare:
    """The process of the way out of the network with this key."""
    return Bare(f"{_mark(layout)}{key}", layout.runtime / f"exit-{key}.qmp", layout.workdir / f"exit-{key}.log")


def processes(layout: Layout) -> Iterator[tuple[str, ProcessId, tuple[str, ...]]]:
    """Network key, process and arguments of every living way out of this instance."""
    for found, argv in marked(_mark(layout)):
        name = argv[argv.index("-name") + 1] if "-name" in argv[:-1] else ""
        if name.startswith(_mark(layout)):
            yield name.removeprefix(_mark(layout)), found, argv


def _mark(layout: Layout) -> str:
    return f"{layout.mark}+exit-"


def arguments(network: NetworkPlan, fd: int) -> tuple[str, ...]:
    """What the process is told: user-mode networking and the tap ``fd``, joined. No IPv6, TFTP, SMB or forward."""
    names = {"dns": network.resolver} if network.resolver is not None else {}
    user = option("user", id="way", net=network.subnet, host=network.exit, restrict="off", ipv6="off", **names)
    return (
        *("-netdev", user),
        *("-netdev", option("tap", id="wire", fd=fd, vhost="off")),
        *("-netdev", option("hubport", id="inner", hubid=1, netdev="way")),
        *("-netdev", option("hubport", id="outer", hubid=1, netdev="wire")),
    )


def same(argv: Sequence[str], network: NetworkPlan) -> bool:
    """Whether a process was started for this network as it is now, whatever its descriptor's number."""
    return arguments(network, 0)[1] in argv


def openings(layout: Layout, plan: LabPlan) -> Iterator[tuple[str, str]]:
    """Network and, for people, what leads from this host into it by its way out. Raises ProviderError."""
    for network in with_exit(plan):
        way = process(layout, network.key)
        if next(way.processes(), None) is not None:
            with monitor(way.socket) as session:
                for protocol, address, port, there, target in way_in.forwards(session):
                    here = f"{protocol.lower()} port {port} of this host's {address}"
                    yield network.name, f"{here} leads to {there} port {target} by the way out of {network.name}"


def macs(network: NetworkPlan) -> Iterator[str]:
    """The MAC addresses that user-mode networking answers with: 52:55 and the IPv4 address."""
    for address in (network.exit, network.resolver):
        if address is not None:
            yield ":".join(f"{byte:02x}" for byte in b"\x52\x55" + address.packed)


def port_commands(network: NetworkPlan, bridge: str) -> tuple[str, str]:
    """Lines for ``ip -batch`` and ``bridge -batch`` that plug the tap in; ``peers: false`` members may reach it."""
    name = port_of_exit(network)
    port = [f"link set dev {name} learning off flood off locked on isolated off"]
    port += [f"fdb replace {mac} dev {name} master static" for mac in macs(network)]
    return f"link set dev {name} master {bridge} up\n", "".join(f"{line}\n" for line in port)


def filter_rules(networks: Iterable[NetworkPlan], own: Iterable[IPv4Address]) -> str:
    """Input of ``nft -f -``: what bridges let through to the ways out. own: the addresses of this host."""
    closed = ", ".join(NEAR)
    mine = ", ".join(sorted(str(address) for address in set(own)))
    lines = ["table bridge labctl", "delete table bridge labctl", "table bridge labctl {"]
    lines += ["  set near {", "    type ipv4_addr; flags interval;", f"    elements = {{ {closed} }}", "  }"]
    lines += ["  set own {", "    type ipv4_addr;", *([f"    elements = {{ {mine} }}"] if mine else []), "  }"]
    lines += ["  chain out {", "    type filter hook forward priority 0; policy accept;"]
    for network in networks:
        lines += [f"    {rule}" for rule in _rules(network)]
    return "\n".join([*lines, "  }", "}", ""])


def _rules(network: NetworkPlan) -> Iterator[str]:
    to = f'oifname "{port_of_exit(network)}"'
    yield f"{to} ether type arp accept"
    yield f"{to} ether type != ip drop"
    if network.resolver is not None:
        for protocol in ("udp", "tcp"):
            yield f"{to} ip daddr {network.resolver} {protocol} dport 53 accept"
    # an address of its own subnet that nobody has means the host's loopback to user-mode networking
    yield f"{to} ip daddr {network.subnet} drop"
    yield f"{to} ip daddr @near drop"
    yield f"{to} ip daddr @own drop"


def host_addresses() -> set[IPv4Address]:
    """Every IPv4 address that this host has now."""
    return {
        IPv4Address(entry.address)
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    }
