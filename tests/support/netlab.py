"""A lab of network namespaces: guests, a router and a "host", all real to the kernel, and no virtual machine."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest

from labctl import inside
from labctl.errors import GuestError
from labctl.host.runner import Runner
from labctl.plan.firewall import render_nft
from labctl.plan.model import Flow, ForwardRule, InterfacePlan, LabPlan, MachinePlan, ManagementPlan, NetworkPlan
from labctl.providers.base import ExecResult, MachineStatus, Observed, ObservedNic
from labctl.spec.model import Ports
from labctl.verify.model import Report
from labctl.verify.run import verify
from tests.support.inside import Desk

PORT = 4444  # no service is declared there
HOST_ADDRESS, HOST_ADDRESS6 = "192.0.2.77", "fd00:77::77"
MANAGEMENT = ManagementPlan(
    IPv4Network("10.0.2.0/24"), IPv4Address("10.0.2.2"), IPv4Address("10.0.2.3"), IPv4Interface("10.0.2.15/24")
)
NETWORKS = {
    "outside": ("203.0.113.0/24", "fd00:a::/64"),
    "dmz": ("198.51.100.0/28", "fd00:b::/64"),
    "lan": ("10.10.10.0/24", "fd00:c::/64"),
}
SEATS = {  # machine: network: last part of its address
    "attacker": {"outside": 6},
    "fw": {"outside": 1, "dmz": 1, "lan": 1},
    "web": {"dmz": 4},
    "office": {"lan": 7},
}
POLICY = {("outside", "web"), ("lan", "web")}  # tcp/80, IPv4 and IPv6
CLOSED_HOST = 'table inet host { chain input { type filter hook input priority 0; iifname "mg*" drop; }; }'
SERVER = """
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print(flush=True)
while True:
    server.accept()[0].close()
