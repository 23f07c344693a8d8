"""Rules for routers: what a policy is compiled to, and the text that nft takes."""

from __future__ import annotations

import pytest

from labctl.plan.firewall import render_nft
from labctl.plan.model import LabPlan
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit

LAB = """
    networks:
      a: {subnet: 10.1.0.0/24, subnet6: "fd00:a::/64"}
      b: {subnet: 10.2.0.0/24, subnet6: "fd00:b::/64"}
      c: {subnet: 10.3.0.0/24}
    machines:
      pc: {count: 2, networks: {a: {address: 10.1.0.11, address6: "fd00:a::11"}}}
      both: {networks: {a: {address: 10.1.0.21, address6: none}, c: 10.3.0.21}}
      bob: {networks: {b: {address: 10.2.0.12, address6: "fd00:b::12"}}}
      carol: {networks: {c: 10.3.0.13}}
      r1:
        router: true
        networks: {a: {address: 10.1.0.1, address6: "fd00:a::1"}, b: {address: 10.2.0.1, address6: "fd00:b::1"}}
      r2: {router: true, networks: {b: {address: 10.2.0.2, address6: "fd00:b::2"}, c: 10.3.0.2}}
    policy:
      - RULE
"""


def with_rule(rule: str) -> LabPlan:
    return plan_of(LAB.replace("RULE", f"{{{rule}}}"))


def rules(plan: LabPlan, router: str) -> list[str]:
    """A router's rules, one a line."""
    found = plan.machine(router).forward
    ends = [("+".join(map(str, r.sources)), "+".join(map(str, r.targets))) for r in found]
    return [
        f"{r.in_device}>{r.out_device} {source} > {target} {r.ports} {r.action}"
        for r, (source, target) in zip(found, ends, strict=True)
    ]


def test_a_network_end_is_its_subnet_in_both_families() -> None:
    assert rules(with_rule("from: a, to: b, ports: tcp/80"), "r1") == [
        "eth0>eth1 10.1.0.0/24 > 10.2.0.0/24 tcp/80 allow",
        "eth0>eth1 fd00:a::/64 > fd00:b::/64 tcp/80 allow",
    ]


def test_a_counted_end_is_every_copys_address_and_a_copy_is_its_own() -> None:
    assert rules(with_rule("from: pc, to: bob, ports: tcp/80"), "r1")[0] == (
        "eth0>eth1 10.1.0.11/32+10.1.0.12/32 > 10.2.0.12/32 tcp/80 allow"
    )
    assert rules(with_rule("from: pc-2, to: bob, ports: tcp/80"), "r1")[0] == (
        "eth0>eth1 10.1.0.12/32 > 10.2.0.12/32 tcp/80 allow"
    )


def test_every_router_on_the_way_has_the_rule_and_only_where_the_family_is_carried() -> None:
    plan = with_rule("from: a, to: carol, ports: icmp")
    assert rules(plan, "r1") == ["eth0>eth1 10.1.0.0/24 > 10.3.0.13/32 icmp allow"]
    assert rules(plan, "r2") == ["eth0>eth1 10.1.0.0/24 > 10.3.0.13/32 icmp allow"]


def test_a_machine_on_several_networks_is_meant_on_all_of_them_and_an_interface_on_one() -> None:
    assert len(rules(with_rule("from: both, to: bob, ports: tcp/80"), "r1")) == 1
    assert rules(with_rule("from: both, to: bob, ports: tcp/80"), "r2") == [
        "eth1>eth0 10.3.0.21/32 > 10.2.0.12/32 tcp/80 allow"
    ]
    assert rules(with_rule("from: both.c, to: bob, ports: tcp/80"), "r1") == []


def test_a_routers_own_traffic_needs_a_rule_at_the_next_router_only() -> None:
    plan = with_rule("from: r1, to: carol, ports: tcp/80")
    assert rules(plan, "r1") == []
    assert rules(plan, "r2") == [
        # the leg on b first hand; the leg on a too, for what is sent from that address
        "eth0>eth1 10.1.0.1/32 > 10.3.0.13/32 tcp/80 allow",
        "eth0>eth1 10.2.0.1/32 > 10.3.0.13/32 tcp/80 allow",
    ]


