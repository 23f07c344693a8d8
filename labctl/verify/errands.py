"""What every NIC puts on its wire beyond ordinary probes: frames that no address and no firewall holds back. Pure.

Root in a guest writes any frame it likes. So each NIC sends frames that carry nonces - plain, with a forged source
address, with a VLAN tag, as a router's advertisement, to one peer alone - and every NIC listens to everything: who
hears what shows which NICs share a wire, whatever their addresses. Questions for addresses that nobody of the wire has
make strangers speak. Packets with a source that the policy favours are sent to routers that must know better. And
packets for the networks behind a neighbour that is no router are sent to it: by whatever means it may pass them on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import Literal

from labctl.plan.flows import Matrix, Seat
from labctl.plan.model import Address, LabPlan
from labctl.plan.policy import matches
from labctl.spec.model import PolicyRule
from labctl.verify import frames
from labctl.verify.ears_filter import ears_filter

Trick = Literal[
    "plain", "forged-mac", "vlan", "router-advertisement", "unicast", "spoofed-source", "source-port", "relay"
]

_MOST_ASKED = 24  # addresses that one NIC asks for
_SMALLEST = 8  # addresses of a subnet whose ends are asked for
_ASKERS = 3  # NICs of one wire that ask the same question
_UNICASTS = 3  # peers to each of which a NIC sends a frame for it alone
_MOST_PACKETS = 16  # packets with a favoured source that one NIC sends
_RELAYED: tuple[tuple[Literal["tcp", "udp"], int], ...] = (("tcp", 80), ("udp", 9))
_MOST_RELAYS = 16  # packets for what is behind a neighbour that one NIC sends


@dataclass(frozen=True, slots=True)
class Nic:
    """A NIC and the wire it is to be on; a management NIC has one of its own unless the engine has one for all."""

    machine: str
    device: str
    mac: str
    wire: str
    isolated: bool
    promiscuous: bool
    management: bool
    addresses: tuple[Address, ...]

    @property
    def place(self) -> tuple[str, str]:
        """Machine and device."""
        return self.machine, self.device

    def meets(self, other: Nic) -> bool:
        """Whether frames may pass between two NICs."""
        return self.wire == other.wire and not (self.isolated and other.isolated)


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame with a nonce, for everybody on the wire of ``nic``."""

    nonce: str
    trick: Trick
    nic: Nic
    frame: bytes


@dataclass(frozen=True, slots=True)
class Unicast(Sent):
    """A frame for one NIC alone."""

    target: Nic


@dataclass(frozen=True, slots=True)
class Routed(Sent):
    """A packet that the machine ``via`` must not pass on, for the NIC ``target`` behind it. why: why it must not, or
    why it is worth trying."""

    target: Nic
    via: Nic
    address: str
    protocol: Literal["tcp", "udp"]
    port: int
    why: str


@dataclass(frozen=True)
class Errands:
    """All NICs and all that they send. questions: machine to frames (by device) that carry no nonce of ours."""

    nics: tuple[Nic, ...]
    sent: tuple[Sent, ...]
    questions: Mapping[str, tuple[tuple[str, bytes], ...]]

    @cached_property
    def by_nonce(self) -> Mapping[str, Sent]:
        """Every frame by the nonce in it."""
        return {one.nonce: one for one in self.sent}

    def first(self, machine: str) -> tuple[tuple[str, bytes], ...]:
        """What a machine sends as soon as it listens, so that switches know its NICs: device, frame."""
        return tuple(
            (one.nic.device, one.frame) for one in self.sent if one.nic.machine == machine and one.trick == "plain"
        )

    def filters(self, machine: str) -> tuple[tuple[str, bytes], ...]:
        """What a machine's ears are to leave out: device, filter of the kernel's."""
        mine = (nic for nic in self.nics if nic.machine == machine)
        return tuple((nic.device, ears_filter(o.mac for o in self.nics if o.wire == nic.wire)) for nic in mine)

    def batch(self, machine: str) -> tuple[tuple[str, bytes], ...]:
        """What a machine sends beside its probes: device, frame."""
        mine = tuple((one.nic.device, one.frame) for one in self.sent if one.nic.machine == machine)
        return (*mine, *self.questions.get(machine, ()))


def nics(plan: LabPlan) -> tuple[Nic, ...]:
    """Every NIC of a plan, each machine's management NIC last."""
    found = []
    for machine in plan.machines:
        for i in machine.interfaces:
            lab = Nic(machine.name, i.device, i.mac.lower(), i.network, i.isolated, i.promiscuous, False, i.addresses())
            found.append(lab)
        wire = "management" if plan.management.shared else f"management of {machine.name}"
        own = machine.management_address or plan.management.guest
        found.append(
            Nic(
                machine.name, plan.management.device, machine.management_mac.lower(), wire, True, False, True, (own.ip,)
            )
        )
    return tuple(found)


