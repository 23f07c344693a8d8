"""What ``ip``, ``bridge`` and ``nft`` are told so that bridge wires become those of a plan: text only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labctl.plan.model import InterfacePlan, LabPlan, NetworkPlan
from labctl.providers.qemu import exits
from labctl.providers.qemu.wires import bridge_of, port_of

_UNICAST = "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00"


def bridge_commands(networks: Iterable[NetworkPlan], there: set[str]) -> str:
    """Lines for ``ip -batch`` that turn the bridges ``there`` into those of the plan."""
    wanted = {bridge_of(network): network for network in networks}
    lines = [f"link delete dev {name}" for name in sorted(there - set(wanted))]
    for name, network in wanted.items():
        if name not in there:
            # multicast goes to every port, as on a simple switch; the bridge itself takes part in nothing
            lines.append(f"link add name {name} type bridge mcast_snooping 0 stp_state 0")
        lines.append(f"link set dev {name} alias {network.wire} arp off multicast off up")
    return _lines(lines)


def strangers_commands(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> str:
    """Lines for ``ip -batch`` that unplug what is no port of the plan from its bridges."""
    planned = {port_of(machine.name, interface.device) for machine in plan.machines for interface in machine.interfaces}
    planned |= {exits.port_of_exit(network) for network in exits.with_exit(plan)}
    kept = {bridge_of(network) for network in plan.networks}  # with the other bridges their ports come loose
    return _lines(
        [
            f"link set dev {link['ifname']} down nomaster"
            for link in links
            if link.get("master") in kept and link["ifname"] not in planned
        ]
    )


def port_commands(plan: LabPlan, ports: Sequence[tuple[str, InterfacePlan]]) -> tuple[str, str]:
    """Lines for ``ip -batch`` and ``bridge -batch`` that plug new taps in."""
    link, port = [], []
    for name, interface in ports:
        link.append(f"link set dev {name} master {bridge_of(plan.network(interface.network))} up")
        isolated = "on" if interface.isolated else "off"
        # locked: a frame whose source is not this port's own address is dropped
        port.append(f"link set dev {name} learning off flood off locked on isolated {isolated}")
        port.append(f"fdb replace {interface.mac} dev {name} master static")
    return _lines(link), _lines(port)


def mirror_rules(plan: LabPlan, existing: set[str]) -> str:
    """Input of ``nft -f -``: each port's unicast is copied to the sensors of its network, among the taps that exist.

    Broadcast and multicast reach a sensor as they reach everybody, and so does what is addressed to it.
    """
    chains = []
    for network in plan.networks:
        members = [
            (port_of(machine.name, interface.device), interface)
            for machine in plan.machines
            for interface in machine.interfaces
            if interface.network == network.name
        ]
        members = [member for member in members if member[0] in existing]
        for name, own in members:
            copies = [
                f'    ether saddr {own.mac} {_UNICAST} ether daddr != {i.mac} dup to "{sensor}"'
                for sensor, i in members
                if i.promiscuous and sensor != name
            ]
            if copies:
                hook = f'    type filter hook ingress device "{name}" priority 0; policy accept;'
                chains += [f"  chain {name} {{", hook, *copies, "  }"]
    return _lines(["table netdev labctl", "delete table netdev labctl", "table netdev labctl {", *chains, "}"])


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
