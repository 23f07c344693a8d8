"""Blast radii of labs whose answers were worked out by hand."""

from __future__ import annotations

import pytest

from labctl.errors import UsageError
from labctl.plan.graph import dot, mermaid
from labctl.plan.reach import Blast, blast_of, blasts, merged
from labctl.spec.model import Ports
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit

DMZ = """
    networks: {out: {subnet: 10.1.0.0/24}, dmz: {subnet: 10.2.0.0/24}, lan: {subnet: 10.3.0.0/24}}
    machines:
      fw: {router: true, networks: [out, dmz, lan]}
      mallory: {networks: [out]}
      web: {networks: [dmz]}
      mail: {networks: [dmz]}
      desk: {networks: [lan]}
    policy:
      - {from: out, to: web, ports: [tcp/80, tcp/443]}
      - {from: web, to: desk, ports: [tcp/5432]}
      - {from: lan, to: mail, ports: [icmp]}
"""
PIVOT = """
    networks: {red: {subnet: 10.1.0.0/24}, blue: {subnet: 10.2.0.0/24}, green: {subnet: 10.3.0.0/24}}
    machines:
      mallory: {networks: [red]}
      jump: {networks: [red, blue]}
      vault: {networks: [blue]}
      island: {networks: [green]}
"""
CHAIN = """
    networks: {a: {subnet: 10.1.0.0/24}, mid: {subnet: 10.2.0.0/24}, z: {subnet: 10.3.0.0/24}}
    machines:
      alice: {networks: [a]}
      ra: {router: true, networks: [a, mid]}
      rz: {router: true, networks: [mid, z]}
      zoe: {networks: [z]}
    policy: [{from: alice, to: zoe, ports: [tcp/22]}]
"""


def radius(text: str, machine: str) -> Blast:
    return next(blast for blast in blasts(plan_of(text)) if blast.machine == machine)


def told(text: str, machine: str) -> dict[str, tuple[tuple[str, ...], str, bool]]:
    """Target to the path, the ports, and whether a router has to fall."""
    found = radius(text, machine).reached
    return {one.machine: (one.path, " ".join(map(str, one.ports)), one.router) for one in found}


def test_policy_and_neighbours_are_direct_and_what_falls_there_leads_on() -> None:
    assert told(DMZ, "mallory") == {
        "fw": (("mallory",), "any", False),
        "web": (("mallory",), "tcp/80 tcp/443", False),
        "mail": (("mallory", "web"), "any", False),
        "desk": (("mallory", "web"), "tcp/5432", False),
    }


def test_an_echo_gives_nobody_a_machine() -> None:
    """desk may ping mail and no more, so mail's neighbours are out of its reach unless the router falls."""
    assert told(DMZ, "desk") == {
        "fw": (("desk",), "any", False),
        "mail": (("desk",), "icmp", False),
        "mallory": (("desk", "fw"), "any", True),
        "web": (("desk", "fw"), "any", True),
    }


def test_a_machine_on_two_networks_is_a_bridge_for_whoever_owns_it() -> None:
    blast = radius(PIVOT, "mallory")
    assert told(PIVOT, "mallory") == {
        "jump": (("mallory",), "any", False),
        "vault": (("mallory", "jump"), "any", False),
    }
    assert blast.safe == ("island",)
    assert [one.machine for one in blast.by_steps(router=False)] == ["vault"]
    assert radius(PIVOT, "island").reached == ()


def test_a_fallen_router_speaks_in_the_name_of_those_behind_it() -> None:
    """ra is on no network of zoe's, but what it sends as alice, rz lets pass."""
    ways = {one.machine: one.ways for one in radius(CHAIN, "ra").reached}
    assert told(CHAIN, "ra")["zoe"] == (("ra",), "tcp/22", False)
    assert ways["zoe"] == ("in the name of alice: policy rule 1: alice to zoe",)
    assert told(CHAIN.replace("policy: [{from: alice, to: zoe, ports: [tcp/22]}]", ""), "ra")["zoe"] == (
        ("ra", "rz"),
        "any",
        True,
    )


def test_peers_that_are_kept_apart_do_not_reach_each_other() -> None:
    text = """
    networks: {rooms: {subnet: 10.1.0.0/24, peers: false}, hall: {subnet: 10.2.0.0/24}}
    machines: {gate: {router: true, networks: [rooms, hall]}, one: {networks: [rooms]}, two: {networks: [rooms]}}
    """
    assert told(text, "one") == {"gate": (("one",), "any", False), "two": (("one", "gate"), "any", True)}


def test_what_an_earlier_rule_rejects_is_not_open() -> None:
    text = DMZ.replace(
        "- {from: out, to: web, ports: [tcp/80, tcp/443]}",
        "- {from: mallory, to: web, ports: [tcp/100-200, udp/53], action: reject}\n"
        "      - {from: out, to: web, ports: any}",
    )
    assert told(text, "mallory")["web"][1] == "icmp tcp/1-99 tcp/201-65535 udp/1-52 udp/54-65535"


def test_a_later_rejection_takes_nothing_away() -> None:
    text = DMZ.replace("- {from: web,", "- {from: out, to: web, ports: any, action: reject}\n      - {from: web,")
    assert told(text, "mallory")["web"][1] == "tcp/80 tcp/443"


def test_the_way_out_of_a_network_is_told() -> None:
    text = """
    networks: {home: {subnet: 10.1.0.0/24, egress: nat}, cell: {subnet: 10.2.0.0/24}}
    machines: {a: {networks: [home]}, b: {networks: [cell]}}
    """
    assert (radius(text, "a").outside, radius(text, "b").outside) == (("home",), ())


@pytest.mark.parametrize(
    ("ports", "wanted"),
    [
        ([Ports("tcp", 80, 80), Ports("tcp", 81, 90), Ports("tcp", 85, 86)], "tcp/80-90"),
        ([Ports("udp", 53, 53), Ports("tcp", 53, 53), Ports("icmp")], "icmp tcp/53 udp/53"),
        ([Ports("tcp", 80, 80), Ports("any")], "any"),
        ([Ports("tcp", 1, 1), Ports("tcp", 3, 3)], "tcp/1 tcp/3"),
    ],
)
def test_ports_are_told_with_as_few_words_as_it_takes(ports: list[Ports], wanted: str) -> None:
    assert " ".join(map(str, merged(ports))) == wanted


def test_a_drawing_colours_machines_by_how_near_they_are() -> None:
    plan = plan_of(DMZ)
    blast = blast_of(plan, "desk")
    text = mermaid(plan, blast)
    assert "  class machine_desk owned\n" in text
    assert "  class machine_mail direct\n" in text
    assert "  class machine_web router_falls\n" in text
    assert text.startswith(mermaid(plan))
    assert dot(plan, blast).count("fillcolor") == 5
    assert "fillcolor" not in dot(plan)


def test_a_machine_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UsageError, match="no machine called 'dask'"):
        blast_of(plan_of(DMZ), "dask")
