"""Which way packets go."""

from __future__ import annotations

from itertools import permutations

import pytest

from labctl.errors import UsageError
from labctl.plan.build import build
from labctl.plan.model import LabPlan, RoutePlan
from labctl.plan.topology import FAMILIES, Topology
from tests.support.labs import flow, plan_of, spec_of

pytestmark = pytest.mark.unit

CHAIN = """
    networks:
      a: {subnet: 10.1.0.0/24}
      b: {subnet: 10.2.0.0/24, subnet6: "fd00:b::/64"}
      c: {subnet: 10.3.0.0/24, subnet6: "fd00:c::/64"}
    machines:
      alice: {networks: [a]}
      bob: {networks: [b]}
      carol: {networks: [c]}
      r1: {router: true, networks: {a: 10.1.0.1, b: 10.2.0.1}}
      r2: {router: true, networks: {b: 10.2.0.2, c: 10.3.0.1}}
"""
RING = """
    networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}, c: {subnet: 10.3.0.0/24}, d: {subnet: 10.4.0.0/24}}
    machines:
      r1: {router: true, networks: [a, b]}
      r2: {router: true, networks: [b, c]}
      r3: {router: true, networks: [c, d]}
      r4: {router: true, networks: [d, a]}
      r5: {router: true, networks: [a, b, c, d]}
      m: {networks: [a]}
"""


def shown(routes: tuple[RoutePlan, ...]) -> list[str]:
    return [f"{'default' if not r.target.prefixlen else r.target} via {r.gateway} {r.device}" for r in routes]


def topology(plan: LabPlan) -> Topology:
    return Topology.of(plan.networks, plan.machines)


def test_the_default_route_is_the_router_of_the_network() -> None:
    assert shown(plan_of(CHAIN).machine("alice").routes) == ["default via 10.1.0.1 eth0"]


def test_with_two_routers_each_remote_network_is_reached_through_the_right_one() -> None:
    plan = plan_of(CHAIN)
    assert shown(plan.machine("bob").routes) == [
        "default via 10.2.0.1 eth0",
        "10.3.0.0/24 via 10.2.0.2 eth0",
        f"default via {plan.machine('r2').interfaces[0].address6.ip} eth0",  # type: ignore[union-attr]
    ]


def test_routers_know_every_remote_network_and_have_no_default() -> None:
    plan = plan_of(CHAIN)
    assert shown(plan.machine("r1").routes)[0] == "10.3.0.0/24 via 10.2.0.2 eth1"
    assert shown(plan.machine("r2").routes) == ["10.1.0.0/24 via 10.2.0.1 eth0"]


def test_a_family_is_carried_only_where_both_legs_have_it() -> None:
    plan = plan_of(CHAIN)
    assert topology(plan).path(6, "a", "c") is None
    assert topology(plan).path(6, "b", "c") is not None
    assert flow(plan, "bob", "carol", "tcp", 22, family=6).why == "no policy rule lets it from b to c"


def test_gateway_replaces_the_default_route_only() -> None:
    plan = plan_of(CHAIN.replace("bob: {networks: [b]}", "bob: {networks: [b], gateway: 10.2.0.2}"))
    assert shown(plan.machine("bob").routes)[:2] == ["default via 10.2.0.2 eth0", "10.1.0.0/24 via 10.2.0.1 eth0"]


def test_a_gateway_that_is_no_router_gets_everything_and_nothing_comes_back() -> None:
    policy = "    policy: [{from: a, to: b, ports: any}, {from: b, to: a, ports: any}]\n"
    text = CHAIN.replace(
        "alice: {networks: [a]}", "alice: {networks: [a], gateway: 10.1.0.66}\n      mitm: {networks: {a: 10.1.0.66}}"
    )
    plan = plan_of(text + policy)
    assert shown(plan.machine("alice").routes) == ["default via 10.1.0.66 eth0"]
    assert flow(plan, "alice", "bob", "icmp").why == "alice does not send it to a router"
    assert flow(plan, "bob", "alice", "icmp").why == "alice does not send its answers to a router"
    assert flow(plan, "mitm", "bob", "icmp").expected == "pass"


