"""Every expected flow of a lab: what ``verify`` probes, and ``Matrix`` to ask about any other.

What is expected comes from the policy itself and not from the firewall rules compiled from it, so that a mistake there
shows up as a wrong answer of the lab. From every interface with an address (a probe is bound to it) to every address of
every other machine, in each family: one ICMP echo, TCP to port 22 (9 where no router is asked) and UDP to port 9, the
target's declared services,
and the edges of every policy rule that covers the pair: first port, last port, and the ones before and after, which
must not pass unless another rule lets them. The first port of a rule for the other direction must not pass either.

Traffic to a router's own address is like traffic to any member of that address's network: members pass, others need a
rule. A router's own traffic is seen as coming from the leg it leaves by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from labctl.plan.model import Address, Expected, Flow, FlowProtocol, InterfacePlan, LabPlan, MachinePlan
from labctl.plan.policy import matches
from labctl.plan.topology import FAMILIES, Family, Topology
from labctl.spec.model import PolicyRule

_SSH = 22  # guests have it, and it is what a careless rule opens first
# Nobody answers there, so a probe needs a listener of the verifier. Where no rule looks at ports, TCP is tried there:
# an SSH server starts a program for each connection, which takes an emulated guest half a second.
_DISCARD = 9
_DNS = 53
TFTP_PORT = 69  # of the server that user-mode networking has at its gateway; QEMU's answers with restrict=on, too
_LAST_PORT = 65535
HOST = "host"
MANAGEMENT = "management"


@dataclass(frozen=True, slots=True)
class Seat:
    """One interface of one machine."""

    machine: MachinePlan
    interface: InterfacePlan


@dataclass(frozen=True, slots=True)
class Answer:
    """What is expected of a flow. rejected: a policy says ``reject``. why: the reason, for people."""

    expected: Expected
    why: str
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """What is known of two interfaces in one family before any port is named.

    settled: the answer whatever the port, else None: then ``rules`` decide, numbered from 1 in the policy's order.
    near: rules between the same two networks that mean others or the other direction; their ports must not pass here.
    """

    settled: Answer | None
    rules: tuple[tuple[int, PolicyRule], ...] = ()
    near: tuple[PolicyRule, ...] = ()
    closed: str = ""

    def answer(self, protocol: FlowProtocol, port: int) -> Answer:
        """The first rule that covers the flow decides; port is 0 for icmp."""
        if self.settled is not None:
            return self.settled
        for number, rule in self.rules:
            covering = next((p for p in rule.ports if p.covers(protocol, port or None)), None)
            if covering is not None:
                why = f"policy rule {number}: {rule.source} to {rule.target} {covering}"
                if rule.action == "reject":
                    return Answer("deny", f"{why} is rejected", rejected=True)
                return Answer("pass", why)
        return Answer("deny", self.closed)

    def edges(self) -> Iterator[tuple[FlowProtocol, int]]:
        """The ports at which the answer changes, and those that must not have been opened for this pair."""
        for _, rule in self.rules:
            for ports in rule.ports:
                if ports.protocol in ("tcp", "udp"):
                    for port in (ports.first - 1, ports.first, ports.last, ports.last + 1):
                        if 0 < port <= _LAST_PORT:
                            yield ports.protocol, port
        for rule in self.near:
            for ports in rule.ports:
                if ports.protocol in ("tcp", "udp"):
                    yield ports.protocol, ports.first


class Matrix:
    """Answers what is expected of flows between machines of a plan. Pure; keeps what it has worked out."""

    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan
        self.topology = Topology.of(plan.networks, plan.machines)
        self.seats = tuple(Seat(m, i) for m in plan.machines for i in m.interfaces if i.addresses())
        self._carried: dict[tuple[str, str, str, Family], bool] = {}
        self._between: dict[tuple[str, str], tuple[tuple[int, PolicyRule], ...]] = {}

    def expected(
        self, source: Seat, target: Seat, family: Family, protocol: FlowProtocol, port: int = 0
    ) -> Answer | None:
        """What is expected of one flow, port 0 for icmp; None where it cannot be asked (see ``pair``)."""
        pair = self.pair(source, target, family)
        return None if pair is None else pair.answer(protocol, port)

    def pair(self, source: Seat, target: Seat, family: Family) -> Pair | None:
        """What holds between two interfaces.

        None where one has no address of the family, where a router would send it by another of its devices, or where
        the address means another machine's in the eyes of the source (networks with equal subnets).
        """
        seat = target.interface.seat(family)
        if source.interface.seat(family) is None or seat is None:
            return None
        here, there = source.interface.network, target.interface.network
        if here == there:
            return Pair(self._neighbours(source, target))
        path = self.topology.path(family, here, there)
        if path and path[0].router == source.machine.name:
            return None
        lands_on = self._lands_on(here, there, seat.ip, family)
        if lands_on != there and self._owned(lands_on, seat.ip, family):
            return None
        obstacle = self._obstacle(source, target, family, lands_on)
        return self._ruled(source, target) if obstacle is None else Pair(Answer("deny", obstacle))

    def _obstacle(self, source: Seat, target: Seat, family: Family, lands_on: str) -> str | None:
        """Why no packet comes through whatever the policy says, or None."""
        here, there = source.interface.network, target.interface.network
        if lands_on != there:
            return f"seen from {here} the address lies on {lands_on}, where nobody has it"
        if self.topology.path(family, here, there) is None:
            return f"no router connects {here} with {there}"
        if not self._carries(source, there, family):
            return f"{source.machine.name} does not send it to a router"
        if not self._carries(target, here, family):
            return f"{target.machine.name} does not send its answers to a router"
        return None

    def _neighbours(self, source: Seat, target: Seat) -> Answer:
        if source.interface.isolated and target.interface.isolated:
            return Answer("deny", f"{source.interface.network} has peers: false")
        return Answer("pass", f"both are on {source.interface.network}")

    def _ruled(self, source: Seat, target: Seat) -> Pair:
        here, there = source.interface.network, target.interface.network
        rules, near = [], []
        for number, rule in self._rules_between(here, there):
            if _covers(rule, source, target):
                rules.append((number, rule))
            else:
                near.append(rule)
        near += [rule for _, rule in self._rules_between(there, here) if _covers(rule, target, source)]
        return Pair(None, tuple(rules), tuple(near), f"no policy rule lets it from {here} to {there}")

    def _rules_between(self, here: str, there: str) -> tuple[tuple[int, PolicyRule], ...]:
        """The rules, numbered from 1, whose ends can mean members of two networks."""
        if (here, there) not in self._between:
            self._between[here, there] = tuple(
                (number, rule)
                for number, rule in enumerate(self.plan.policy, 1)
                if self._touches(rule.source.machine, rule.source.network, here)
                and self._touches(rule.target.machine, rule.target.network, there)
            )
        return self._between[here, there]

    def _touches(self, machine: str | None, network: str | None, wanted: str) -> bool:
        """Whether a rule's end means anything on a network."""
        if network is not None:
            return network == wanted
        return any(
            machine in (seat.machine.name, seat.machine.entry)
            for seat in self.seats
            if seat.interface.network == wanted
        )

    def _lands_on(self, here: str, there: str, address: Address, family: Family) -> str:
        """The network that an address means to members of ``here``; ``there`` where it means nothing to them."""
        if there not in self._ambiguous:
            return there
        for network in (here, *self.topology.reachable(family, here)):
            if any(address in subnet for subnet in self.topology.networks[network].subnets()):
                return network
        return there

    def _owned(self, network: str, address: Address, family: Family) -> bool:
        found = (seat.interface.seat(family) for seat in self.seats if seat.interface.network == network)
        return any(seat is not None and seat.ip == address for seat in found)

    @cached_property
    def _ambiguous(self) -> frozenset[str]:
        """Networks that have addresses in common with another."""
        networks = self.plan.networks
        return frozenset(
            one.name
            for one in networks
            for other in networks
            if one is not other
            and any(a.overlaps(b) for a in one.subnets() for b in other.subnets() if a.version == b.version)
        )

    def _carries(self, seat: Seat, network: str, family: Family) -> bool:
        """Whether what leaves by this interface for another network is sent to the router that should get it."""
        name, device = seat.machine.name, seat.interface.device
        key = (name, device, network, family)
        if key not in self._carried:
            path = self.topology.path(family, seat.interface.network, network)
            found = _gateway(seat, self.topology.networks[network].subnets(), family)
            self._carried[key] = path is not None and (
                seat.machine.router or found == self.topology.gateway(family, path[0].router, seat.interface.network)
            )
        return self._carried[key]


