"""Addresses: inside their subnet, of one machine each, and enough of them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from labctl.spec.model import NetworkSpec
from labctl.spec.problems import Finding
from labctl.spec.rules.context import FAMILIES, Context, Family, PlacedInterface
from labctl.spec.values import Address

Subnet = IPv4Network | IPv6Network


def without_subnet(context: Context) -> Iterator[Finding]:
    """Fixed addresses on a network that has none of that family."""
    for placed in context.interfaces:
        network = context.spec.networks.get(placed.interface.network)
        for address, keys in placed.fixed():
            if network is not None and subnet_of(network, address) is None:
                word = "subnet" if address.version == 4 else "subnet6"
                yield Finding(
                    keys,
                    f"the network {network.name} has no {word}, so {address} cannot be in it",
                    hint=f"Give the network a {word}, or leave the address out.",
                )


def outside_subnet(context: Context) -> Iterator[Finding]:
    """Fixed addresses, and those that follow for counted machines, that no host of the subnet can have."""
    for placed, address, subnet, keys in _placed_addresses(context):
        first, last = usable(subnet)
        count = placed.machine.count or 1
        allowed = f"{subnet[first]} to {subnet[last]}"
        offset = int(address) - int(subnet.network_address)
        if address not in subnet:
            yield Finding(keys, f"{address} is outside {placed.interface.network}'s subnet {subnet}", allowed)
        elif not first <= offset <= last:
            which = "the network's own" if offset == 0 else "the broadcast"
            yield Finding(keys, f"{address} is {which} address of {subnet}", allowed)
        elif offset + count - 1 > last:
            message = f"{count} copies from {address} on run out of the subnet {subnet}"
            yield Finding(keys, message, f"a first address up to {subnet[last - count + 1]}" if count <= last else "")


def taken(context: Context) -> Iterator[Finding]:
    """Fixed addresses that two machines of a network have."""
    owners: dict[tuple[str, int, int], str] = {}
    for placed, address, _subnet, keys in _placed_addresses(context):
        told = False
        for index, name in enumerate(placed.machine.copies()):
            place = (placed.interface.network, address.version, int(address) + index)
            if place in owners and not told:
                told = True
                shown = type(address)(int(address) + index)
                yield Finding(keys, f"{shown} is the address of {owners[place]} already")
            owners.setdefault(place, name)


def subnet_full(context: Context) -> Iterator[Finding]:
    """More seats than a subnet has addresses."""
    for network in context.spec.networks.values():
        for family in FAMILIES:
            subnet = network.subnet if family == 4 else network.subnet6
            if subnet is None:
                continue
            wanted = _seats(context, network.name, family)
            # The way out takes one address for its gateway.
            room = min(subnet.num_addresses, 1 << 32) - 2 - (network.egress == "nat")
            if wanted > room:
                keys = ("networks", network.name, "subnet" if family == 4 else "subnet6")
                message = f"{wanted} machines need an address here, and {subnet} has {room}"
                yield Finding(keys, message, hint="Use a shorter prefix length.")


def egress_without_subnet(context: Context) -> Iterator[Finding]:
    """A way out of a network that has no IPv4 addresses to translate."""
    for network in context.spec.networks.values():
        if network.egress == "nat" and network.subnet is None:
            yield Finding(
                ("networks", network.name, "egress"),
                f"the network {network.name} has no subnet, so nothing can leave it",
                hint="Give the network a subnet, or write egress: none.",
            )


def gateways(context: Context) -> Iterator[Finding]:
    """Gateways that the machine cannot reach without a gateway, or that are itself."""
    for machine in context.spec.machines.values():
        own = [placed for placed in context.interfaces if placed.machine is machine]
        for field, gateway in (("gateway", machine.gateway), ("gateway6", machine.gateway6)):
            if gateway is None:
                continue
            keys = ("machines", machine.name, field)
            subnets = [s for placed in own if (s := _interface_subnet(context, placed, gateway)) is not None]
            if not any(gateway in subnet for subnet in subnets):
                allowed = "an address in " + " or ".join(map(str, subnets)) if subnets else ""
                yield Finding(keys, f"{gateway} is on none of {machine.name}'s networks", allowed)
            elif any(gateway == address for placed in own for address, _keys in placed.fixed()):
                yield Finding(keys, f"{machine.name} cannot be its own gateway")


def subnet_of(network: NetworkSpec, address: Address) -> Subnet | None:
    """The network's subnet of the address's family."""
    return network.subnet if address.version == 4 else network.subnet6


def usable(subnet: Subnet) -> tuple[int, int]:
    """The first and last place in a subnet that a host may have.

    Of IPv6 too the first (the routers' anycast address) and the last stay free, so that both families count alike.
    """
    return 1, subnet.num_addresses - 2


def _placed_addresses(context: Context) -> Iterator[tuple[PlacedInterface, Address, Subnet, tuple[str | int, ...]]]:
    for placed in context.interfaces:
        network = context.spec.networks.get(placed.interface.network)
        for address, keys in placed.fixed():
            subnet = subnet_of(network, address) if network else None
            if subnet is not None:
                yield placed, address, subnet, keys


def _interface_subnet(context: Context, placed: PlacedInterface, gateway: Address) -> Subnet | None:
    network = context.spec.networks.get(placed.interface.network)
    has = placed.interface.address if gateway.version == 4 else placed.interface.address6
    return subnet_of(network, gateway) if network is not None and has is not None else None


def _seats(context: Context, network: str, family: Family) -> int:
    field = "address" if family == 4 else "address6"
    return sum(
        placed.machine.count or 1
        for placed in context.interfaces
        if placed.interface.network == network and getattr(placed.interface, field) is not None
    )