def errands(plan: LabPlan, host: Iterable[str], nonce: Callable[[], str]) -> Errands:
    """What to send. host: addresses of the computer that runs the lab. ``nonce`` gives 16 new hexadecimal digits."""
    all_nics = nics(plan)
    sent: list[Sent] = []
    for nic in all_nics:
        sent += _frames(nic, all_nics, nonce)
    sent += _packets(plan, all_nics, nonce)
    for nic in all_nics:
        sent += islice(_relays(plan, nic, all_nics, nonce), _MOST_RELAYS)
    asked, corners = _asked(plan, all_nics, host), _corners(plan)
    questions: dict[str, list[tuple[str, bytes]]] = {}
    for nic in all_nics:
        put = enumerate(_questions(nic, (*asked, *corners.get(nic.wire, ()))))
        mine = ((nic.device, frame) for turn, frame in put if frame and _asks(nic, all_nics, turn))
        questions.setdefault(nic.machine, []).extend(mine)
    return Errands(all_nics, tuple(sent), {name: tuple(them) for name, them in questions.items()})


def _frames(nic: Nic, all_nics: tuple[Nic, ...], nonce: Callable[[], str]) -> Iterator[Sent]:
    one = nonce()
    yield Sent(one, "plain", nic, frames.marked(nic.mac, one))
    one, forged = nonce(), frames.FORGED[:-5] + secrets.token_hex(1) + ":" + secrets.token_hex(1)
    yield Sent(one, "forged-mac", nic, frames.marked(forged, one))
    one = nonce()
    yield Sent(one, "vlan", nic, frames.marked(nic.mac, one, tagged=True))
    one = nonce()
    yield Sent(one, "router-advertisement", nic, frames.router_advertisement(nic.mac, one))
    peers = [other for other in all_nics if nic.meets(other) and other.machine != nic.machine]
    after = [other for other in peers if other.place > nic.place] + [o for o in peers if o.place < nic.place]
    for target in after[:_UNICASTS]:
        one = nonce()
        yield Unicast(one, "unicast", nic, frames.marked(nic.mac, one, target.mac), target)


def _asked(plan: LabPlan, all_nics: tuple[Nic, ...], host: Iterable[str]) -> tuple[Address, ...]:
    """Addresses to ask everybody's MAC for, those first that would be the worst to get an answer for."""
    own = [plan.management.host, *(ip_address(text) for text in host)]
    members = [address for nic in all_nics if not nic.management for address in nic.addresses]
    return tuple(dict.fromkeys([*own, *members]))[:_MOST_ASKED]


def _corners(plan: LabPlan) -> dict[str, tuple[Address, ...]]:
    """The first and last addresses of each network that nobody is to have: a gateway that is not planned has such a
    one, and speaks to nobody before it is asked."""
    taken = {address for nic in nics(plan) for address in nic.addresses}
    found: dict[str, tuple[Address, ...]] = {}
    for network in plan.networks:
        subnet = network.subnet
        if subnet is not None and subnet.num_addresses >= _SMALLEST:
            ends = (subnet[1], subnet[2], subnet[-3], subnet[-2])
            found[network.name] = tuple(a for a in ends if a not in {*taken, network.exit, network.resolver})
    return found


def _asks(nic: Nic, all_nics: tuple[Nic, ...], turn: int) -> bool:
    """Whether it is this NIC's turn to ask a question: each is heard by the whole wire, so a few NICs ask for all.

    One that is kept apart from others is heard by nobody else, so it asks everything.
    """
    if nic.isolated:
        return True
    members = [other.place for other in all_nics if other.wire == nic.wire and not other.isolated]
    return (members.index(nic.place) - turn) % len(members) < _ASKERS


def _questions(nic: Nic, asked: tuple[Address, ...]) -> Iterator[bytes]:
    """What can be asked, at the same places for every NIC; empty where it would ask for an address of its own."""
    yield frames.echo_to_all(nic.mac)
    yield frames.router_solicitation(nic.mac)
    for address in asked:
        if address in nic.addresses:
            yield b""
        elif isinstance(address, IPv4Address):
            four = next((a for a in nic.addresses if isinstance(a, IPv4Address)), IPv4Address("0.0.0.0"))  # noqa: S104 - "nobody": an ARP probe (RFC 5227)
            yield frames.who_has(nic.mac, four, address)
        else:
            six = next((a for a in nic.addresses if isinstance(a, IPv6Address)), frames.link_local(nic.mac))
            yield frames.who_has(nic.mac, six, address)


