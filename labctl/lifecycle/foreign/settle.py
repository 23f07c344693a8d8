"""A draft made valid: what no part of it can know of itself. What has to give way is told in a note."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import combinations

from labctl.lifecycle.foreign.draft import Draft, Machine, Network, Seat
from labctl.spec.rules.addresses import usable

MAX_SEATS = 16
MAX_RULES = 1000
_SPARE = tuple(IPv4Network(f"10.{second}.{third}.0/24") for second in (200, 201) for third in range(256))

Subnet = IPv4Network | IPv6Network


def settle(draft: Draft) -> None:
    """See to everything that a rule of the language could refuse."""
    for machine in draft.machines:
        for seat in machine.seats[MAX_SEATS:]:
            machine.notes.append(f"not carried over: its interface on {seat.network.name}; {MAX_SEATS} are the most")
        del machine.seats[MAX_SEATS:]
    _wanted_subnets(draft)
    _overlaps(draft)
    for machine in draft.machines:
        _fitting_addresses(machine)
    _taken_addresses(draft)
    _full_subnets(draft)
    for machine in draft.machines:
        if machine.router and (machine.windows or len(_addressed(machine)) < 2):
            machine.router = False
            machine.notes.append("a router in the source; here it has no two networks with addresses to route between")


def rules(draft: Draft) -> Iterator[tuple[str, str]]:
    """Every ordered pair of networks that routers join, where the source lets all of them talk."""
    if not draft.open_between_networks:
        return
    groups = _components(draft)
    joined = [n for n in draft.networks if n.subnet or n.subnet6]
    pairs = [(a.name, b.name) for a in joined for b in joined if a is not b and b.name in groups[a.name]]
    if len(pairs) > MAX_RULES:
        draft.note(f"policy: all networks could talk; that needs {len(pairs)} rules, and a lab has {MAX_RULES} at most")
        return
    yield from pairs


def _wanted_subnets(draft: Draft) -> None:
    for network in draft.networks:
        if network.wanted and network.subnet is None and network.subnet6 is None:
            taken = [other.subnet for other in draft.networks if other.subnet]
            choice = (IPv4Network(network.wanted), *_SPARE)
            free = (subnet for subnet in choice if not any(subnet.overlaps(other) for other in taken))
            network.subnet = next(free, None)


def _overlaps(draft: Draft) -> None:
    """Take the subnet from the later of two networks that overlap where one machine can see both."""
    groups = _components(draft)
    looked_at: set[frozenset[str]] = set()
    for machine in draft.machines:
        seen = frozenset[str]().union(*(groups[seat.network.name] for seat in machine.seats))
        if seen in looked_at:
            continue
        looked_at.add(seen)
        for first, second in combinations([n for n in draft.networks if n.name in seen], 2):
            if first.subnet and second.subnet and first.subnet.overlaps(second.subnet):
                second.notes.append(_overlapping(second.subnet, first, machine))
                second.subnet = None
            if first.subnet6 and second.subnet6 and first.subnet6.overlaps(second.subnet6):
                second.notes.append(_overlapping(second.subnet6, first, machine))
                second.subnet6 = None


def _overlapping(subnet: Subnet, first: Network, machine: Machine) -> str:
    return f"not carried over: the subnet {subnet}; it overlaps {first.name}'s, and {machine.name} can see both"


def _components(draft: Draft) -> dict[str, frozenset[str]]:
    """Network name to all that routers join with it, itself included."""
    groups = {network.name: frozenset([network.name]) for network in draft.networks}
    for machine in draft.machines:
        if machine.router:
            own = (seat.network.name for seat in machine.seats if not seat.silent)
            union = frozenset[str]().union(*(groups[name] for name in own))
            groups.update(dict.fromkeys(union, union))
    return groups


def _fitting_addresses(machine: Machine) -> None:
    for seat in machine.seats:
        network = seat.network
        if seat.silent:
            seat.address = seat.address6 = None
        if seat.address is not None and (why := _misfit(seat.address, network.subnet)):
            machine.notes.append(f"not carried over: the address {seat.address} on {network.name}, {why}")
            seat.address = None
        if seat.address6 is not None and (why := _misfit(seat.address6, network.subnet6)):
            machine.notes.append(f"not carried over: the address {seat.address6} on {network.name}, {why}")
            seat.address6 = None


def _misfit(address: IPv4Address | IPv6Address, subnet: Subnet | None) -> str:
    """Why an address cannot be in a subnet, or nothing."""
    if subnet is None:
        return "which has no subnet here"
    first, last = usable(subnet)
    if address not in subnet or not first <= int(address) - int(subnet.network_address) <= last:
        return f"where hosts have {subnet[first]} to {subnet[last]}"
    return ""


def _taken_addresses(draft: Draft) -> None:
    owners: dict[tuple[str, IPv4Address | IPv6Address], Machine] = {}
    for machine, seat in _seats(draft.machines):
        for address in (seat.address, seat.address6):
            if address is None:
                continue
            owner = owners.setdefault((seat.network.name, address), machine)
            if owner is not machine or address in _earlier(machine, seat):
                note = f"not carried over: the address {address} on {seat.network.name}, which {owner.name} has"
                machine.notes.append(note)
                if address.version == 4:
                    seat.address = None
                else:
                    seat.address6 = None


def _earlier(machine: Machine, seat: Seat) -> set[IPv4Address | IPv6Address | None]:
    """The addresses of a machine's seats before this one, on the same network."""
    before = machine.seats[: next(i for i, other in enumerate(machine.seats) if other is seat)]
    return {address for s in before if s.network is seat.network for address in (s.address, s.address6)}


def _full_subnets(draft: Draft) -> None:
    """Leave those without an address of their own without one, where a subnet has none left."""
    for network in draft.networks:
        members = [(m, s) for m, s in _seats(draft.machines) if s.network is network and not s.silent]
        for subnet in (network.subnet, network.subnet6):
            room = min(subnet.num_addresses, 1 << 32) - 2 if subnet else len(members)
            floating = [(m, s) for m, s in members if s.address is None and s.address6 is None and not s.silent]
            surplus = sum(not s.silent for _m, s in members) - room
            for machine, seat in reversed(floating[len(floating) - surplus :] if surplus > 0 else []):
                seat.silent = True
                machine.notes.append(f"no address on {network.name}: {subnet} has no more")


def _addressed(machine: Machine) -> set[str]:
    """The networks on which a machine has addresses, in the family in which they are more."""
    seats = [seat for seat in machine.seats if not seat.silent]
    families = (
        {s.network.name for s in seats if s.network.subnet},
        {s.network.name for s in seats if s.network.subnet6},
    )
    return max(families, key=len)


def _seats(machines: Iterable[Machine]) -> Iterator[tuple[Machine, Seat]]:
    for machine in machines:
        for seat in machine.seats:
            yield machine, seat
