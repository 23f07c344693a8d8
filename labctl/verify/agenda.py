"""What to ask whom: the plan's flows made concrete, and what it takes to believe the answers. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple

from labctl.errors import UsageError
from labctl.plan.flows import TFTP_PORT
from labctl.plan.model import Flow, FlowProtocol, LabPlan, MachinePlan

MARK = "labctl-probe-"  # before the nonce, as the program in the guest looks for it
DNS_PORT = 53
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


class Door(NamedTuple):
    """An address and port (0 for icmp) of a machine, or of ``host``."""

    owner: str
    family: Literal[4, 6]
    protocol: FlowProtocol
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Probe:
    """One question of one guest. device is ``""`` where it asks an address of its own. nonce: 16 hexadecimal digits.

    patient: an answer is expected, so a slow one is waited for.
    """

    id: int
    source: str
    device: str
    door: Door
    nonce: str
    patient: bool

    def task(self, speaks: bool) -> tuple[Any, ...]:
        """What the program in the guest wants to know. speaks: a listener of ours is there, which answers a nonce."""
        door, text = self.door, ""
        if door.protocol == "udp":
            questions = {} if speaks else {DNS_PORT: _dns_question, TFTP_PORT: _tftp_question}
            text = questions.get(door.port, MARK.__add__)(self.nonce)
        elif door.protocol == "tcp" and speaks:
            text = MARK + self.nonce
        return self.id, self.device, door.family, door.protocol, door.address, door.port, text, self.patient


@dataclass(frozen=True, slots=True)
class Cell:
    """A planned flow and its probe; the flow's address and port are concrete."""

    flow: Flow
    probe: Probe

    @property
    def door(self) -> Door:
        """Where the probe goes."""
        return self.probe.door


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the verifier knows and the plan cannot: addresses of the host to try, ports free to use, addresses outside.

    canary is the port of the canaries on the host, own the port of the listener that each machine has for itself.
    """

    addresses: tuple[str, ...]
    canary: int
    own: int
    outside: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Agenda:
    """Everything to be asked. own: probes of machines to their own doors. listeners: what to open in which machine."""

    cells: tuple[Cell, ...]
    own: Mapping[Door, Probe]
    listeners: Mapping[str, tuple[Door, ...]]

    def probes(self, machine: str) -> tuple[Probe, ...]:
        """The batch of one machine."""
        mine = [cell.probe for cell in self.cells if cell.flow.source == machine]
        return (*mine, *(probe for probe in self.own.values() if probe.source == machine))


def agenda(plan: LabPlan, around: Surroundings, nonce: Callable[[], str]) -> Agenda:
    """Make every flow of the plan concrete. ``nonce`` gives 16 new hexadecimal digits at each call."""
    planned = (*plan.flows, *_outward(plan, around))
    flows = dict.fromkeys(concrete for flow in planned for concrete in _concrete(plan, flow, around))
    cells = tuple(
        Cell(flow, Probe(number, flow.source, flow.source_device, _door(flow), nonce(), flow.expected == "pass"))
        for number, flow in enumerate(flows)
    )
    doors = dict.fromkeys(door for flow in flows for door in _needed(plan, flow, around))
    own = {door: Probe(len(cells) + number, door.owner, "", door, nonce(), True) for number, door in enumerate(doors)}
    wanted: dict[str, dict[Door, None]] = defaultdict(dict)
    machines = {machine.name: machine for machine in plan.machines}
    for door in (*doors, *(cell.door for cell in cells)):
        if door.owner in machines and door.protocol != "icmp" and not declared(machines[door.owner], door):
            wanted[door.owner][door] = None
    return Agenda(cells, own, {name: tuple(doors) for name, doors in wanted.items()})


def own_door(machine: MachinePlan, flow: Flow, port: int) -> Door:
    """Where the source of a flow can always ask itself: its address on the flow's NIC, else another, else loopback."""
    ranked = sorted(machine.interfaces, key=lambda interface: interface.device != flow.source_device)
    addresses = [a for interface in ranked for a in interface.addresses() if a.version == flow.family]
    address = str(addresses[0]) if addresses else LOOPBACK[flow.family]
    return Door(machine.name, flow.family, flow.protocol, address, 0 if flow.protocol == "icmp" else port)