def test_a_gateway_beyond_every_subnet_is_an_error() -> None:
    from dataclasses import replace
    from ipaddress import IPv4Address

    spec = spec_of(CHAIN)
    lost = replace(spec.machines["alice"], gateway=IPv4Address("10.9.9.9"))
    with pytest.raises(UsageError, match=r"alice cannot reach its gateway 10\.9\.9\.9"):
        build(replace(spec, machines={**spec.machines, "alice": lost}))


def test_a_machine_on_several_networks_answers_where_the_question_came_in() -> None:
    plan = plan_of(CHAIN.replace("carol: {networks: [c]}", "carol: {networks: [a, c]}"))
    carol = plan.machine("carol")
    assert shown(carol.routes) == [
        "default via 10.1.0.1 eth0",
        f"default via {plan.machine('r2').interfaces[1].address6.ip} eth1",  # type: ignore[union-attr]
    ]
    assert shown(carol.source_routes) == ["default via 10.1.0.1 eth0", "default via 10.3.0.1 eth1"]


def test_the_main_table_prefers_the_way_with_the_fewest_routers() -> None:
    text = CHAIN.replace("carol: {networks: [c]}", "carol: {networks: [a, c]}").replace(
        "machines:", "machines:\n      r3: {router: true, networks: [c, far]}", 1
    )
    plan = plan_of(text.replace("networks:", "networks:\n      far: {subnet: 10.9.0.0/24}", 1))
    r3 = plan.machine("r3").interfaces[0].address
    assert r3 is not None
    assert f"10.9.0.0/24 via {r3.ip} eth1" in shown(plan.machine("carol").routes)


def test_a_machine_twice_on_one_network_has_a_table_for_each() -> None:
    plan = plan_of(CHAIN.replace("alice: {networks: [a]}", "alice: {networks: [{network: a}, {network: a}]}"))
    assert shown(plan.machine("alice").source_routes) == ["default via 10.1.0.1 eth0", "default via 10.1.0.1 eth1"]


@pytest.mark.parametrize("family", FAMILIES)
def test_paths_are_the_same_both_ways(family: int) -> None:
    found = topology(plan_of(RING))
    for source, target in permutations(found.networks, 2):
        there, back = found.path(family, source, target), found.path(family, target, source)  # type: ignore[arg-type]
        if family == 6:
            assert there is None and back is None
            continue
        assert there and back
        assert [(hop.router, hop.in_device, hop.out_device) for hop in there] == [
            (hop.router, hop.out_device, hop.in_device) for hop in reversed(back)
        ]


def test_of_two_equally_long_ways_both_directions_take_the_same() -> None:
    """Whoever took the router with the smallest name first would go by m1 and m3, and come back by m0 and m2."""
    found = topology(
        plan_of(
            """
            networks:
              {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}, c: {subnet: 10.3.0.0/24}, d: {subnet: 10.4.0.0/24}}
            machines:
              m1: {router: true, networks: [a, b]}
              m3: {router: true, networks: [b, c]}
              m0: {router: true, networks: [c, d]}
              m2: {router: true, networks: [d, a]}
            """
        )
    )
    there, back = found.path(4, "a", "c"), found.path(4, "c", "a")
    assert there is not None and back is not None
    assert [hop.router for hop in there] == [hop.router for hop in reversed(back)]


def test_fewest_routers_win() -> None:
    found = topology(plan_of(RING))
    assert all(len(found.path(4, one, two) or ()) == 1 for one, two in permutations(found.networks, 2))


def test_a_router_leg_behind_another_router_answers_through_it() -> None:
    """With two routers between the same networks only one is on the way; the other's far leg is reached through it."""
    plan = plan_of(
        """
        networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}}
        machines:
          r1: {router: true, networks: {a: 10.1.0.1, b: 10.2.0.1}}
          r2: {router: true, networks: {a: 10.1.0.2, b: 10.2.0.2}}
          alice: {networks: [a]}
        """
    )
    path = topology(plan).path(4, "a", "b")
    assert path is not None and len(path) == 1
    on_the_way, other = ("r1", "r2") if path[0].router == "r1" else ("r2", "r1")
    assert plan.machine(on_the_way).source_routes == ()
    leg = 1 if on_the_way == "r1" else 2
    assert shown(plan.machine(other).source_routes) == [
        f"10.2.0.0/24 via 10.1.0.{leg} eth0",
        f"10.1.0.0/24 via 10.2.0.{leg} eth1",
    ]