def lines(plan: LabPlan, router: str, chain: str) -> list[str]:
    text = render_nft(plan.machine(router))
    body = text.split(f"chain {chain} {{")[1].split("\n\t}")[0]
    return [line.strip() for line in body.splitlines() if line.strip()]


def test_the_forward_chain_says_nothing_by_default() -> None:
    plan = with_rule("from: pc, to: bob, ports: [tcp/80-90, udp/53, icmp, any]")
    assert lines(plan, "r1", "forward")[:5] == [
        "type filter hook forward priority filter; policy drop;",
        "ct state invalid drop",
        "ct state established,related accept",
        'iifname "eth0" oifname "eth1" ip saddr { 10.1.0.11, 10.1.0.12 } ip daddr 10.2.0.12 tcp dport 80-90 accept',
        'iifname "eth0" oifname "eth1" ip saddr { 10.1.0.11, 10.1.0.12 } ip daddr 10.2.0.12 udp dport 53 accept',
    ]
    assert "icmp type echo-request accept" in lines(plan, "r1", "forward")[5]
    assert lines(plan, "r1", "forward")[6].endswith("ip daddr 10.2.0.12 accept")
    assert "icmpv6 type echo-request accept" in "\n".join(lines(plan, "r1", "forward"))
    assert "reject" not in render_nft(plan.machine("r1"))


@pytest.mark.parametrize(
    ("ports", "answers"),
    [
        ("tcp/25", ["tcp dport 25 reject with tcp reset"]),
        ("udp/25-26", ["udp dport 25-26 reject with icmpx port-unreachable"]),
        ("icmp", ["icmp type echo-request reject with icmpx admin-prohibited"]),
        (
            "any",
            [
                "meta l4proto tcp reject with tcp reset",
                "meta l4proto udp reject with icmpx port-unreachable",
                "10.2.0.12 reject with icmpx admin-prohibited",
            ],
        ),
    ],
)
def test_a_reject_is_answered_as_the_protocol_has_it(ports: str, answers: list[str]) -> None:
    plan = with_rule(f"from: both, to: bob, ports: {ports}, action: reject")
    found = [line for line in lines(plan, "r2", "forward") if "reject" in line]
    assert len(found) == len(answers)
    assert all(line.endswith(answer) for line, answer in zip(found, answers, strict=True))


def test_the_input_chain_lets_neighbours_to_their_own_leg_only() -> None:
    own = lines(with_rule("from: a, to: bob, ports: tcp/80"), "r1", "input")
    assert 'iifname "eth0" ip daddr 10.1.0.1 accept' in own
    assert 'iifname "eth0" ip6 daddr fd00:a::1 accept' in own
    assert not any("eth0" in line and "10.2.0.1" in line for line in own)
    assert own.index('iifname "mgmt" drop') == own.index('iifname "mgmt" tcp dport 22 accept') + 1


def test_a_rule_that_covers_a_far_leg_opens_it() -> None:
    own = lines(with_rule("from: pc-1, to: b, ports: tcp/80"), "r1", "input")
    assert 'iifname "eth0" ip saddr 10.1.0.11 ip daddr 10.2.0.1 tcp dport 80 accept' in own
    own = lines(with_rule("from: a, to: r1.b, ports: tcp/80"), "r1", "input")
    assert 'iifname "eth0" ip saddr 10.1.0.0/24 ip daddr 10.2.0.1 tcp dport 80 accept' in own


def test_the_table_is_replaced_in_one_transaction() -> None:
    text = render_nft(with_rule("from: a, to: b, ports: any").machine("r1"))
    table = text.splitlines()[1:4]
    assert table == ["table inet labctl", "delete table inet labctl", "table inet labctl {"]
