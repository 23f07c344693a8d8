"""What somebody who owns a machine could reach, by the plan alone: its blast radius.

Directly: whom it may send to, on its own networks and by the policy. In steps: from every machine that was reached on
some TCP or UDP port, because that port may be the way into it. So the answer is an upper bound: it does not ask whether
a service with a hole listens there, or whether a machine with a leg on two networks forwards anything; whoever owns it
can log in on one side and go on from the other. An echo by ICMP alone gives nobody a machine.

A router is a machine like that with one more power: it stands on the way, so whoever owns it can speak in the name of
everybody whose packets cross it. Since a router can be spoken to from all its networks, a lab with one router is lost
as a whole once that falls. Each answer therefore says whether it needs a router to fall. Addresses forged by machines
that are no routers are not counted, nor is what leads out of the virtual machine itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from labctl.errors import UsageError
from labctl.plan.flows import Matrix, Pair, Seat
from labctl.plan.model import LabPlan
from labctl.plan.topology import FAMILIES, Family
from labctl.spec.model import Ports, Protocol

_LAST = 65535
_ANY = Ports("any")
_PROTOCOLS: tuple[Protocol, ...] = ("icmp", "tcp", "udp")


@dataclass(frozen=True, slots=True)
class Reached:
    """A machine that could be reached.

    path: the machines owned on the way, the source first; only it where the machine is reached directly. ports: those
    that are open to the last one of them. ways: why, for people. router: a router on the path has to fall first.
    """

    machine: str
    path: tuple[str, ...]
    ports: tuple[Ports, ...]
    ways: tuple[str, ...]
    router: bool = False

    @property
    def direct(self) -> bool:
        """Whether no other machine has to fall first."""
        return len(self.path) == 1


@dataclass(frozen=True, slots=True)
class Blast:
    """What the owner of one machine could reach, in the plan's order; who is in none of it is out of reach.

    outside: networks with a way out that the machine itself is on.
    """

    machine: str
    reached: tuple[Reached, ...]
    safe: tuple[str, ...]
    outside: tuple[str, ...]

    def by_steps(self, *, router: bool) -> tuple[Reached, ...]:
        """Those that take more than one step, and a fallen router or not."""
        return tuple(one for one in self.reached if not one.direct and one.router is router)


@dataclass(frozen=True, slots=True)
class _Edge:
    ports: tuple[Ports, ...]
    ways: tuple[str, ...]

    @property
    def gives_the_machine(self) -> bool:
        return any(ports.protocol != "icmp" for ports in self.ports)


def blasts(plan: LabPlan) -> tuple[Blast, ...]:
    """The blast radius of every machine, in the plan's order."""
    edges = _edges(plan)
    return tuple(_blast(plan, machine.name, edges) for machine in plan.machines)


def blast_of(plan: LabPlan, machine: str) -> Blast:
    """The blast radius of one machine. Raises UsageError where the lab has no such machine."""
    names = [known.name for known in plan.machines]
    if machine not in names:
        raise UsageError(f"{plan.lab} has no machine called {machine!r}", hint=f"Machines: {', '.join(names)}.")
    return _blast(plan, machine, _edges(plan))


def _blast(plan: LabPlan, start: str, edges: Mapping[str, Mapping[str, _Edge]]) -> Blast:
    routers = {machine.name for machine in plan.machines if machine.router}
    found = _walk(start, edges, frozenset(routers - {start}))
    for name, reached in _walk(start, edges, frozenset()).items():
        found.setdefault(name, replace(reached, router=True))
    order = [machine.name for machine in plan.machines if machine.name != start]
    outside = {network.name for network in plan.networks if network.egress != "none"}
    return Blast(
        start,
        tuple(found[name] for name in order if name in found),
        tuple(name for name in order if name not in found),
        tuple(dict.fromkeys(i.network for i in plan.machine(start).interfaces if i.network in outside)),
    )


