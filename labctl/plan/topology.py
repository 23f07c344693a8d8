"""Which way packets go: the graph of networks and routers, for each address family.

Paths are unique and the same in both directions, because routers that filter by state must see both. Fewest routers
win; among equals a weight decides that every router and network has for itself (powers of two, by sorted name), so
that no two different sets of them weigh the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from labctl.plan.model import Address, InterfacePlan, MachinePlan, NetworkPlan

Family = Literal[4, 6]
FAMILIES: tuple[Family, ...] = (4, 6)

_Node = tuple[str, str]  # ("network" | "router", name)
_NETWORK, _ROUTER = "network", "router"


@dataclass(frozen=True, slots=True)
class Hop:
    """A router that a path crosses, and the two devices it does so by."""

    router: str
    in_device: str
    out_device: str


Path = tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """Networks, and the routers' legs on them. Make it with ``Topology.of``."""

    networks: Mapping[str, NetworkPlan]
    routers: Mapping[str, MachinePlan]
    _ways: Mapping[Family, Mapping[_Node, Mapping[str, tuple[_Node, ...]]]]
    _hops: Mapping[tuple[Family, str, str], Path]

    @classmethod
    def of(cls, networks: Sequence[NetworkPlan], machines: Sequence[MachinePlan]) -> Topology:
        """Compute every shortest path. Routes and rules of the machines are not looked at."""
        routers = {machine.name: machine for machine in machines if machine.router}
        ways = {family: _shortest(_graph(networks, routers.values(), family)) for family in FAMILIES}
        hops = {
            (family, source, target): tuple(_crossed(nodes, routers, family))
            for family in FAMILIES
            for (kind, source), reached in ways[family].items()
            if kind == _NETWORK
            for target, nodes in reached.items()
        }
        return cls({network.name: network for network in networks}, routers, ways, hops)

    def path(self, family: Family, source: str, target: str) -> Path | None:
        """The routers from one network to another, or None where no chain of routers has this family all the way."""
        return self._hops.get((family, source, target))

    def path_of_router(self, family: Family, router: str, target: str) -> tuple[str, Path] | None:
        """The network by which a router leaves for another one, and the path from there; None where there is none."""
        nodes = self._ways[family].get((_ROUTER, router), {}).get(target)
        if nodes is None:
            return None
        first = nodes[1][1]
        path = self.path(family, first, target)
        return None if path is None else (first, path)

    def reachable(self, family: Family, network: str) -> tuple[str, ...]:
        """Other networks that routers connect with this one, in the spec's order."""
        known = self._ways[family].get((_NETWORK, network), {})
        return tuple(name for name in self.networks if name != network and name in known)

    def reachable_by_router(self, family: Family, router: str) -> tuple[str, ...]:
        """Networks that a router can forward to, its own included, in the spec's order."""
        known = self._ways[family].get((_ROUTER, router), {})
        return tuple(name for name in self.networks if name in known)

    def leg(self, family: Family, router: str, network: str) -> InterfacePlan | None:
        """The interface that a router uses on a network: its first there with an address of the family."""
        return _leg(self.routers[router], network, family)

    def gateway(self, family: Family, router: str, network: str) -> Address:
        """The address at which others on a network find a router. KeyError where it has none."""
        leg = self.leg(family, router, network)
        seat = leg.seat(family) if leg is not None else None
        if seat is None:
            raise KeyError(network)
        return seat.ip


def _crossed(nodes: Sequence[_Node], routers: Mapping[str, MachinePlan], family: Family) -> Iterator[Hop]:
    """The hops of a way that starts and ends with a network."""
    for (_, before), (_, router), (_, after) in zip(nodes[:-2:2], nodes[1::2], nodes[2::2], strict=True):
        come, go = _leg(routers[router], before, family), _leg(routers[router], after, family)
        if come is not None and go is not None:  # which the graph has made sure of
            yield Hop(router, come.device, go.device)


def _leg(router: MachinePlan, network: str, family: Family) -> InterfacePlan | None:
    return next((i for i in router.interfaces if i.network == network and i.seat(family) is not None), None)


def _graph(
    networks: Sequence[NetworkPlan], routers: Iterable[MachinePlan], family: Family
) -> dict[_Node, tuple[_Node, ...]]:
    """Who touches whom, networks on one side, routers on the other."""
    touching = {
        (_ROUTER, router.name): tuple(dict.fromkeys((_NETWORK, i.network) for i in router.interfaces if i.seat(family)))
        for router in routers
    }
    members = {
        (_NETWORK, network.name): tuple(router for router, legs in touching.items() if (_NETWORK, network.name) in legs)
        for network in networks
    }
    return {**touching, **members}


def _shortest(graph: Mapping[_Node, Sequence[_Node]]) -> dict[_Node, dict[str, tuple[_Node, ...]]]:
    """For every node the best way to each network it can reach, as the nodes from the one to the other."""
    weights = {node: 1 << rank for rank, node in enumerate(sorted(graph))}
    return {node: _from(node, graph, weights) for node in graph}


def _from(
    start: _Node, graph: Mapping[_Node, Sequence[_Node]], weights: Mapping[_Node, int]
) -> dict[str, tuple[_Node, ...]]:
    """Dijkstra's algorithm; the cost is the number of routers, then the sum of the weights of all nodes."""
    done: dict[_Node, tuple[_Node, ...]] = {}
    queue: list[tuple[int, int, tuple[_Node, ...]]] = [(0, weights[start], (start,))]
    while queue:
        routers, weight, path = heapq.heappop(queue)
        node = path[-1]
        if node in done:
            continue
        done[node] = path
        for other in graph[node]:
            if other not in done:
                heapq.heappush(queue, (routers + (other[0] == _ROUTER), weight + weights[other], (*path, other)))
    return {name: path for (kind, name), path in done.items() if kind == _NETWORK}