def _packets(plan: LabPlan, all_nics: tuple[Nic, ...], nonce: Callable[[], str]) -> Iterator[Sent]:
    """Packets of every machine that is no router, to each router of its wires, with ends that a rule favours."""
    matrix = Matrix(plan)
    by_place = {nic.place: nic for nic in all_nics}
    routers = {machine.name for machine in plan.machines if machine.router}
    for seat in matrix.seats:
        nic = by_place[_place(seat)]
        if nic.machine in routers:
            continue
        gates = [other for other in all_nics if other.machine in routers and nic.meets(other)]
        favours = (
            (favour, gate)
            for favour in _favours(plan, matrix, seat)
            for gate in gates
            if gate.place not in favour.enters and gate.machine != favour.target.machine.name
        )
        for favour, gate in islice(favours, _MOST_PACKETS):
            one, there = nonce(), by_place[_place(favour.target)]
            ends, macs = (favour.source, favour.address), (nic.mac, gate.mac)
            frame = frames.packet(macs, ends, favour.protocol, favour.ports, one)
            address, port = str(favour.address), favour.ports[1]
            yield Routed(one, favour.trick, nic, frame, there, gate, address, favour.protocol, port, favour.why)


def _relays(plan: LabPlan, nic: Nic, all_nics: tuple[Nic, ...], nonce: Callable[[], str]) -> Iterator[Routed]:
    """Packets to each neighbour that is on several networks and no router, for one NIC on each of the others."""
    if nic.management:
        return
    for gate in all_nics:
        if gate.management or gate.machine == nic.machine or not nic.meets(gate) or plan.machine(gate.machine).router:
            continue
        behind: dict[tuple[str, int], tuple[Nic, Address, Address]] = {}
        for leg in all_nics:
            if leg.machine != gate.machine or leg.management or leg.wire == nic.wire:
                continue
            for there in all_nics:
                if there.machine not in (nic.machine, gate.machine) and leg.meets(there):
                    for here, address in ((h, a) for h in nic.addresses for a in there.addresses):
                        if here.version == address.version:
                            behind.setdefault((leg.wire, address.version), (there, here, address))
        for there, here, address in behind.values():
            for protocol, port in _RELAYED:
                one = nonce()
                frame = frames.packet((nic.mac, gate.mac), (here, address), protocol, (_high_port(), port), one)
                why = f"{gate.machine} is no router"
                yield Routed(one, "relay", nic, frame, there, gate, str(address), protocol, port, why)


def _high_port() -> int:
    return 49152 + secrets.randbelow(16384)


@dataclass(frozen=True, slots=True)
class _Favour:
    """A packet that a rule seems to allow. ports: source, target. enters: (router, device) where it would be right."""

    trick: Trick
    target: Seat
    address: Address
    source: Address
    protocol: Literal["tcp", "udp"]
    ports: tuple[int, int]
    why: str
    enters: frozenset[tuple[str, str]] = frozenset()


def _favours(plan: LabPlan, matrix: Matrix, seat: Seat) -> Iterator[_Favour]:
    """What a machine could try because of the rules that do not mean it.

    It borrows the address of a rule's source, which is on another network: on the same one nobody could tell. And a
    rule's target sends a first packet back, from the port that the rule opens: a filter that only looks at ports takes
    it for an answer.
    """
    high = _high_port()
    here = seat.interface.network
    for number, rule in enumerate(plan.policy, 1):
        ports = next((p for p in rule.ports if p.protocol in ("tcp", "udp", "any")), None)
        if rule.action != "allow" or ports is None:
            continue
        protocol: Literal["tcp", "udp"] = "udp" if ports.protocol == "udp" else "tcp"
        port = ports.first or 80
        for lent, target in _ends(matrix, rule):
            for there, borrowed in _same_family(target, lent):
                networks = lent.interface.network, target.interface.network
                if here not in networks:
                    path = matrix.topology.path(there.version, *networks) or ()
                    why = f"policy rule {number} lets {borrowed} pass, which is {lent.machine.name}'s"
                    enters = frozenset((hop.router, hop.in_device) for hop in path)
                    yield _Favour("spoofed-source", target, there, borrowed, protocol, (high, port), why, enters)
                elif seat is target:
                    answer = matrix.expected(target, lent, there.version, protocol, high)
                    if answer is not None and answer.expected == "deny":
                        why = f"policy rule {number} is for the other direction; its answers come from port {port}"
                        yield _Favour("source-port", lent, borrowed, there, protocol, (port, high), why)


def _ends(matrix: Matrix, rule: PolicyRule) -> Iterator[tuple[Seat, Seat]]:
    """Pairs of a rule's sources and targets: the first two of each stand for all."""
    sources = [seat for seat in matrix.seats if matches(rule.source, seat.machine, seat.interface)]
    targets = [seat for seat in matrix.seats if matches(rule.target, seat.machine, seat.interface)]
    for source in sources[:2]:
        for target in targets[:2]:
            if source.machine is not target.machine:
                yield source, target


def _same_family(one: Seat, other: Seat) -> Iterator[tuple[Address, Address]]:
    for a in one.interface.addresses():
        for b in other.interface.addresses():
            if a.version == b.version:
                yield a, b


def _place(seat: Seat) -> tuple[str, str]:
    return seat.machine.name, seat.interface.device
