"""Routers, and subnets that somebody could confuse."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations

from labctl.spec.model import MachineSpec
from labctl.spec.problems import Finding
from labctl.spec.rules.context import FAMILIES, Context, Family, addressed


def routers(context: Context) -> Iterator[Finding]:
    """Routers that have nothing to route between."""
    for machine in context.spec.machines.values():
        if machine.router and all(len(addressed(machine, family)) < 2 for family in FAMILIES):
            yield Finding(
                ("machines", machine.name, "router"),
                f"the router {machine.name} has addresses on fewer than two networks",
                hint="A router needs an address of one family on two networks or more.",
                on_key=True,
            )


def overlapping_subnets(context: Context) -> Iterator[Finding]:
    """Overlapping subnets of two networks that one machine can see, directly or through routers."""
    looked_at: set[tuple[Family, str, str]] = set()
    for machine in context.spec.machines.values():
        for family in FAMILIES:
            for first, second in combinations(_seen(context, machine, family), 2):
                if (family, first, second) in looked_at:
                    continue
                looked_at.add((family, first, second))
                if not _overlap(context, first, second, family):
                    continue
                subnets = [_subnet(context, name, family) for name in (first, second)]
                yield Finding(
                    ("networks", second, "subnet" if family == 4 else "subnet6"),
                    f"{subnets[1]} overlaps {subnets[0]} of {first}, and {machine.name} can see both",
                    hint="Networks may share a subnet only where no machine or router sees both.",
                )


def _seen(context: Context, machine: MachineSpec, family: Family) -> list[str]:
    """The networks that the machine sits on and those that routers join with them, in the spec's order."""
    joined = context.components[family]
    seen = frozenset[str]().union(*(joined.get(name, frozenset()) for name in addressed(machine, family)))
    return [name for name in context.spec.networks if name in seen]


def _overlap(context: Context, first: str, second: str, family: Family) -> bool:
    one, other = _subnet(context, first, family), _subnet(context, second, family)
    return one is not None and other is not None and one.overlaps(other)


def _subnet(context: Context, name: str, family: Family) -> IPv4Network | IPv6Network | None:
    network = context.spec.networks[name]
    return network.subnet if family == 4 else network.subnet6
