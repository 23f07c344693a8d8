"""What holds for every lab, tried on many made by chance; a seed is printed with a failure."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import permutations
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.plan.model import Flow, InterfacePlan, MachinePlan
from labctl.plan.show import from_json, to_json
from labctl.plan.topology import FAMILIES, Hop, Topology
from labctl.spec.model import InterfaceSpec, LabSpec, MachineSpec, NetworkSpec, PolicyRule, Ports, RuleEnd

pytestmark = pytest.mark.unit


def lab(seed: int) -> LabSpec:
    rng = random.Random(seed)
    names = [f"n{i}" for i in range(rng.randint(2, 6))]
    networks = {
        name: NetworkSpec(
            name,
            subnet=IPv4Network(f"10.{i}.64.0/{rng.randint(20, 28)}") if rng.random() < 0.9 else None,
            subnet6=IPv6Network(f"fd00:{i}::/{rng.choice((64, 80, 120))}") if rng.random() < 0.5 else None,
            peers=rng.random() < 0.8,
        )
        for i, name in enumerate(names)
    }
    machines = [_machine(rng, f"m{i}", rng.sample(names, rng.choice((1, 1, 1, 2)))) for i in range(rng.randint(1, 6))]
    machines += [_machine(rng, f"r{i}", rng.sample(names, 2), router=True) for i in range(rng.randint(0, 3))]
    rng.shuffle(machines)
    ends = [RuleEnd("network", network=n) for n in names] + [RuleEnd("machine", machine=m.name) for m in machines]
    ports = (Ports("tcp", 80, 90), Ports("udp", 53, 53), Ports("icmp"), Ports("any"))
    policy = tuple(
        PolicyRule(*rng.sample(ends, 2), (rng.choice(ports),), rng.choice(("allow", "allow", "reject")))
        for _ in range(rng.randint(0, 4))
    )
    return LabSpec(Path("lab.yaml"), "chance", networks=networks, machines={m.name: m for m in machines}, policy=policy)


def _machine(rng: random.Random, name: str, networks: list[str], router: bool = False) -> MachineSpec:
    interfaces = tuple(InterfaceSpec(network, "auto", "auto") for network in networks)
    count = rng.choice((None, None, 2)) if not router else None
    return MachineSpec(name, "debian-12", interfaces=interfaces, count=count, router=router)


SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_addresses_and_macs_are_unique_and_addresses_lie_in_their_subnet(seed: int) -> None:
    plan = build(lab(seed))
    seats = [
        (i.network, seat)
        for m in plan.machines
        for i in m.interfaces
        for seat in (i.address, i.address6)
        if seat is not None
    ]
    assert len(set(seats)) == len(seats)
    for network, seat in seats:
        assert seat.network in plan.network(network).subnets()
        assert seat.ip not in (seat.network.network_address, seat.network.broadcast_address)
    macs = [mac for m in plan.machines for mac in (m.management_mac, *(i.mac for i in m.interfaces))]
    assert len(set(macs)) == len(macs)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_builds_are_the_same_bytes_and_survive_json(seed: int) -> None:
    spec = lab(seed)
    assert repr(build(spec)) == repr(build(spec))
    assert from_json(to_json(build(spec))) == build(spec)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_appended_machine_moves_nobody(seed: int) -> None:
    spec = lab(seed)
    network = next(iter(spec.networks))
    late = MachineSpec("late", "debian-12", interfaces=(InterfaceSpec(network, "auto", "auto"),))
    bigger = build(replace(spec, machines={**spec.machines, "late": late}))
    for machine in build(spec).machines:
        assert bigger.machine(machine.name).interfaces == machine.interfaces
        assert bigger.machine(machine.name).routes == machine.routes


@pytest.mark.parametrize("seed", SEEDS)
def test_paths_are_the_same_both_ways(seed: int) -> None:
    plan = build(lab(seed))
    topology = Topology.of(plan.networks, plan.machines)
    for family in FAMILIES:
        for one, other in permutations(topology.networks, 2):
            there, back = topology.path(family, one, other), topology.path(family, other, one)
            assert (there is None) == (back is None)
            assert [hop.router for hop in there or ()] == [hop.router for hop in reversed(back or ())]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_route_leads_to_a_router_on_the_wire(seed: int) -> None:
    plan = build(lab(seed))
    legs = {
        (i.network, address): m.name
        for m in plan.machines
        if m.router
        for i in m.interfaces
        for address in i.addresses()
    }
    for machine in plan.machines:
        for route in (*machine.routes, *machine.source_routes):
            interface = machine.interface(route.device)
            assert legs[interface.network, route.gateway] != machine.name


@pytest.mark.parametrize("seed", SEEDS)
def test_what_passes_between_networks_has_a_rule_at_every_router_on_the_way(seed: int) -> None:
    plan = build(lab(seed))
    topology = Topology.of(plan.networks, plan.machines)
    for flow in plan.flows:
        if not flow.target_device or flow.source_device == plan.management.device:
            continue
        source = plan.machine(flow.source).interface(flow.source_device)
        target = plan.machine(flow.target).interface(flow.target_device)
        if source.network != target.network:
            path = topology.path(flow.family, source.network, target.network) or ()
            verdicts = {_verdict(plan.machine(hop.router), hop, flow, source) for hop in path}
            assert (verdicts == {"allow"}) == (flow.expected == "pass"), (seed, flow, verdicts)


def _verdict(router: MachinePlan, hop: Hop, flow: Flow, source: InterfacePlan) -> str:
    """What the first rule that fits does with a packet of the flow."""
    seat, target = source.seat(flow.family), ip_address(flow.address or "")
    assert seat is not None
    for rule in router.forward:
        devices = (rule.in_device, rule.out_device) == (hop.in_device, hop.out_device)
        ends = any(seat.ip in net for net in rule.sources) and any(target in net for net in rule.targets)
        if devices and ends and rule.family == flow.family and rule.ports.covers(flow.protocol, flow.port or None):
            return rule.action
    return "drop"
