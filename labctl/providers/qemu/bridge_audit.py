"""Whether bridge wires are as planned, as the kernel reports them: what is on them, who may send what to whom.

Guests cannot show all of it: a copy of each frame that goes elsewhere, an address of the host that nobody asks for, a
port that only a guest's own filter keeps apart. All of it is asked of the kernel, nothing taken from what was set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labctl.host import nftables
from labctl.plan.model import LabPlan
from labctl.providers.qemu import exits
from labctl.providers.qemu.wires import Opening, bridge_of, port_of

_PARTED = "---"
_QUESTIONS = f"""
set -e
ip -json -details address show; echo {_PARTED}
bridge -json -details link show; echo {_PARTED}
bridge -json fdb show; echo {_PARTED}
tc -json qdisc show; echo {_PARTED}
nft --stateless list ruleset; echo {_PARTED}
(cd /proc/sys/net && grep -sHv '^0$' ipv[46]/conf/all/forwarding ipv[46]/conf/*/proxy_* bridge/bridge-nf-call-*) || :
echo {_PARTED}
"""


def questions(plan: LabPlan) -> tuple[str, bytes]:
    """A shell script that prints all that ``Kernel.of`` reads, with its standard input; it changes nothing."""
    ways_out = list(exits.with_exit(plan))
    if not ways_out:
        return _QUESTIONS, b""
    return f"{_QUESTIONS}{nftables.LISTED}\n", exits.filter_rules(ways_out, ()).encode()


# The kernel's own queues only order packets; others can copy or redirect them, as filters on them can.
_PLAIN_QUEUES = frozenset({"noqueue", "noop", "pfifo_fast", "pfifo", "fq_codel", "fq", "mq"})
_PORT_FLAGS = {
    "learning": (False, "it learns addresses, so a guest can take another's"),
    "flood": (False, "it gets unicast that is for others"),
    "locked": (True, "it takes frames that are not from its own address"),
    "hairpin": (False, "it gets its own frames back"),
    "vlan_tunnel": (False, "it is the end of a tunnel"),
}
_FILTER = "bridge labctl"  # before the ways out
_TABLES = {"netdev labctl", _FILTER}  # the first copies for sensors


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the kernel says: links with their addresses, bridge ports, forwarding entries, queues, the packet filter's
    tables by name, parameters that are not 0, and the tables that are planned, as the kernel would show them."""

    links: tuple[Mapping[str, Any], ...]
    ports: tuple[Mapping[str, Any], ...]
    entries: tuple[Mapping[str, Any], ...]
    queues: tuple[Mapping[str, Any], ...]
    tables: Mapping[str, str]
    parameters: tuple[str, ...]
    planned: Mapping[str, str]

    @classmethod
    def of(cls, output: str) -> Kernel:
        """From what the script of ``questions`` printed. Raises ValueError where that is something else."""
        links, ports, entries, queues, rules, parameters, planned = output.split(f"{_PARTED}\n")
        return cls(
            links=tuple(json.loads(links)),
            ports=tuple(json.loads(ports or "[]")),
            entries=tuple(json.loads(entries or "[]")),
            queues=tuple(json.loads(queues or "[]")),
            tables=nftables.tables(rules),
            parameters=tuple(parameters.splitlines()),
            planned=nftables.tables(planned),
        )


def openings(plan: LabPlan, kernel: Kernel) -> tuple[Opening, ...]:
    """Every difference from the plan that lets something through."""
    return tuple(_Audit(plan, kernel).found())


class _Audit:
    def __init__(self, plan: LabPlan, kernel: Kernel) -> None:
        self.plan, self.kernel = plan, kernel
        self.bridges = {bridge_of(network): network for network in plan.networks}
        self.members = {
            port_of(machine.name, interface.device): (f"{interface.device} of {machine.name}", interface)
            for machine in plan.machines
            for interface in machine.interfaces
        }
        self.exits = {exits.port_of_exit(network): network for network in exits.with_exit(plan)}

    def found(self) -> Iterator[Opening]:
        for link in self.kernel.links:
            yield from self._link(link)
        for port in self.kernel.ports:
            yield from self._port(port)
        yield from self._entries()
        yield from self._queues()
        yield from self._tables()
        for line in self.kernel.parameters:
            key, _, value = line.rpartition(":")
            yield "", f"the host's side has {key.replace('/', '.')} = {value}"

    def _network(self, device: str) -> str:
        """The network that a device belongs to, as far as its name says."""
        if device in self.bridges:
            return self.bridges[device].name
        if device in self.members:
            return self.members[device][1].network
        return self.exits[device].name if device in self.exits else ""

    def _name(self, device: str) -> str:
        if device in self.members:
            return self.members[device][0]
        return f"the way out of {self.exits[device].name}" if device in self.exits else device

    def _link(self, link: Mapping[str, Any]) -> Iterator[Opening]:
        name = link["ifname"]
        network = self._network(name)
        if "UP" not in link["flags"]:
            return
        if not (network or link.get("master") in self.bridges):  # a stranger on a bridge is a leftover
            yield network, f"the host's side has a device {name} that is not in the plan"
        for address in link.get("addr_info", ()):
            yield network, f"the host has the address {address.get('local')} on {self._name(name)}"
        if "xdp" in link:
            yield network, f"a program of the host's sees what {self._name(name)} sends"

    def _port(self, port: Mapping[str, Any]) -> Iterator[Opening]:
        name = port["ifname"]
        if name in self.members:
            isolated = self.members[name][1].isolated
        elif name in self.exits:
            isolated = False
        else:
            return  # a stranger's port is a leftover
        network = self._network(name)
        if isolated and not port.get("isolated"):
            yield network, f"the port of {self._name(name)} is not isolated, so it meets peers"
        for flag, (planned, meaning) in _PORT_FLAGS.items():
            if port.get(flag, planned) != planned:
                yield network, f"the port of {self._name(name)} has {flag} {'on' if port[flag] else 'off'}: {meaning}"

    def _entries(self) -> Iterator[Opening]:
        """Forwarding entries: each address leads to the port of its NIC; a port's own address is the bridge's."""
        planned = {(port, interface.mac) for port, (_, interface) in self.members.items()}
        planned |= {(port, mac) for port, network in self.exits.items() for mac in exits.macs(network)}
        own = {link.get("address") for link in self.kernel.links}
        for entry in self.kernel.entries:
            port, mac = entry["ifname"], entry["mac"]
            stray = "master" in entry and (port, mac) not in planned and mac not in own
            if stray and (port in self.members or port in self.exits):
                yield self._network(port), f"frames to {mac} are sent to {self._name(port)}"

    def _queues(self) -> Iterator[Opening]:
        for queue in self.kernel.queues:
            if queue["kind"] not in _PLAIN_QUEUES and (queue.get("root") or queue["kind"] in ("clsact", "ingress")):
                device = queue["dev"]
                what = f"what passes {self._name(device)} goes through a queue of the kind {queue['kind']}"
                yield self._network(device), f"{what}, which can send it elsewhere"

    def _tables(self) -> Iterator[Opening]:
        for name in sorted(self.kernel.tables.keys() - _TABLES):
            yield "", f"the host's side has a packet filter {name} that is not in the plan"
        copies = set(self._copies())
        for port, sensor in sorted(set(copied(self.kernel.tables.get("netdev labctl", ""))) - copies):
            yield self._network(port), f"what {self._name(port)} sends is copied to {self._name(sensor)}"
        yield from self._filter()

    def _filter(self) -> Iterator[Opening]:
        """The filter before the ways out, but for the host's own addresses in it: those change."""
        there, planned = (_rules(tables.get(_FILTER, "")) for tables in (self.kernel.tables, self.kernel.planned))
        for port, network in self.exits.items():
            if not any(f'oifname "{port}"' in rule for rule in there):
                yield network.name, f"nothing filters what goes to the way out of {network.name}"
                return
        for difference in nftables.differences(there, planned):
            yield "", f"the filter before the ways out {difference}"

    def _copies(self) -> Iterator[tuple[str, str]]:
        """Port and sensor, as declared."""
        for port, (_, own) in self.members.items():
            for sensor, (_, interface) in self.members.items():
                if interface.promiscuous and interface.network == own.network and sensor != port:
                    yield port, sensor


def _rules(table: str) -> list[str]:
    """The lines of a table without the set of the host's own addresses."""
    return nftables.lines(re.sub(r"^\tset own \{.*?^\t\}\n", "", table, flags=re.MULTILINE | re.DOTALL))


def copied(table: str) -> Iterator[tuple[str, str]]:
    """Source and target device of each rule of a ``netdev`` table that copies or moves packets."""
    for chain in re.split(r"^\tchain ", table, flags=re.MULTILINE)[1:]:
        for device in re.findall(r'device "([^"]+)"', chain):
            for target in re.findall(r'(?:dup|fwd) to "([^"]+)"', chain):
                yield device, target