"""
_COUNT = itertools.count()


def machine_plan(name: str, place: int) -> MachinePlan:
    interfaces = []
    for number, (network, last) in enumerate(SEATS[name].items()):
        subnet, subnet6 = NETWORKS[network]
        interfaces.append(
            InterfacePlan(
                device=f"eth{number}",
                network=network,
                mac=f"52:54:00:00:{place:02x}:{number:02x}",
                address=IPv4Interface(f"{IPv4Network(subnet)[last]}/{IPv4Network(subnet).prefixlen}"),
                address6=IPv6Interface(f"{IPv6Network(subnet6)[last]}/64"),
                promiscuous=False,
                isolated=False,
            )
        )
    forward = tuple(
        ForwardRule(family, device, "eth1", (ip_network(net),), (ip_network(web),), Ports("tcp", 80, 80), "allow")
        for device, network in (("eth0", "outside"), ("eth2", "lan"))
        for family, net, web in (
            (4, NETWORKS[network][0], "198.51.100.4/32"),
            (6, NETWORKS[network][1], "fd00:b::4/128"),
        )
    )
    return MachinePlan(
        name=name, entry=name, uuid=f"00000000-0000-4000-8000-{place:012x}", image="none", os="linux", description="",
        memory=1 << 28, cpus=1, router=name == "fw", gui=False, interfaces=tuple(interfaces),
        management_mac=f"52:54:00:00:{place:02x}:ff", routes=(), source_routes=(),
        forward=forward if name == "fw" else (),
        services=(Ports("tcp", 80, 80),) if name == "web" else (), packages=(), steps=(), hosts=(), users=(), disks=(),
        depends_on=(), winrm=None, management_address=IPv4Interface(f"10.0.2.{15 + place}/24"),
    )  # fmt: skip


def flows(machines: Sequence[MachinePlan]) -> Iterator[Flow]:
    """Every pair of interfaces, and the host from every NIC."""
    for source, target in itertools.permutations(machines, 2):
        for leg, door in itertools.product(source.interfaces, target.interfaces):
            if any(i.network == door.network for i in source.interfaces) and leg.network != door.network:
                continue  # the source has a NIC of its own there
            for family in (4, 6):
                near = leg.network == door.network
                allowed = (leg.network, target.name) in POLICY
                for protocol, port in (("icmp", 0), ("tcp", 80), ("tcp", PORT), ("udp", PORT)):
                    if port == 80 and target.name != "web":
                        continue
                    passes = near or (allowed and (protocol, port) == ("tcp", 80))
                    address = str(door.addresses()[0 if family == 4 else 1])
                    yield Flow(
                        source.name, leg.device, target.name, door.device, family, protocol, port,
                        "pass" if passes else "deny", address, why="policy" if passes and not near else "",
                    )  # fmt: skip
    for machine in machines:
        for device in ("mgmt", "eth0"):
            for protocol in ("icmp", "tcp", "udp"):
                yield Flow(machine.name, device, "host", "", 4, protocol, 0, "deny")
        yield Flow(machine.name, "eth0", "host", "", 6, "tcp", 0, "deny")


def lab_plan() -> LabPlan:
    machines = tuple(machine_plan(name, place) for place, name in enumerate(SEATS))
    networks = tuple(
        NetworkPlan(name, f"tiny-{name}", "0" * 8, IPv4Network(v4), IPv6Network(v6), True, "none")
        for name, (v4, v6) in NETWORKS.items()
    )
    return LabPlan(
        "tiny", "default", "0" * 8, "netns", "", False, networks, machines, MANAGEMENT, (tuple(SEATS),),
        tuple(flows(machines)),
    )  # fmt: skip


def sh(*argv: str, stdin: str = "", check: bool = True) -> str:
    return subprocess.run(argv, input=stdin, check=check, capture_output=True, text=True).stdout


@dataclass
class Netlab:
    """The running lab, and a verifier's session on it.

    lies: a guest, and what it makes of its true answer. toolboxes: a guest, and the folder of all its programs.
    """

    plan: LabPlan
    key: str
    dead: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    without_python: set[str] = field(default_factory=set)
    toolboxes: dict[str, Path] = field(default_factory=dict)
    lies: dict[str, Callable[[Sequence[str], bytes, ExecResult], ExecResult]] = field(default_factory=dict)
    wires: dict[tuple[str, str], str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    desks: dict[str, Desk] = field(default_factory=dict)
    started: list[tuple[str, str]] = field(default_factory=list)  # machine, and the program that was started in it
    path: str = "/usr/sbin:/usr/bin:/sbin:/bin"

    def ns(self, name: str) -> str:
        return f"lv{self.key}-{name}"

    def ip(self, name: str, *words: str) -> str:
        return sh("ip", "-n", self.ns(name), *words)

    def inside(self, name: str, *argv: str, stdin: str = "") -> str:
        return sh("ip", "netns", "exec", self.ns(name), *argv, stdin=stdin)

    def build(self) -> None:
        for name in [*NETWORKS, *SEATS, "host"]:
            sh("ip", "netns", "add", self.ns(name))
            self.ip(name, "link", "set", "lo", "up")
        for network in NETWORKS:  # a wire is a bridge in a namespace without any address
            off = ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")  # of ports to come, too
            self.inside(network, "sysctl", "-qw", *off)
            # one that snoops joins a group, aloud
            self.ip(network, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
            self.ip(network, "link", "set", "br0", "up")
        self._host()
        for place, machine in enumerate(self.plan.machines):
            self.inside(
                machine.name, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"
            )
            for interface in machine.interfaces:
                self._seat(machine.name, interface.device, interface.mac, interface.network, "br0", interface.network)
                for address in (interface.address, interface.address6):
                    self.ip(
                        machine.name,
                        "addr",
                        "add",
                        str(address),
                        "dev",
                        interface.device,
                        *(["nodad"] if address.version == 6 else []),
                    )
            self._seat(machine.name, "mgmt", machine.management_mac, "host", "mg0", "management")
            self.ip(machine.name, "addr", "add", f"10.0.2.{15 + place}/24", "dev", "mgmt")
        self._routes()
        self.serve("web", 80)

    def _host(self) -> None:
        self.ip("host", "link", "add", "mg0", "type", "bridge")
        self.inside("host", "sysctl", "-qw", "net.ipv6.conf.mg0.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        self.ip("host", "addr", "add", "10.0.2.2/24", "dev", "mg0")
        self.ip("host", "link", "set", "mg0", "up")
        self.ip("host", "link", "add", "uplink", "type", "bridge")
        self.inside("host", "sysctl", "-qw", "net.ipv6.conf.uplink.disable_ipv6=0")
        self.ip("host", "addr", "add", f"{HOST_ADDRESS}/24", "dev", "uplink")
        self.ip("host", "addr", "add", f"{HOST_ADDRESS6}/64", "dev", "uplink", "nodad")
        self.ip("host", "link", "set", "uplink", "up")
        self.inside("host", "nft", "-f", "-", stdin=CLOSED_HOST)

    def _seat(self, machine: str, device: str, mac: str, at: str, bridge: str, wire: str) -> None:
        peer = f"p{next(_COUNT)}"
        self.ip(
            machine, "link", "add", device, "address", mac, "type", "veth", "peer", "name", peer, "netns", self.ns(at)
        )
        self.ip(at, "link", "set", peer, "master", bridge, "up")
        if bridge == "mg0":
            self.ip(at, "link", "set", "dev", peer, "type", "bridge_slave", "isolated", "on")
        self.ip(machine, "link", "set", device, "up")
        self.wires[machine, mac] = wire

    def _routes(self) -> None:
        for name, seats in SEATS.items():
            if name != "fw":
                subnet, subnet6 = NETWORKS[next(iter(seats))]
                self.ip(name, "route", "add", "default", "via", str(IPv4Network(subnet)[1]))
                self.ip(name, "-6", "route", "add", "default", "via", str(IPv6Network(subnet6)[1]))
        self.inside("fw", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.inside("fw", "nft", "-f", "-", stdin=render_nft(self.plan.machine("fw")))

    def serve(self, name: str, port: int) -> None:
        """Start a service that accepts and closes connections."""
        argv = ["ip", "netns", "exec", self.ns(name), "/usr/bin/python3", "-c", SERVER, str(port)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        process.stdout.readline()
        self.processes.append(process)

    def rules(self, name: str, text: str) -> None:
        """Plant a defect in a namespace's filter."""
        self.inside(name, "nft", "-f", "-", stdin=text)

    def close(self) -> None:
        for desk in self.desks.values():
            desk.close()
        for process in self.processes:
            process.kill()
            process.wait()
        for name in [*SEATS, "host", *NETWORKS]:
            for pid in sh("ip", "netns", "pids", self.ns(name), check=False).split():
                os.kill(int(pid), signal.SIGKILL)  # listeners that a cancelled run left; nobody else is in there
            sh("ip", "netns", "del", self.ns(name), check=False)

    # --- the session ---

    def run(self, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> ExecResult:
        if machine in self.dead:
            raise GuestError(f"{machine} does not answer")
        self.started.append((machine, argv[0]))
        path = "/nonexistent" if machine in self.without_python else str(self.toolboxes.get(machine, self.path))
        command = ["ip", "netns", "exec", self.ns(machine), "/usr/bin/env", f"PATH={path}", *argv]
        result = Runner().run(command, stdin=stdin, timeout=timeout, check=False)
        said = ExecResult(result.code if result.code is not None else 124, result.stdout, result.stderr)
        return self.lies[machine](argv, stdin, said) if machine in self.lies and argv[0] in ("python3", "sh") else said

    def ask(self, machine: str, door: str, question: bytes, *, takes: float = 0, timeout: float = 60) -> bytes | None:
        _ = takes
        desk = self.desks.get(machine)
        return desk.ask(question, timeout=timeout) if desk is not None and door == inside.door() else None

    def wait_in(self, machine: str, folder: Path) -> None:
        """Have the program of verifications wait there, as it waits in a template's copy."""
        self.desks[machine] = Desk(self.ns(machine), folder)

    switched = True

    def observe(self) -> Observed:
        nics = []
        for machine in self.plan.machines:
            for link in json.loads(self.ip(machine.name, "-j", "link")):
                if link["ifname"] != "lo":
                    wire = self.wires.get((machine.name, link["address"]), "?")
                    nics.append(ObservedNic(machine.name, link["address"], wire, "UP" in link["flags"]))
        machines = [MachineStatus(m.name, "dead" if m.name in self.stopped else "running") for m in self.plan.machines]
        return Observed(tuple(machines), tuple(nics))

    def verify(self, **options: Any) -> Report:
        """Verify from inside the host's namespace, so that canaries are planted there and nowhere else."""
        return within(Path("/run/netns") / self.ns("host"), lambda: verify(self.plan, self, **options))


def within(namespace: Path, work: Callable[[], Any]) -> Any:
    """Do work in a thread that is in a network namespace; threads and programs that it starts are in there too."""
    outcome: list[Any] = []

    def enter() -> None:
        try:
            with namespace.open() as handle:
                if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
                    raise OSError(ctypes.get_errno(), "setns")
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def needs_namespaces() -> None:
    """Fail, with how to get it, where this machine cannot make network namespaces."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root: run these tests as root")
    for program in ("ip", "nft", "ss", "sysctl"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: apt-get install iproute2 nftables procps")


def unique() -> str:
    """A word that no other test of this machine uses at the same time."""
    return f"{os.getpid()}-{next(_COUNT)}"