def _covers(rule: PolicyRule, source: Seat, target: Seat) -> bool:
    """Whether a rule means two interfaces, in this direction."""
    return matches(rule.source, source.machine, source.interface) and matches(
        rule.target, target.machine, target.interface
    )


def _gateway(seat: Seat, subnets: tuple[object, ...], family: Family) -> Address | None:
    """Where packets bound to an interface go for one of these subnets."""
    several = sum(interface.seat(family) is not None for interface in seat.machine.interfaces) > 1
    table = seat.machine.source_routes if several else seat.machine.routes
    mine = [r for r in table if r.device == seat.interface.device and r.target.version == family]
    exact = next((r.gateway for r in mine if r.target in subnets), None)
    return exact or next((r.gateway for r in mine if r.target.prefixlen == 0), None)


@dataclass(frozen=True, slots=True)
class _Target:
    """A seat as others try to reach it: its address as text by family, and what is tried on every way to it.

    plain: where no rule is asked. ruled: where rules decide, beside their own ports.
    """

    seat: Seat
    address: Mapping[Family, str]
    plain: tuple[tuple[FlowProtocol, int], ...]
    ruled: tuple[tuple[FlowProtocol, int], ...]

    @classmethod
    def of(cls, seat: Seat) -> _Target:
        texts = {a.version: str(a) for a in seat.interface.addresses()}
        return cls(seat, texts, _plain(seat.machine, _DISCARD), _plain(seat.machine, _SSH))


