"""What the kernel says of wires that somebody has opened by hand, and that labctl's own are closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from labctl.host.files import remove_tree
from labctl.host.ports import candidates
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.qemu import exits
from labctl.providers.qemu.bridge import BridgeWires
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.qmp import monitor
from labctl.providers.qemu.wires import bridge_of, port_of
from tests.support import plans

pytestmark = pytest.mark.integration


def plan() -> LabPlan:
    """a and a sensor on ``lan``; p and q, who may not meet, on ``pens``."""
    nics = {
        "a": plans.interface("a", "eth0", "lan"),
        "sensor": plans.interface("sensor", "eth0", "lan", promiscuous=True),
        "p": plans.interface("p", "eth0", "pens", isolated=True),
        "q": plans.interface("q", "eth0", "pens", isolated=True),
    }
    networks = [plans.network("lan"), plans.network("pens", peers=False)]
    return plans.lab(networks, [plans.machine(name, nic) for name, nic in nics.items()])


class Plant:
    """Wires with a tap for every NIC."""

    def __init__(self, folder: Path, wanted: LabPlan) -> None:
        self.plan = wanted
        self.layout = Layout.of(folder)
        self.layout.prepare()
        self.wires = BridgeWires(self.layout, Runner())
        self.wires.prepare(self.plan)
        self.taps = [fd for machine in self.plan.machines for fd in self.wires.attach(self.plan, machine).fds]
        self.names = {m.name: port_of(m.name, "eth0") for m in self.plan.machines}
        self.names |= {network.name: bridge_of(network) for network in self.plan.networks}
        self.names["mac"] = self.plan.machine("a").interfaces[0].mac

    def end(self) -> None:
        self.wires.destroy()
        remove_tree(self.layout.runtime)
        for fd in self.taps:
            os.close(fd)

    def inside(self, script: str) -> None:
        namespace = self.wires._namespace()
        assert namespace is not None
        Runner().run([*namespace.enter(), "sh", "-euc", script.format(**self.names)])

    def openings(self) -> list[str]:
        return [f"{network}: {what}" for network, what in self.wires.openings(self.plan)]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    found = Plant(tmp_path_factory.mktemp("audit") / "engine", plan())
    try:
        yield found
    finally:
        found.end()


COPY = 'nft "add table netdev labctl; add chain netdev labctl x {{ type filter hook ingress device {p} priority 0; }}'


@pytest.mark.parametrize(
    ("deed", "undo", "said"),
    [
        (
            "ip addr add 10.1.0.9/24 dev {lan}",
            "ip addr flush dev {lan}",
            ["lan: the host has the address 10.1.0.9 on {lan}"],
        ),
        (
            "ip addr add 10.1.0.9/24 dev {a}",
            "ip addr flush dev {a}",
            ["lan: the host has the address 10.1.0.9 on eth0 of a"],
        ),
        (
            "ip link add one type veth peer name two; ip link set one up",
            "ip link del one",
            [": the host's side has a device one that is not in the plan"],
        ),
        (
            "bridge link set dev {p} isolated off",
            "bridge link set dev {p} isolated on",
            ["pens: the port of eth0 of p is not isolated, so it meets peers"],
        ),
        (
            "bridge link set dev {a} learning on locked off",
            "bridge link set dev {a} learning off locked on",
            [
                "lan: the port of eth0 of a has learning on: it learns addresses, so a guest can take another's",
                "lan: the port of eth0 of a has locked off: it takes frames that are not from its own address",
            ],
        ),
        (
            "bridge link set dev {a} flood on",
            "bridge link set dev {a} flood off",
            ["lan: the port of eth0 of a has flood on: it gets unicast that is for others"],
        ),
        (
            "bridge fdb replace {mac} dev {sensor} master static",
            "bridge fdb replace {mac} dev {a} master static",
            ["lan: frames to {mac} are sent to eth0 of sensor"],
        ),
        (
            "tc qdisc add dev {a} clsact",
            "tc qdisc del dev {a} clsact",
            [
                "lan: what passes eth0 of a goes through a queue of the kind clsact, which can send it elsewhere",
            ],
        ),
        (
            "nft add table bridge x",
            "nft delete table bridge x",
            [": the host's side has a packet filter bridge x that is not in the plan"],
        ),
        (
            COPY + '; add rule netdev labctl x dup to {a}"',
            "nft delete chain netdev labctl x",
            ["pens: what eth0 of p sends is copied to eth0 of a"],
        ),
        (
            "echo 1 >/proc/sys/net/ipv4/ip_forward",
            "echo 0 >/proc/sys/net/ipv4/ip_forward",
            [": the host's side has ipv4.conf.all.forwarding = 1"],
        ),
        (
            "echo 1 >/proc/sys/net/ipv4/conf/{lan}/proxy_arp",
            "echo 0 >/proc/sys/net/ipv4/conf/{lan}/proxy_arp",
            [": the host's side has ipv4.conf.{lan}.proxy_arp = 1"],
        ),
    ],
)
def test_what_somebody_opens_is_told_until_it_is_closed(plant: Plant, deed: str, undo: str, said: list[str]) -> None:
    assert plant.openings() == []  # a declared sensor is none
    plant.inside(deed)
    try:
        assert plant.openings() == [text.format(**plant.names) for text in said]
    finally:
        plant.inside(undo)
    assert plant.openings() == []


def test_wires_without_root_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.providers.qemu.bridge_trial.needs_user_namespace", lambda: True)
    plant = Plant(tmp_path / "engine", plan())
    try:
        assert plant.wires._namespace().user  # type: ignore[union-attr]
        assert plant.openings() == []
        plant.inside("ip addr add 10.1.0.9/24 dev {lan}")
        assert len(plant.openings()) == 1
    finally:
        plant.end()


@pytest.fixture
def way_out(tmp_path: Path) -> Iterator[Plant]:
    """Wires of a machine on ``lan``, which has a way out."""
    ends = {"exit": IPv4Address("10.1.0.1"), "resolver": IPv4Address("10.1.0.2")}
    machine = plans.machine("a", plans.interface("a", "eth0", "lan"))
    found = Plant(tmp_path / "engine", plans.lab([plans.network("lan", egress="nat", **ends)], [machine]))
    try:
        yield found
    finally:
        found.end()


def test_a_filter_that_lets_more_to_a_way_out_is_told(way_out: Plant) -> None:
    assert way_out.openings() == []
    way_out.inside("nft add element bridge labctl own {{ 203.0.113.77 }}")  # another address of the host's
    assert way_out.openings() == []
    way_out.inside("nft insert rule bridge labctl out ip daddr 10.9.9.9 accept")
    assert way_out.openings() == [": the filter before the ways out has ip daddr 10.9.9.9 accept"]
    way_out.wires.prepare(way_out.plan)
    assert way_out.openings() == []
    way_out.inside("nft delete element bridge labctl near {{ 10.0.0.0/8 }}")
    has, lacks = way_out.openings()
    assert has.startswith(": the filter before the ways out has elements")
    assert "10.0.0.0/8" in lacks
    way_out.inside("nft flush chain bridge labctl out")
    assert way_out.openings() == ["lan: nothing filters what goes to the way out of lan"]


def test_a_way_out_that_leads_in_is_told(way_out: Plant) -> None:
    network = way_out.plan.networks[0]
    port = next(candidates(4712))
    with monitor(exits.process(way_out.layout, network.key).socket) as session:
        session.human(f"hostfwd_add way tcp:127.0.0.1:{port}-10.1.0.7:22")
    (told,) = way_out.openings()
    assert told == f"lan: tcp port {port} of this host's 127.0.0.1 leads to 10.1.0.7 port 22 by the way out of lan"
