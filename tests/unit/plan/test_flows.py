"""What is expected to pass and what is not, and what is asked at all."""

from __future__ import annotations

from collections import Counter

import pytest

from labctl.plan.flows import Matrix
from labctl.plan.model import Flow, LabPlan
from tests.support.labs import flow, plan_of

pytestmark = pytest.mark.unit

TWO_SIDES = """
    networks: {a: {subnet: 10.1.0.0/24, subnet6: "fd00:a::/64"}, b: {subnet: 10.2.0.0/24}}
    machines:
      alice: {networks: [a]}
      bob: {networks: [b], services: [tcp/80, udp/500]}
      other: {networks: [b]}
      r: {router: true, networks: [a, b]}
"""


def with_policy(*rules: str, text: str = TWO_SIDES) -> LabPlan:
    return plan_of(text + "    policy:\n" + "".join(f"      - {{{rule}}}\n" for rule in rules))


def between(plan: LabPlan, source: str, target: str) -> dict[str, str]:
    return {
        f"{f.protocol}/{f.port}" if f.port else f.protocol: f.expected
        for f in plan.flows
        if (f.source, f.target, f.family) == (source, target, 4) and f.source_device != "mgmt"
    }


def test_neighbours_pass_and_networks_are_closed_to_each_other() -> None:
    plan = plan_of(TWO_SIDES)
    assert flow(plan, "bob", "other", "tcp", 9).expected == "pass"
    denied = flow(plan, "alice", "bob", "tcp", 22)
    assert (denied.expected, denied.why) == ("deny", "no policy rule lets it from a to b")


def test_plain_pairs_are_asked_one_port_per_protocol_and_declared_services() -> None:
    plan = plan_of(TWO_SIDES)
    assert between(plan, "bob", "other") == {"icmp": "pass", "tcp/9": "pass", "udp/9": "pass"}
    assert set(between(plan, "other", "bob")) == {"icmp", "tcp/9", "udp/9", "tcp/80", "udp/500"}


def test_the_edges_of_a_rule_are_asked_and_the_port_behind_it_is_closed() -> None:
    plan = with_policy("from: a, to: bob, ports: [tcp/8000-8010, udp/53, icmp]")
    asked = between(plan, "alice", "bob")
    assert {port for port, expected in asked.items() if expected == "pass"} == {
        "tcp/8000",
        "tcp/8010",
        "udp/53",
        "icmp",
    }
    assert asked["tcp/8011"] == asked["udp/54"] == asked["tcp/22"] == "deny"
    assert flow(plan, "alice", "bob", "tcp", 8000).why == "policy rule 1: a to bob tcp/8000-8010"


def test_a_port_behind_a_rule_may_belong_to_the_next_rule() -> None:
    plan = with_policy("from: a, to: bob, ports: tcp/80", "from: alice, to: b, ports: tcp/81")
    asked = between(plan, "alice", "bob")
    assert (asked["tcp/80"], asked["tcp/81"], asked["tcp/82"]) == ("pass", "pass", "deny")


def test_the_last_port_of_all_has_none_behind_it() -> None:
    asked = between(with_policy("from: a, to: bob, ports: tcp/60000-65535"), "alice", "bob")
    assert asked["tcp/65535"] == "pass"
    assert "tcp/65536" not in asked


def test_a_rule_for_one_machine_is_tried_on_its_neighbour_too() -> None:
    assert between(with_policy("from: a, to: bob, ports: tcp/8000"), "alice", "other")["tcp/8000"] == "deny"


def test_pairs_that_no_rule_comes_near_are_not_asked_its_ports() -> None:
    plan = with_policy("from: a, to: bob, ports: tcp/8000")
    assert "tcp/8000" not in between(plan, "other", "alice")
    assert "tcp/8000" not in between(plan, "other", "bob")


def test_the_port_of_a_rule_is_closed_in_the_other_direction() -> None:
    assert between(with_policy("from: a, to: bob, ports: tcp/8000-8010"), "bob", "alice")["tcp/8000"] == "deny"
    both = with_policy("from: a, to: bob, ports: tcp/8000", "from: bob, to: a, ports: tcp/8000")
    assert between(both, "bob", "alice")["tcp/8000"] == "pass"


def test_the_first_rule_that_covers_a_flow_decides() -> None:
    reject, allow = "from: alice, to: b, ports: tcp/25, action: reject", "from: a, to: b, ports: any"
    rejected = flow(with_policy(reject, allow), "alice", "bob", "tcp", 25)
    assert (rejected.expected, rejected.rejected) == ("deny", True)
    assert flow(with_policy(allow, reject), "alice", "bob", "tcp", 25).expected == "pass"
    assert flow(with_policy(reject, allow), "alice", "bob", "tcp", 26).expected == "pass"


def test_any_covers_every_protocol() -> None:
    assert set(between(with_policy("from: a, to: b, ports: any"), "alice", "bob").values()) == {"pass"}


def test_an_interface_end_means_that_interface_only() -> None:
    text = TWO_SIDES.replace("other: {networks: [b]}", "other: {networks: [a, b]}")
    plan = with_policy("from: alice, to: other.b, ports: tcp/80", "from: other.b, to: a, ports: tcp/81", text=text)
    assert flow(plan, "alice", "other", "tcp", 80, target_device="eth1").expected == "pass"
    assert flow(plan, "other", "alice", "tcp", 81, source_device="eth1").expected == "pass"


