"""Two guests on bridge wires, and the test on two more ports: what a switch shows to whom."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.plan.model import LabPlan
from labctl.providers.base import ExecResult, Job
from labctl.providers.qemu.provider import QemuProvider
from tests.support import plans
from tests.support.images import debian

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ICMP_ECHO = (b"\x08\x00", b"\x00\x00")


def a_plan(*names: str) -> LabPlan:
    """a and b on ``lan`` and, without peers, on ``pens``; c beside them; a sensor; r, the router of ``pens``."""
    lan = {name: plans.interface(name, "eth0", "lan", f"10.1.0.{i}/24") for i, name in enumerate("abc", 1)}
    pens = {
        name: plans.interface(name, "eth1", "pens", f"10.2.0.{i}/24", isolated=True) for i, name in enumerate("ab", 1)
    }
    machines = {
        "a": plans.machine("a", lan["a"], pens["a"]),
        "b": plans.machine("b", lan["b"], pens["b"]),
        "c": plans.machine("c", lan["c"]),
        "sensor": plans.machine("sensor", plans.interface("sensor", "eth0", "lan", promiscuous=True)),
        "r": plans.machine("r", plans.interface("r", "eth0", "pens", "10.2.0.9/24"), router=True),
    }
    networks = [plans.network("lan"), plans.network("pens", subnet="10.2.0.0/24", peers=False)]
    return plans.lab(networks, [machines[name] for name in names], settings={"qemu": {"wires": "bridge"}})


class Lab:
    """The guests a and b, and raw ports for the others."""

    def __init__(self, home: Path) -> None:
        self.provider = QemuProvider(home / "engine")
        self.plan = a_plan("a", "b")
        images = dict.fromkeys("ab", debian())
        self.ports: dict[str, int] = {}
        self.provider.up(Job(self.plan, dict.fromkeys("ab", "create"), images, home))
        whole, wires = a_plan("a", "b", "c", "sensor", "r"), self.provider._wires("bridge")
        for name in ("c", "sensor", "r"):
            (self.ports[name],) = wires.attach(whole, whole.machine(name)).fds
            os.set_blocking(self.ports[name], False)

    def guest(self, name: str, *argv: str) -> ExecResult:
        return self.provider.execute(self.plan, name, argv)

    def heard(self, port: str) -> list[bytes]:
        """The frames that have come to a port since it was asked last, without the tap's own header."""
        frames = []
        while True:
            try:
                frames.append(os.read(self.ports[port], 65536)[10:])
            except BlockingIOError:
                return frames


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("switch")
    try:
        yield Lab(home)
    finally:
        QemuProvider(home / "engine").destroy()


def pings(frames: list[bytes]) -> int:
    """How many ICMP echo requests and replies over IPv4 are among frames."""
    return sum(f[12:14] == b"\x08\x00" and f[23] == 1 and f[34:36] in ICMP_ECHO for f in frames)


def test_sensor_hears_every_packet_once_and_others_none(lab: Lab) -> None:
    assert lab.guest("a", "ping", "-c1", "-W5", "10.1.0.2").code == 0  # they know each other's addresses from now on
    for port in lab.ports:
        lab.heard(port)
    assert lab.guest("a", "ping", "-c3", "-i0.2", "-W5", "10.1.0.2").code == 0
    assert pings(lab.heard("sensor")) == 6
    assert pings(lab.heard("c")) == 0


def test_everybody_hears_broadcasts(lab: Lab) -> None:
    for port in lab.ports:
        lab.heard(port)
    lab.guest("a", "ping", "-c1", "-W1", "10.1.0.77")  # nobody: an ARP request
    for port in ("c", "sensor"):
        requests = [f for f in lab.heard(port) if f[12:14] == b"\x08\x06" and f[38:42] == socket.inet_aton("10.1.0.77")]
        assert requests and all(f[:6] == b"\xff" * 6 for f in requests)
    assert not [f for f in lab.heard("r") if f[38:42] == socket.inet_aton("10.1.0.77")]


def test_members_without_peers_do_not_meet_also_with_static_neighbours(lab: Lab) -> None:
    assert lab.guest("a", "ping", "-c1", "-W2", "10.2.0.2").code != 0
    mac = a_plan("b").machine("b").interfaces[1].mac
    lab.guest("a", "ip", "neighbour", "replace", "10.2.0.2", "lladdr", mac, "dev", "eth1")
    assert lab.guest("a", "ping", "-c1", "-W2", "10.2.0.2").code != 0
    lab.heard("r")
    lab.guest("a", "ping", "-c1", "-W1", "10.2.0.9")  # the control: the router hears a
    assert [f for f in lab.heard("r") if f[38:42] == socket.inet_aton("10.2.0.9")]


def test_a_guest_that_takes_anothers_mac_is_cut_off(lab: Lab) -> None:
    mac = a_plan("c").machine("c").interfaces[0].mac
    own = lab.plan.machine("a").interfaces[0].mac
    lab.guest("a", "ip", "link", "set", "eth0", "address", mac)
    try:
        for port in lab.ports:
            lab.heard(port)
        assert lab.guest("a", "ping", "-c1", "-W2", "10.1.0.2").code != 0
        assert [frame for frame in lab.heard("c") if frame[6:12] == bytes.fromhex(mac.replace(":", ""))] == []
    finally:
        lab.guest("a", "ip", "link", "set", "eth0", "address", own)
    assert lab.guest("a", "ping", "-c1", "-W5", "10.1.0.2").code == 0


def test_the_host_is_not_on_the_wire(lab: Lab) -> None:
    """Nobody answers for the addresses that a host would take, nor for a link-local neighbour."""
    for address in ("10.1.0.254", "10.2.0.254"):
        assert lab.guest("a", "ping", "-c1", "-W2", address).code != 0
    answers = lab.guest("a", "ping", "-6", "-c2", "-W2", "ff02::1%eth0").stdout.decode()
    own = lab.guest("a", "ip", "-6", "-brief", "address", "show", "dev", "eth0").stdout.decode()
    other = lab.guest("b", "ip", "-6", "-brief", "address", "show", "dev", "eth0").stdout.decode()
    heard = {word.rstrip(":").partition("%")[0] for word in answers.split() if word.startswith("fe80::")}
    assert heard <= {word.partition("/")[0] for word in (own + other).split() if word.startswith("fe80::")}
    assert "10.1.0." not in subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout
