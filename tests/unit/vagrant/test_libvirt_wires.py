"""What this host says of a libvirt instance's wires, compared with the plan."""

from __future__ import annotations

from labctl.host import nftables
from labctl.providers.vagrant import libvirt_wires, networks
from labctl.providers.vagrant.virsh import read_network
from tests.support.labs import plan_of

PLAN = plan_of(
    "networks: {red: {subnet: 10.1.0.0/24}, blue: {subnet: 10.2.0.0/24}}\n"
    "machines: {a: {image: debian-12, networks: [red]}, b: {image: debian-12, networks: [blue]}}"
)
RED, BLUE = PLAN.networks
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