def expected_flows(plan: LabPlan) -> tuple[Flow, ...]:
    """The isolation matrix of a plan; ``plan.flows`` is not looked at. Sources are in the plan's order."""
    matrix = Matrix(plan)
    targets = [_Target.of(seat) for seat in matrix.seats]
    flows: list[Flow] = []
    for machine in plan.machines:
        others = [target for target in targets if target.seat.machine is not machine]
        for source in matrix.seats:
            if source.machine is machine:
                for target in others:
                    flows += _between(matrix, source, target)
                flows += _to_host(source)
        flows += _from_management(plan, machine, others)
    return tuple(flows)


def _plain(machine: MachinePlan, port: int) -> tuple[tuple[FlowProtocol, int], ...]:
    """What everybody tries, TCP at this port, and the ports that the machine declares to serve."""
    tried: dict[tuple[FlowProtocol, int], None] = {("icmp", 0): None, ("tcp", port): None, ("udp", _DISCARD): None}
    for service in machine.services:
        if service.protocol in ("tcp", "udp"):
            tried[service.protocol, service.first] = None
    return tuple(tried)


def _between(matrix: Matrix, source: Seat, target: _Target) -> Iterator[Flow]:
    for family, address in target.address.items():
        pair = matrix.pair(source, target.seat, family)
        if pair is None:
            continue
        tried = target.plain if pair.settled is not None else dict.fromkeys((*target.ruled, *pair.edges()))
        for protocol, port in tried:
            answer = pair.answer(protocol, port)
            yield Flow(
                source.machine.name,
                source.interface.device,
                target.seat.machine.name,
                target.seat.interface.device,
                family,
                protocol,
                port,
                answer.expected,
                address,
                answer.rejected,
                answer.why,
            )


def _to_host(source: Seat) -> Iterator[Flow]:
    """From a lab interface to the computer that runs the lab; its addresses and a port are the verifier's to know."""
    for family in FAMILIES:
        if source.interface.seat(family) is not None:
            yield from _denied(source.machine.name, source.interface.device, family)


def _denied(machine: str, device: str, family: Family) -> Iterator[Flow]:
    protocols: tuple[FlowProtocol, ...] = ("icmp", "tcp", "udp")
    for protocol in protocols:
        yield Flow(machine, device, HOST, "", family, protocol, 0, "deny", why="the host is closed to guests")


def _from_management(plan: LabPlan, machine: MachinePlan, others: Sequence[_Target]) -> Iterator[Flow]:
    """The management path leads to nobody: not the host, not its resolver, no other guest. It has no IPv6."""
    device = plan.management.device
    yield from _denied(machine.name, device, 4)
    resolver: tuple[tuple[FlowProtocol, int], ...] = (("tcp", _DNS), ("udp", _DNS))
    for address in dict.fromkeys((plan.management.host, plan.management.dns)):
        for protocol, port in resolver:
            why = "the management path answers nothing"
            yield Flow(machine.name, device, MANAGEMENT, "", 4, protocol, port, "deny", str(address), why=why)
    if not plan.management.shared:
        why, gateway = "the management path serves no files", str(plan.management.host)
        yield Flow(machine.name, device, MANAGEMENT, "", 4, "udp", TFTP_PORT, "deny", gateway, why=why)
    why = "the management path leads to no guest"
    if plan.management.shared:
        for other in plan.machines:
            if other is not machine and other.management_address is not None:
                there = str(other.management_address.ip)
                yield Flow(machine.name, device, other.name, device, 4, "tcp", _SSH, "deny", there, why=why)
        return
    first = {target.seat.machine.name: target for target in reversed(others) if 4 in target.address}
    for name in dict.fromkeys(target.seat.machine.name for target in others if 4 in target.address):
        interface = first[name].seat.interface.device
        yield Flow(machine.name, device, name, interface, 4, "tcp", _DISCARD, "deny", first[name].address[4], why=why)