def test_a_family_without_a_path_is_denied_whatever_the_policy_says() -> None:
    text = TWO_SIDES.replace("b: {subnet: 10.2.0.0/24}", "b: {subnet: 10.2.0.0/24}, c: {subnet6: 'fd00:c::/64'}")
    plan = with_policy("from: a, to: b, ports: any", text=text.replace("bob: {networks: [b]", "bob: {networks: [b, c]"))
    denied = flow(plan, "alice", "bob", "icmp", family=6)
    assert (denied.expected, denied.why) == ("deny", "no router connects a with c")


def test_a_routers_far_address_needs_a_rule_and_its_near_one_does_not() -> None:
    plan = plan_of(TWO_SIDES)
    assert flow(plan, "alice", "r", "tcp", 9, target_device="eth0").expected == "pass"
    assert flow(plan, "alice", "r", "tcp", 22, target_device="eth1").expected == "deny"
    plan = with_policy("from: alice, to: r.b, ports: tcp/22")
    assert flow(plan, "alice", "r", "tcp", 22, target_device="eth1").expected == "pass"
    assert flow(plan, "alice", "r", "icmp", target_device="eth1").expected == "deny"


def test_a_router_is_asked_by_the_device_that_it_uses() -> None:
    used = {(f.source_device, f.target) for f in plan_of(TWO_SIDES).flows if f.source == "r" and f.family == 4}
    assert {pair for pair in used if pair[0] != "mgmt" and pair[1] != "host"} == {
        ("eth0", "alice"),
        ("eth1", "bob"),
        ("eth1", "other"),
    }


def test_without_peers_members_reach_routers_only() -> None:
    plan = plan_of(TWO_SIDES.replace("b: {subnet: 10.2.0.0/24}", "b: {subnet: 10.2.0.0/24, peers: false}"))
    denied = flow(plan, "bob", "other", "icmp")
    assert (denied.expected, denied.why) == ("deny", "b has peers: false")
    assert flow(plan, "bob", "r", "icmp", target_device="eth1").expected == "pass"
    assert flow(plan, "r", "bob", "icmp").expected == "pass"


def test_with_equal_subnets_an_address_means_the_own_network() -> None:
    plan = plan_of(
        """
        networks: {red: {subnet: 10.0.0.0/24}, blue: {subnet: 10.0.0.0/24}}
        machines:
          r1: {networks: {red: 10.0.0.5}}
          r2: {networks: {red: 10.0.0.6}}
          b1: {networks: {blue: 10.0.0.5}}
          b3: {networks: {blue: 10.0.0.7}}
        """
    )
    pairs = {(f.source, f.target) for f in plan.flows if f.source_device != "mgmt"}
    assert ("r2", "b1") not in pairs, "that address is r1's in the eyes of r2"
    denied = flow(plan, "r2", "b3", "icmp")
    assert (denied.expected, denied.why) == (
        "deny",
        "seen from blue the address lies on blue, where nobody has it".replace("blue", "red"),
    )
    assert flow(plan, "r1", "r2", "icmp").expected == "pass"


def test_bare_interfaces_have_no_flows() -> None:
    plan = plan_of("networks: {w: {}, a: {subnet: 10.0.0.0/24}}\nmachines: {m: {networks: [w, a]}, n: {networks: [w]}}")
    assert {(f.source, f.source_device) for f in plan.flows} == {("m", "eth1"), ("m", "mgmt"), ("n", "mgmt")}


def test_the_host_is_closed_to_every_interface_in_its_families() -> None:
    plan = plan_of(TWO_SIDES)
    asked = Counter((f.source, f.source_device, f.family) for f in plan.flows if f.target == "host")
    assert asked[("alice", "eth0", 4)] == asked[("alice", "eth0", 6)] == asked[("alice", "mgmt", 4)] == 3
    assert ("alice", "mgmt", 6) not in asked
    hosts = [f for f in plan.flows if f.target == "host"]
    assert all((f.expected, f.address, f.port, f.target_device) == ("deny", None, 0, "") for f in hosts)


def test_the_management_path_leads_nowhere() -> None:
    plan = plan_of(TWO_SIDES)
    mine = [f for f in plan.flows if (f.source, f.source_device) == ("alice", "mgmt")]
    assert {(f.address, f.protocol, f.port) for f in mine if f.target == "management"} == {
        ("10.0.2.2", "udp", 69),
        *((address, protocol, 53) for address in ("10.0.2.2", "10.0.2.3") for protocol in ("tcp", "udp")),
    }
    assert {f.target for f in mine if f.target_device} == {"bob", "other", "r"}
    assert {f.expected for f in mine} == {"deny"}


def test_flows_are_distinct() -> None:
    plan = with_policy("from: a, to: bob, ports: [tcp/80, tcp/79-80, udp/9]", "from: alice, to: b, ports: any")
    seen = Counter((f.source, f.source_device, f.address, f.protocol, f.port, f.target) for f in plan.flows)
    assert [cell for cell, times in seen.items() if times > 1 and cell[2] is not None] == []


def test_any_other_flow_can_be_asked_about() -> None:
    plan = with_policy("from: a, to: bob, ports: tcp/8000-8100")
    matrix = Matrix(plan)
    seats = {seat.machine.name: seat for seat in matrix.seats}
    answer = matrix.expected(seats["alice"], seats["bob"], 4, "tcp", 8055)
    assert answer is not None and answer.expected == "pass"
    assert matrix.expected(seats["alice"], seats["bob"], 6, "tcp", 8055) is None, "bob has no IPv6"


def test_thirty_machines_on_a_network_are_a_few_thousand_flows() -> None:
    plan = plan_of("networks: {a: {subnet: 10.0.0.0/24}}\nmachines: {m: {count: 30, networks: [a]}}")
    assert len(plan.flows) < 5000
    assert isinstance(plan.flows[0], Flow)
