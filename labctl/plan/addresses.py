"""Who has which address on a network.

An automatic address comes from a hash of network and machine name, so it does not depend on who else is there. Where
two machines want the same one, the machine that comes first in the spec has it and the later one moves on: a machine
appended to a spec never moves another. A machine inserted before others can, once in a while; whoever has the plan
that runs gives it as ``previous`` and everybody keeps what they have. A fixed address always wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Literal

from labctl.errors import UsageError
from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan, NetworkPlan
from labctl.plan.names import number
from labctl.spec.model import InterfaceSpec, LabSpec, NetworkSpec

Seat = tuple[str, str, int]
"""A machine's place on a network: machine name, network name, 0 for its first interface there, 1 for its second."""

_HASHED = 32  # tries by hash before the rest of a crowded subnet is searched in order
_SHORT6 = 0xFFFF  # automatic IPv6 addresses stay below ::1:0, so that people can type them


@dataclass(frozen=True, slots=True)
class _Wish:
    seat: Seat
    router: bool
    fixed: int | None
    before: int | None


def seats(spec: LabSpec) -> Iterator[tuple[Seat, int, bool, InterfaceSpec]]:
    """Every interface of every machine: its seat, the machine's place among its equals, whether it is a router."""
    for name, index, machine in spec.copies():
        occurrences: dict[str, int] = {}
        for interface in machine.interfaces:
            nth = occurrences.get(interface.network, 0)
            occurrences[interface.network] = nth + 1
            yield (name, interface.network, nth), index, machine.router, interface


def assign(
    spec: LabSpec, previous: LabPlan | None = None
) -> tuple[Mapping[Seat, IPv4Interface], Mapping[Seat, IPv6Interface]]:
    """IPv4 and IPv6 addresses by seat; seats without an address are left out. Raises UsageError for a full subnet."""
    before = _by_seat(previous) if previous else {}
    found4: dict[Seat, IPv4Interface] = {}
    found6: dict[Seat, IPv6Interface] = {}
    for network in spec.networks.values():
        if network.subnet is not None:
            wishes = _wishes(spec, network.name, 4, before)
            exits = exit_address(network, {wish.fixed for wish in wishes})
            taken = set() if exits is None else {int(exits)}
            for seat, value in _settle(network.name, network.subnet, wishes, taken).items():
                found4[seat] = IPv4Interface((value, network.subnet.prefixlen))
        if network.subnet6 is not None:
            wishes = _wishes(spec, network.name, 6, before)
            for seat, value in _settle(network.name, network.subnet6, wishes, set()).items():
                found6[seat] = IPv6Interface((value, network.subnet6.prefixlen))
    return found4, found6


def exit_address(network: NetworkSpec, fixed: set[int | None]) -> IPv4Address | None:
    """Where the engine's way out stands: the first host address, as every engine has it, or else the last free one."""
    if network.egress == "none" or network.subnet is None:
        return None
    hosts = _hosts(network.subnet)
    if hosts[0] not in fixed:
        return IPv4Address(hosts[0])
    return next((IPv4Address(value) for value in reversed(hosts) if value not in fixed), None)


def resolver_address(network: NetworkPlan, machines: Iterable[MachinePlan], provider: str) -> IPv4Address | None:
    """Where the engine's way out answers DNS.

    QEMU's user-mode networking wants an address for it: the last that nobody has, so that machines come first. Others
    answer at the way out itself.
    """
    if network.exit is None or network.subnet is None or provider != "qemu":
        return network.exit
    interfaces = (interface for machine in machines for interface in machine.interfaces)
    taken = {i.address.ip for i in interfaces if i.network == network.name and i.address is not None}
    free = (IPv4Address(value) for value in reversed(_hosts(network.subnet)))
    return next((address for address in free if address != network.exit and address not in taken), None)


def fixed_addresses(spec: LabSpec, network: str) -> set[int | None]:
    """The IPv4 addresses that the spec itself gives to machines on a network."""
    return {wish.fixed for wish in _wishes(spec, network, 4, {})}


def _by_seat(plan: LabPlan) -> dict[Seat, InterfacePlan]:
    found: dict[Seat, InterfacePlan] = {}
    for machine in plan.machines:
        occurrences: dict[str, int] = {}
        for interface in machine.interfaces:
            nth = occurrences.get(interface.network, 0)
            occurrences[interface.network] = nth + 1
            found[machine.name, interface.network, nth] = interface
    return found


def _wishes(spec: LabSpec, network: str, family: Literal[4, 6], before: Mapping[Seat, InterfacePlan]) -> list[_Wish]:
    wishes = []
    for seat, index, router, interface in seats(spec):
        wanted = interface.address if family == 4 else interface.address6
        if seat[1] != network or wanted is None:
            continue
        old = before[seat].seat(family) if seat in before else None
        fixed = None if isinstance(wanted, str) else int(wanted) + index
        wishes.append(_Wish(seat, router, fixed, None if old is None else int(old.ip)))
    return wishes


def _settle(network: str, subnet: IPv4Network | IPv6Network, wishes: list[_Wish], taken: set[int]) -> dict[Seat, int]:
    """Fixed addresses first, then those that run already, then the rest in the spec's order."""
    found = {wish.seat: wish.fixed for wish in wishes if wish.fixed is not None}
    taken |= set(found.values())
    hosts = _hosts(subnet)
    for wish in wishes:
        if wish.fixed is None and wish.before is not None and wish.before in hosts and wish.before not in taken:
            found[wish.seat] = wish.before
            taken.add(wish.before)
    for wish in wishes:
        if wish.seat in found:
            continue
        free = next((value for value in _candidates(hosts, wish) if value not in taken), None)
        if free is None:
            raise UsageError(
                f"network {network} is full: no address of {subnet} is left for {wish.seat[0]}",
                hint="Give the network a larger subnet.",
            )
        found[wish.seat] = free
        taken.add(free)
    return found


def _hosts(subnet: IPv4Network | IPv6Network) -> range:
    """The addresses to choose from, as numbers: neither a subnet's first nor its last (IPv4 broadcasts there)."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    return range(first + 1, min(last, first + _SHORT6) if subnet.version == 6 else last)


def _candidates(hosts: range, wish: _Wish) -> Iterator[int]:
    """Addresses in order of preference; every one of ``hosts`` comes in the end.

    Routers like the first address best, as people expect them there; others take it only when nothing else is left.
    """
    if wish.router:
        yield from hosts[:1]
    ordinary = hosts[1:]
    if ordinary:
        machine, network, nth = wish.seat
        tries = [number("address", network, machine, str(nth), str(i)) % len(ordinary) for i in range(_HASHED)]
        yield from (ordinary[position] for position in tries)
        yield from ordinary[tries[0] :]
        yield from ordinary[: tries[0]]
    yield from hosts[:1]
