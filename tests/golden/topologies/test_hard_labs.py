"""Two labs with everything that is hard at once, against a matrix written by hand from their pictures and policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.plan.model import Flow, LabPlan
from labctl.spec.load import check, load

pytestmark = pytest.mark.golden

LABS = Path(__file__).resolve().parents[2] / "labs"

# Who may cross from which network, to whom on which, over which families, with what. Nothing else may.
HARD = """
    staff-1 office  web       edge    4,6  tcp/9000-9010 icmp
    staff-2 office  web       edge    4,6  tcp/22 tcp/9000-9010 icmp
    bastion office  web       edge    4,6  tcp/22 tcp/9000-9010 icmp
    web     edge    staff-1   office  4,6  icmp
    web     edge    staff-2   office  4,6  icmp
    outsider edge   bastion   office  4,6  tcp/22
    bastion vault   web       edge    4    udp/9000-9010
    db      vault   outsider  edge    4    tcp/8000-8100
"""
HARD_REJECTED = {("staff-1", "web", 4, "tcp", 22), ("staff-1", "web", 6, "tcp", 22)}
HARD_MEMBERS = {
    ("edge", 4): {"r1", "web", "outsider"},
    ("edge", 6): {"r1", "web", "outsider"},
    ("core", 4): {"r1", "r2"},
    ("core", 6): {"r1", "r2"},
    ("office", 4): {"r2", "staff-1", "staff-2", "bastion"},
    ("office", 6): {"r2", "staff-1", "staff-2", "bastion"},
    ("vault", 4): {"r2", "bastion", "db"},
}

PEERS = """
    guest-1 lobby  kiosk    hall   4  tcp/22 icmp
    guest-2 lobby  kiosk    hall   4  tcp/22 icmp
    guest-3 lobby  kiosk    hall   4  tcp/22 icmp
    kiosk   hall   guest-2  lobby  4  tcp/22
"""
PEERS_MEMBERS = {("hall", 4): {"gate", "kiosk"}}

Crossing = tuple[str, str, str, str, int]


def _plan(name: str) -> LabPlan:
    assert check(LABS / name) == ()
    return build(load(LABS / name))


def _allowed(table: str) -> dict[Crossing, list[tuple[str, int, int]]]:
    """The table as: crossing to protocols with a first and a last port."""
    found: dict[Crossing, list[tuple[str, int, int]]] = {}
    for line in table.strip().splitlines():
        source, here, target, there, families, *ports = line.split()
        for family in families.split(","):
            found[source, here, target, there, int(family)] = [_ports(text) for text in ports]
    return found


def _ports(text: str) -> tuple[str, int, int]:
    protocol, _, numbers = text.partition("/")
    first, _, last = numbers.partition("-")
    return protocol, int(first or 0), int(last or first or 0)


def _by_crossing(plan: LabPlan) -> list[tuple[Crossing, Flow]]:
    networks = {(m.name, i.device): i.network for m in plan.machines for i in m.interfaces}
    return [
        ((f.source, here, f.target, there, f.family), f)
        for f in plan.flows
        if (here := networks.get((f.source, f.source_device))) and (there := networks.get((f.target, f.target_device)))
    ]


@pytest.mark.parametrize(("name", "table"), [("hard", HARD), ("hard-peers", PEERS)])
def test_what_crosses_is_what_the_table_says(name: str, table: str) -> None:
    allowed = _allowed(table)
    seen: set[tuple[Crossing, str, int]] = set()
    for crossing, flow in _by_crossing(_plan(name)):
        if crossing[1] == crossing[3]:
            continue
        ports = allowed.get(crossing, [])
        passes = any(protocol == flow.protocol and first <= flow.port <= last for protocol, first, last in ports)
        assert (flow.expected == "pass") == passes, flow
        seen.add((crossing, flow.protocol, flow.port))
    wanted = {(c, protocol, port) for c, ports in allowed.items() for protocol, *edges in ports for port in edges}
    assert wanted - seen == set(), "the matrix does not ask about these"


@pytest.mark.parametrize(("name", "members"), [("hard", HARD_MEMBERS), ("hard-peers", PEERS_MEMBERS)])
def test_members_of_a_network_reach_each_other(name: str, members: dict[tuple[str, int], set[str]]) -> None:
    pairs: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for (source, here, target, there, family), flow in _by_crossing(_plan(name)):
        if here == there and (here, family) in members:
            assert flow.expected == "pass", flow
            pairs.setdefault((here, family), set()).add((source, target))
    assert pairs == {key: {(a, b) for a in names for b in names if a != b} for key, names in members.items()}


def test_guests_reach_the_gate_and_not_each_other() -> None:
    guests = ("guest-1", "guest-2", "guest-3")
    found: dict[tuple[str, str, int], set[str]] = {}
    for (source, here, target, there, family), flow in _by_crossing(_plan("hard-peers")):
        if here == there == "lobby":
            found.setdefault((source, target, family), set()).add(flow.expected)
    assert found == {
        **{(a, b, f): {"deny"} for a in guests for b in guests if a != b for f in (4, 6)},
        **{pair: {"pass"} for a in guests for f in (4, 6) for pair in ((a, "gate", f), ("gate", a, f))},
    }


def test_only_what_the_policy_rejects_is_refused() -> None:
    flows = _plan("hard").flows
    assert {(f.source, f.target, f.family, f.protocol, f.port) for f in flows if f.rejected} == HARD_REJECTED


def test_the_bare_wire_has_no_addresses_and_no_flows() -> None:
    plan = _plan("hard")
    assert [i.addresses() for m in plan.machines for i in m.interfaces if i.network == "wire"] == [(), ()]
    assert not [
        flow
        for flow in plan.flows
        if "tape" in (flow.source, flow.target) and flow.address is not None and flow.source_device != "mgmt"
    ]
    assert plan.machine("tape").interfaces[0].mac == "52:54:00:ab:cd:ef"


def test_counted_machines_take_addresses_in_order() -> None:
    plan = _plan("hard")
    addresses = [str(plan.machine(name).interfaces[0].address) for name in ("staff-1", "staff-2")]
    assert addresses == ["172.20.0.1/12", "172.20.0.2/12"]


def test_routers_of_a_chain_know_what_lies_behind_the_other() -> None:
    plan = _plan("hard")
    r1, r2 = plan.machine("r1"), plan.machine("r2")
    far = {str(route.target) for route in r1.routes}, {str(route.target) for route in r2.routes}
    assert far == (
        {"172.16.0.0/12", "192.168.40.0/22", "fd00:30:0:1::/80"},
        {"198.51.100.8/29", "2001:db8:e::/64"},
    )
    core = {address for leg in (r2.interfaces[0],) for address in leg.addresses()}
    assert {route.gateway for route in r1.routes} == core


def test_a_dual_homed_host_answers_where_the_question_came_in() -> None:
    plan = _plan("hard")
    bastion, r2 = plan.machine("bastion"), plan.machine("r2")
    assert not bastion.router
    by_device = {(route.device, route.target.version): route.gateway for route in bastion.source_routes}
    office, vault = (next(leg for leg in r2.interfaces if leg.network == name) for name in ("office", "vault"))
    assert by_device == {
        ("eth0", 4): office.addresses()[0],
        ("eth1", 4): vault.addresses()[0],
    }