def _walk(start: str, edges: Mapping[str, Mapping[str, _Edge]], standing: frozenset[str]) -> dict[str, Reached]:
    """Breadth first, so that each machine gets a shortest path; who is in ``standing`` is reached and does not fall."""
    found: dict[str, Reached] = {}
    paths: dict[str, tuple[str, ...]] = {start: (start,)}
    queue = [start]
    for owned in queue:
        path = paths[owned]
        for name, edge in edges[owned].items():
            if name == start:
                continue
            if name not in found:
                found[name] = Reached(name, path, edge.ports, edge.ways)
            if name not in paths and edge.gives_the_machine and name not in standing:
                paths[name] = (*path, name)
                queue.append(name)
    return found


def _edges(plan: LabPlan) -> dict[str, dict[str, _Edge]]:
    """Machine to those that it may send to, with the open ports."""
    matrix = Matrix(plan)
    ports: dict[tuple[str, str], list[Ports]] = defaultdict(list)
    ways: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for source in matrix.seats:
        for target in matrix.seats:
            if source.machine is not target.machine:
                for family in FAMILIES:
                    for pair, opened, why in _opened(matrix, source, target, family):
                        ports[pair] += opened
                        ways[pair][why] = None
    found: dict[str, dict[str, _Edge]] = {machine.name: {} for machine in plan.machines}
    for machine in plan.machines:
        for other in plan.machines:
            if (pair := (machine.name, other.name)) in ports:
                found[machine.name][other.name] = _Edge(merged(ports[pair]), tuple(ways[pair]))
    return found


def _opened(
    matrix: Matrix, source: Seat, target: Seat, family: Family
) -> Iterator[tuple[tuple[str, str], tuple[Ports, ...], str]]:
    """What is open between two interfaces: to the source, and to routers on the way, who can speak in its name."""
    pair = matrix.pair(source, target, family)
    if pair is None:
        return
    for ports, why in _passing(pair):
        yield (source.machine.name, target.machine.name), ports, why
        path = matrix.topology.path(family, source.interface.network, target.interface.network) or ()
        for hop in path[:-1]:  # the last one is on the target's own network
            if hop.router not in (source.machine.name, target.machine.name):
                yield (hop.router, target.machine.name), ports, f"in the name of {source.machine.name}: {why}"


def _passing(pair: Pair) -> Iterator[tuple[tuple[Ports, ...], str]]:
    """What passes between two interfaces, rule by rule: the first rule that covers a flow decides."""
    if pair.settled is not None:
        if pair.settled.expected == "pass":
            yield (_ANY,), pair.settled.why
        return
    rejected: list[Ports] = []
    for number, rule in pair.rules:
        if rule.action == "reject":
            rejected += rule.ports
        elif left := tuple(_without(rule.ports, rejected)):
            yield left, f"policy rule {number}: {rule.source} to {rule.target}"


def _without(ports: Iterable[Ports], rejected: Iterable[Ports]) -> Iterator[Ports]:
    """Ports less those of earlier rules that reject. Of ``any``, only ICMP, TCP and UDP are left then."""
    left = list(ports)
    for barred in rejected:
        left = [part for one in left for part in _less(one, barred)]
    yield from left


def _less(ports: Ports, barred: Ports) -> Iterator[Ports]:
    if barred.protocol == "any":
        return
    if ports.protocol == "any":
        for part in (Ports("icmp"), Ports("tcp", 1, _LAST), Ports("udp", 1, _LAST)):
            yield from _less(part, barred)
    elif ports.protocol != barred.protocol:
        yield ports
    elif ports.protocol != "icmp":
        for first, last in ((ports.first, barred.first - 1), (barred.last + 1, ports.last)):
            span = max(first, ports.first), min(last, ports.last)
            if span[0] <= span[1]:
                yield Ports(ports.protocol, *span)


def merged(ports: Iterable[Ports]) -> tuple[Ports, ...]:
    """The same ports with as few entries as it takes: sorted, nothing twice, ranges that touch as one."""
    ranges: dict[Protocol, list[tuple[int, int]]] = defaultdict(list)
    for one in sorted(ports, key=lambda p: (p.protocol, p.first)):
        if one.protocol == "any":
            return (_ANY,)
        known = ranges[one.protocol]
        if known and one.first <= known[-1][1] + 1:
            known[-1] = (known[-1][0], max(known[-1][1], one.last))
        else:
            known.append((one.first, one.last))
    return tuple(Ports(protocol, *span) for protocol in _PROTOCOLS for span in ranges[protocol])
