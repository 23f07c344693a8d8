"""Static routes that follow from the topology.

A machine's default route is a router of its network; where the way to another network starts at a different router,
there is a static route for it. A router has a route to every remote network and no default. ``gateway`` replaces the
default route; where it names something that is no router, nothing else is routed on that interface: whoever writes
that wants the machine's traffic to go there.

Machines with several addressed interfaces also get a table for each of them, for packets that have that interface's
address: answers leave where the question came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TypedDict

from labctl.errors import UsageError
from labctl.plan.model import Address, InterfacePlan, MachinePlan, Network, RoutePlan
from labctl.plan.topology import FAMILIES, Family, Topology

DEFAULT: dict[Family, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


class Routes(TypedDict):
    """The two fields of a MachinePlan that this module computes."""

    routes: tuple[RoutePlan, ...]
    source_routes: tuple[RoutePlan, ...]


def routes_of(machine: MachinePlan, topology: Topology, gateways: Sequence[Address]) -> Routes:
    """A machine's routes. gateways are the spec's overrides, at most one per family.

    Raises UsageError for a gateway outside all of the machine's subnets.
    """
    main: list[RoutePlan] = []
    by_source: list[RoutePlan] = []
    for family in FAMILIES:
        override = _override(machine, family, next((g for g in gateways if g.version == family), None))
        if machine.router:
            main += _router_routes(machine, topology, family, override)
            by_source += _router_source_routes(machine, topology, family)
            continue
        exits = [_exits(i, topology, family, override) for i in machine.interfaces if i.seat(family) is not None]
        main += _main_table(machine, exits, override)
        if len(exits) > 1:
            by_source += (route for leaving in exits for route in leaving.table())
    return {"routes": tuple(main), "source_routes": tuple(by_source)}


def _override(machine: MachinePlan, family: Family, gateway: Address | None) -> RoutePlan | None:
    if gateway is None:
        return None
    for interface in machine.interfaces:
        seat = interface.seat(family)
        if seat is not None and gateway in seat.network:
            return RoutePlan(DEFAULT[family], gateway, interface.device)
    raise UsageError(
        f"{machine.name} cannot reach its gateway {gateway}",
        hint="The gateway must be an address of a subnet that the machine is on.",
    )


@dataclass(frozen=True, slots=True)
class _Exits:
    """How packets leave by one interface: the default route, and per remote subnet how many routers and the route."""

    default: RoutePlan | None
    ways: tuple[tuple[int, RoutePlan], ...]

    def table(self) -> Iterator[RoutePlan]:
        """The default, and what does not simply follow it."""
        if self.default is not None:
            yield self.default
        for _, route in self.ways:
            if self.default is None or route.gateway != self.default.gateway:
                yield route


def _exits(interface: InterfacePlan, topology: Topology, family: Family, override: RoutePlan | None) -> _Exits:
    network, device = interface.network, interface.device
    ways = []
    for other in topology.reachable(family, network):
        path = topology.path(family, network, other)
        if path:
            gateway = topology.gateway(family, path[0].router, network)
            ways.append((len(path), RoutePlan(_subnet(topology, other, family), gateway, device)))
    gateways = {route.gateway for _, route in ways}
    if override is not None and override.device == device:
        return _Exits(override, tuple(ways) if override.gateway in gateways else ())
    default: Address | None = topology.networks[network].exit if family == 4 else None
    for router in _routers_on(topology, family, network)[:1]:
        default = default or topology.gateway(family, router, network)
    return _Exits(None if default is None else RoutePlan(DEFAULT[family], default, device), tuple(ways))


def _routers_on(topology: Topology, family: Family, network: str) -> list[str]:
    """Routers with an address on a network by name, those that lead nowhere else in this family last."""

    def networks(router: str) -> int:
        return sum(topology.leg(family, router, name) is not None for name in topology.networks)

    here = sorted(name for name in topology.routers if topology.leg(family, name, network) is not None)
    return sorted(here, key=lambda router: networks(router) < 2)


def _main_table(machine: MachinePlan, exits: Sequence[_Exits], override: RoutePlan | None) -> Iterator[RoutePlan]:
    """The first interface's default, or the override's; for every remote subnet the way with the fewest routers."""
    default = override or next((leaving.default for leaving in exits if leaving.default is not None), None)
    if default is not None:
        yield default
    seen: set[Network] = {s.network for i in machine.interfaces for s in (i.address, i.address6) if s is not None}
    ways = [way for leaving in exits for way in leaving.ways]
    for _, route in sorted(ways, key=lambda way: way[0]):
        if route.target not in seen:
            seen.add(route.target)
            if default is None or route.gateway != default.gateway:
                yield route


def _router_routes(
    machine: MachinePlan, topology: Topology, family: Family, override: RoutePlan | None
) -> Iterator[RoutePlan]:
    own = {interface.network for interface in machine.interfaces if interface.seat(family) is not None}
    if override is not None:
        yield override
    else:
        yield from _router_exit(machine, topology, family)
    for network in topology.reachable_by_router(family, machine.name):
        way = topology.path_of_router(family, machine.name, network)
        if network in own or way is None:
            continue
        leaves_by, path = way
        leg = topology.leg(family, machine.name, leaves_by)
        if leg is not None:
            gateway = topology.gateway(family, path[0].router, leaves_by)
            yield RoutePlan(_subnet(topology, network, family), gateway, leg.device)


def _router_exit(machine: MachinePlan, topology: Topology, family: Family) -> Iterator[RoutePlan]:
    """A router on a network with egress has its default route there."""
    for interface in machine.interfaces:
        way_out = topology.networks[interface.network].exit
        if family == 4 and way_out is not None and interface.address is not None:
            yield RoutePlan(DEFAULT[family], way_out, interface.device)
            return


def _router_source_routes(machine: MachinePlan, topology: Topology, family: Family) -> Iterator[RoutePlan]:
    """Where the way from a leg's network starts at another router, packets with that leg's address start there too.

    Otherwise the other router would see one direction only of what it lets through to this leg.
    """
    for interface in machine.interfaces:
        if interface.seat(family) is None:
            continue
        for network in topology.reachable(family, interface.network):
            path = topology.path(family, interface.network, network)
            if path and path[0].router != machine.name:
                gateway = topology.gateway(family, path[0].router, interface.network)
                yield RoutePlan(_subnet(topology, network, family), gateway, interface.device)


def _subnet(topology: Topology, network: str, family: Family) -> Network:
    plan = topology.networks[network]
    subnet = plan.subnet if family == 4 else plan.subnet6
    if subnet is None:
        raise KeyError(network)
    return subnet
