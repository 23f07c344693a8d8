"""The policy, compiled to rules for every router on the way, and asked about single flows.

Both follow the same reading. A rule's ends are interfaces: of a machine (a counted name means every copy), of all
members of a network, or of one machine on one network. The first rule that covers a flow decides. A network end is
compiled to its subnet, every other end to host addresses. A rule is carried in each family in which there is a path;
a flow between members of one network crosses no router, so no rule has a say in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network

from labctl.plan.model import ForwardRule, InterfacePlan, MachinePlan, Network
from labctl.plan.topology import FAMILIES, Family, Topology
from labctl.spec.model import PolicyRule, RuleEnd

_Ends = Mapping[str, tuple[Network, ...]]
"""A rule's end in one family: network name to what is meant on it."""


def matches(end: RuleEnd, machine: MachinePlan, interface: InterfacePlan) -> bool:
    """Whether a rule's end means this interface of this machine."""
    if end.network is not None and end.network != interface.network:
        return False
    return end.machine is None or end.machine in (machine.name, machine.entry)


def forward_rules(
    policy: Sequence[PolicyRule], topology: Topology, machines: Sequence[MachinePlan]
) -> dict[str, tuple[ForwardRule, ...]]:
    """Router name to its rules, in the policy's order."""
    found: dict[str, dict[ForwardRule, None]] = {name: {} for name in topology.routers}
    for rule in policy:
        for family in FAMILIES:
            sources = _ends(rule.source, family, topology, machines)
            targets = _ends(rule.target, family, topology, machines)
            for source, meant_sources in sources.items():
                for target, meant_targets in targets.items():
                    for router, in_device, out_device in _crossed(rule, family, topology, source, target):
                        for ports in rule.ports:
                            found[router][
                                ForwardRule(
                                    family, in_device, out_device, meant_sources, meant_targets, ports, rule.action
                                )
                            ] = None
    return {router: tuple(rules) for router, rules in found.items()}


def _crossed(
    rule: PolicyRule, family: Family, topology: Topology, source: str, target: str
) -> Iterator[tuple[str, str, str]]:
    """Routers on the way; what a router sends itself does not come in by any of its devices."""
    if source == target:
        return
    for hop in topology.path(family, source, target) or ():
        if hop.router != rule.source.machine:
            yield hop.router, hop.in_device, hop.out_device


def _ends(end: RuleEnd, family: Family, topology: Topology, machines: Sequence[MachinePlan]) -> _Ends:
    if end.kind == "network" and end.network is not None:
        plan = topology.networks[end.network]
        subnet = plan.subnet if family == 4 else plan.subnet6
        return {} if subnet is None else {end.network: (subnet,)}
    found: dict[str, tuple[Network, ...]] = {}
    for machine in machines:
        for interface in machine.interfaces:
            seat = interface.seat(family)
            if seat is not None and matches(end, machine, interface):
                found[interface.network] = (*found.get(interface.network, ()), ip_network(seat.ip))
    return found
