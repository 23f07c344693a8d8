"""What this host says of a libvirt instance's wires, compared with the plan."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.host import nftables
from labctl.providers.vagrant import libvirt_wires, networks
from labctl.providers.vagrant.virsh import read_network
from tests.support.labs import plan_of

PLAN = plan_of(
    "networks: {red: {subnet: 10.1.0.0/24}, blue: {subnet: 10.2.0.0/24}}\n"
    "machines: {a: {image: debian-12, networks: [red]}, b: {image: debian-12, networks: [blue]}}"
)
RED, BLUE = PLAN.networks
ROOMS = plan_of(
    "networks: {rooms: {subnet: 10.3.0.0/24, peers: false}, hall: {subnet: 10.4.0.0/24}}\n"
    "machines:\n"
    "  a: {image: debian-12, networks: [rooms, hall]}\n"
    "  b: {image: debian-12, networks: [rooms]}\n"
    "  r: {image: debian-12, router: true, networks: [rooms, hall]}"
)
FILTER = """\
table inet t {
\tchain input {
\t\ttype filter hook input priority -10; policy accept;
\t\tiifname "lab" udp sport 68 accept
\t\tiifname { "lab", "lb" } drop
\t}
}
table arp t {
\tchain input {
\t\tiifname "lb" drop
\t}
}
"""


def test_a_network_that_libvirt_leads_out_or_serves() -> None:
    closed = networks.wire(RED)
    assert list(libvirt_wires._defined(RED, read_network(closed, True))) == []
    assert list(libvirt_wires._defined(RED, None)) == []
    opened = closed.replace("<bridge", "<forward mode='nat'/><ip address='10.1.0.1' prefix='24'/><bridge")
    told = list(libvirt_wires._defined(RED, read_network(opened, True)))
    assert told == [("red", "its libvirt network leads out: nat"), ("red", "its libvirt network answers names")]


def test_an_address_of_the_host_on_a_wire() -> None:
    local = {"local": "fe80::1", "scope": "link"}
    links = [
        {"ifname": networks.wire_bridge(RED), "addr_info": [local, {"local": "10.1.0.9", "scope": "global"}]},
        {"ifname": "eth0", "addr_info": [{"local": "192.0.2.1", "scope": "global"}]},
    ]
    assert list(libvirt_wires._addresses(PLAN, links)) == [("red", "the host has the address 10.1.0.9 on it")]


def test_a_port_that_nobody_planned_and_one_on_another_wire() -> None:
    a, b = (networks.tap(PLAN, machine.interfaces[0]) for machine in PLAN.machines)
    red, blue = networks.wire_bridge(RED), networks.wire_bridge(BLUE)
    there = [(a, red), (b, blue), ("vnet0", networks.management_bridge(PLAN)), ("eth1", "docker0")]
    ports = [{"ifname": name, "master": bridge} for name, bridge in there]
    assert list(libvirt_wires._plugged(PLAN, ports)) == []
    ports += [{"ifname": "odd", "master": blue}, {"ifname": a, "master": blue}]
    assert list(libvirt_wires._plugged(PLAN, ports)) == [
        ("blue", "port odd is not in the plan"),
        ("blue", f"port {a} is not in the plan"),
    ]


def device(machine: str, network: str) -> str:
    return next(networks.tap(ROOMS, i) for i in ROOMS.machine(machine).interfaces if i.network == network)


def cables(**changed: Any) -> list[dict[str, Any]]:
    """What ``ip`` says of the cables of ROOMS, as planned but for ``changed``: ``a_rooms={"isolated": False}``."""
    links = []
    for machine in ROOMS.machines:
        for i in machine.interfaces:
            port = {"master": networks.wire_bridge(ROOMS.network(i.network)), "flags": ["UP"], "isolated": i.isolated}
            port |= changed.pop(f"{machine.name}_{i.network}", {})
            isolated = port.pop("isolated")
            slave = {"info_slave_kind": "bridge", "info_slave_data": {"state": "forwarding", "isolated": isolated}}
            links.append({"ifname": networks.tap(ROOMS, i), "linkinfo": {"info_kind": "tun", **slave}, **port})
    assert not changed
    return links


@pytest.mark.parametrize(
    ("changed", "meeting", "apart", "mended"),
    [
        ({}, [], [], []),
        (
            {"a_rooms": {"isolated": False}, "b_rooms": {"isolated": False}},
            [(name, "rooms", f"the port of eth0 of {name} is not isolated, so it meets peers") for name in "ab"],
            [],
            [("a", "rooms", "type bridge_slave isolated on"), ("b", "rooms", "type bridge_slave isolated on")],
        ),
        (
            {"r_rooms": {"isolated": True}},
            [],
            ["the port of eth0 of r on rooms is isolated, so peers do not reach it"],
            [("r", "rooms", "type bridge_slave isolated off")],
        ),
        (
            {"a_hall": {"isolated": True}},
            [],
            ["the port of eth1 of a on hall is isolated, so peers do not reach it"],
            [("a", "hall", "type bridge_slave isolated off")],
        ),
        (
            {"b_rooms": {"master": "docker0"}},
            [("b", "rooms", "the cable of eth0 of b leads to docker0")],
            ["the cable of eth0 of b is not plugged into rooms"],
            [
                ("b", "rooms", "down"),
                ("b", "rooms", ""),
                ("b", "rooms", "type bridge_slave isolated on"),
                ("b", "rooms", "up"),
            ],
        ),
    ],
)
def test_whose_cables_meet(
    changed: dict[str, Any],
    meeting: list[tuple[str, str, str]],
    apart: list[str],
    mended: list[tuple[str, str, str]],
) -> None:
    links = cables(**changed)
    assert list(libvirt_wires._meeting(ROOMS, links)) == [(network, what) for _, network, what in meeting]
    assert list(libvirt_wires._apart(ROOMS, links)) == apart
    for machine in ROOMS.machines:
        lines = [
            f"link set dev {device(name, network)} {what or 'master ' + networks.wire_bridge(ROOMS.network(network))}"
            for name, network, what in mended
            if name == machine.name
        ]
        assert list(libvirt_wires._mending(ROOMS, machine.name, links)) == lines


def test_a_cable_that_is_out_leads_to_the_host_unless_it_is_dead() -> None:
    """libvirt removes a bridge under cables that are plugged into it."""
    for flags, told in (["UP"], [("rooms", "the cable of eth0 of a leads to the host itself")]), ([], []):
        links = cables(a_rooms={"flags": flags})
        del links[0]["master"]
        del links[0]["linkinfo"]["info_slave_data"]
        assert list(libvirt_wires._meeting(ROOMS, links)) == told
        assert list(libvirt_wires._apart(ROOMS, links)) == ["the cable of eth0 of a is not plugged into rooms"]


def test_a_kernel_that_does_not_say_whether_a_port_is_isolated_has_it_open() -> None:
    links = cables()
    del links[0]["linkinfo"]["info_slave_data"]["isolated"]
    told = [("rooms", "the port of eth0 of a is not isolated, so it meets peers")]
    assert list(libvirt_wires._meeting(ROOMS, links)) == told


def test_machines_that_do_not_run_have_no_cables() -> None:
    assert list(libvirt_wires._apart(ROOMS, [])) == list(libvirt_wires._meeting(ROOMS, [])) == []
    assert list(libvirt_wires._mending(ROOMS, "a", [])) == []


def test_a_network_whose_ports_are_to_be_isolated() -> None:
    rooms, hall = ROOMS.networks
    assert "<port isolated='yes'/>" in networks.wire(rooms)
    assert "<port" not in networks.wire(hall)
    assert [networks.opened(ROOMS, machine) for machine in ROOMS.machines] == [(), (), (device("r", "rooms"),)]
    assert list(libvirt_wires._defined(rooms, read_network(networks.wire(rooms), True))) == []
    open_one = networks.wire(rooms).replace("<port isolated='yes'/>", "")
    told = [("rooms", "its libvirt network lets whoever is plugged in meet peers")]
    assert list(libvirt_wires._defined(rooms, read_network(open_one, True))) == told


def test_a_packet_filter_that_is_gone_or_another() -> None:
    planned = nftables.tables(FILTER)
    assert planned.keys() == {"inet t", "arp t"}

    def told(listing: str) -> list[str]:
        return [what for _, what in libvirt_wires._filtered(nftables.tables(listing), planned)]

    assert told(FILTER + "table ip nat {\n}\n") == []
    assert told(FILTER[: FILTER.index("table arp")]) == ["this host has no packet filter arp t"]
    assert told(FILTER.replace("udp sport 68 ", "")) == [
        'this host\'s packet filter inet t has iifname "lab" accept',
        'this host\'s packet filter inet t lacks iifname "lab" udp sport 68 accept',
    ]
    first, second = FILTER.splitlines(keepends=True)[3:5]
    assert told(FILTER.replace(first + second, second + first)) == [
        "this host's packet filter inet t has its rules in another order"
    ]