def declared(machine: MachinePlan, door: Door) -> bool:
    """Whether the spec says that the machine serves this port itself."""
    return any(ports.covers(door.protocol, door.port) for ports in machine.services)


def serves_files(owner: str, protocol: FlowProtocol, port: int) -> bool:
    """Whether it is the TFTP server of the management path's own engine."""
    return (owner, protocol, port) == ("management", "udp", TFTP_PORT)


def named_outside(texts: Collection[str]) -> tuple[tuple[str, int], ...]:
    """``--outside ADDRESS:PORT`` values; raises UsageError. An IPv6 address is written in brackets."""
    found = []
    for text in texts:
        address, _, port = text.rpartition(":")
        try:
            found.append((str(ip_address(address.removeprefix("[").removesuffix("]"))), int(port)))
            if not 0 < int(port) < 65536:
                raise ValueError(port)
        except ValueError as error:
            raise UsageError(
                f"{text!r} is no address and port", hint="Write 192.0.2.1:443 or [2001:db8::1]:443."
            ) from error
    return tuple(found)


def _needed(plan: LabPlan, flow: Flow, around: Surroundings) -> Iterator[Door]:
    """Doors that must be tried from inside, so that the answer to this flow means something."""
    if flow.expected == "deny":
        yield own_door(plan.machine(flow.source), flow, around.own)
    if flow.target_device and (flow.expected == "deny" or flow.protocol == "udp"):
        yield _door(flow)


def _door(flow: Flow) -> Door:
    return Door(flow.target, flow.family, flow.protocol, str(flow.address), flow.port)


def _concrete(plan: LabPlan, flow: Flow, around: Surroundings) -> Iterator[Flow]:
    port = flow.port
    # A user-mode network's gateway hands every port on to the host's loopback; only the canary's is known to answer.
    # Its TFTP server is the network's own.
    at_gateway = flow.target == "management" and flow.address in (None, str(plan.management.host))
    gateway = at_gateway and not serves_files(flow.target, flow.protocol, port)
    if flow.protocol != "icmp" and (gateway or (flow.target == "host" and not port)):
        port = around.canary
    if flow.address is not None:
        yield replace(flow, port=port)
    elif flow.target == "management":
        yield replace(flow, address=str(plan.management.host), port=port)
    else:
        for address in around.addresses:
            if ip_address(address).version == flow.family:
                yield replace(flow, address=address, port=port)


def _outward(plan: LabPlan, around: Surroundings) -> Iterator[Flow]:
    """Flows to the addresses that the user named, from every NIC."""
    for address, port in around.outside:
        family: Literal[4, 6] = 4 if ip_address(address).version == 4 else 6
        for machine in plan.machines:
            for device, network in (*((i.device, i.network) for i in machine.interfaces), (plan.management.device, "")):
                way_out = bool(network) and plan.network(network).egress == "nat"
                yield Flow(
                    machine.name, device, "outside", "", family, "tcp", port,
                    "pass" if way_out else "deny", address, why="named with --outside",
                )  # fmt: skip


def _tftp_question(nonce: str) -> str:
    """A request to read a file that cannot be there (RFC 1350), as text of bytes."""
    return f"\0\x01{MARK}{nonce}\0octet\0"


def _dns_question(nonce: str) -> str:
    """A DNS query for a name that cannot exist (RFC 6761), as text of bytes: resolvers answer nothing else."""
    labels: Sequence[str] = (MARK + nonce, "invalid")
    name = "".join(chr(len(label)) + label for label in labels)
    identifier = "".join(chr(int(nonce[at : at + 2], 16)) for at in (0, 2))
    return f"{identifier}\x01\0\0\x01\0\0\0\0\0\0{name}\0\0\x01\0\x01"
