"""A lab on libvirt through Vagrant, both real, from ``up`` to the last trace, on a host of the test's own."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from labctl.plan.build import build
from labctl.providers.vagrant import networks
from labctl.spec.load import load
from tests.support.command import Labctl
from tests.support.reports import verdicts
from tests.support.surroundings import PORT, WORLD
from tests.support.teacher import score_before_and_after

pytestmark = [pytest.mark.e2e, pytest.mark.engines, pytest.mark.timeout(900)]

LAB = """\
version: 1
name: twonets
provider: libvirt
defaults: {image: debian-12, memory: 256 MiB}
networks:
  red: {subnet: 10.61.0.0/24}
  blue: {subnet: 10.62.0.0/24, subnet6: "fd00:62::/64"}
machines:
  one: {networks: [red, blue]}
  two:
    networks: [blue]
    secrets: [word]
    provision:
      - shell: echo provisioned >/root/note
      - shell: set -x; cp "$LABCTL_SECRETS/word" /root/word; echo "told $(cat /root/word)"
secrets: {word: {kind: password}}
providers: {libvirt: {driver: qemu}}
"""


MOMENTS = {
    "a disk without a machine": "lib/images/labctl.twonets.*.img",
    "a machine without NICs": "etc/qemu/labctl.twonets.*.xml",
    "a machine that just began to start": "run/qemu/labctl.twonets.*.pid",
}
"""Where a killed ``up`` leaves what the next one cannot go on with, and the file of libvirt's that shows it."""


def there(host: Labctl) -> dict[str, list[str]]:
    """What libvirt has: domains, networks and disks, whatever their state."""
    assert host.host is not None
    virsh = ("virsh", "--quiet", "--connect", "qemu:///system")
    found = {
        "domains": host.host.run(*virsh, "list", "--all", "--name").split(),
        "networks": host.host.run(*virsh, "net-list", "--all", "--name").split(),
    }
    disks = Path(host.host.run(*virsh, "pool-dumpxml", "default").partition("<path>")[2].partition("</path>")[0])
    volumes = host.host.run(*virsh, "vol-list", "default").splitlines()
    found["disks"] = [line.split()[0] for line in volumes if line.strip() and "twonets" in line]
    assert disks.is_absolute()
    found["tables"] = [line for line in host.host.run("nft", "list", "tables").splitlines() if "labctl" in line]
    return found


def children(pid: int) -> list[psutil.Process]:
    """What a process has started, and what those have."""
    return psutil.Process(pid).children(recursive=True)


def runs(command: subprocess.Popen[bytes], word: str) -> bool:
    """Whether a command has started a program with this word in its arguments; it must not have ended yet."""
    assert command.poll() is None, command.communicate()
    for process in children(command.pid):
        with suppress(psutil.NoSuchProcess):
            if word in process.cmdline():
                return True
    return False


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_made(folder: Path, moment: str) -> Callable[[], bool]:
    """Whether it has come to that. folder: of the test."""
    return lambda: any((folder / "libvirt").glob(MOMENTS[moment]))


def killed_when(host: Labctl, happened: Callable[[], bool], *arguments: str | Path) -> None:
    """Kill a command at a moment. What it started must end with it."""
    with host.start(*arguments) as command:
        wait_for(lambda: happened() or command.poll() is not None)
        family = children(command.pid)
        command.kill()
    assert happened()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, "Vagrant works on without labctl"


@pytest.mark.slow
def test_the_dmz_has_the_same_verdicts_on_libvirt_and_on_qemu(
    libvirt_host: Labctl, shipped: Callable[[str], Path]
) -> None:
    lab, host = shipped("dmz"), libvirt_host
    for provider in ("libvirt", "qemu"):
        replace(host, host=None).run("image", "prepare", lab, "--provider", provider)
    host.run("up", lab, "--provider", "libvirt")
    report = host.json("verify", lab)
    assert Counter(flow["verdict"] for flow in report["flows"]).keys() == {"PASS"}, report
    beside = ("--instance", "beside")
    host.run("up", lab, "--provider", "qemu", *beside)
    assert verdicts(host.json("verify", lab, *beside)) == verdicts(report)
    host.run("destroy", lab, "--yes", *beside)
    host.run("destroy", lab, "--yes")


@pytest.mark.slow
def test_up_goes_on_after_it_was_killed_at_three_moments(libvirt_host: Labctl, tmp_path: Path) -> None:
    host = libvirt_host
    lab = host.home / "twonets"
    lab.mkdir()
    (lab / "lab.yaml").write_text(LAB)
    replace(host, host=None).run("image", "prepare", lab)
    for moment in MOMENTS:
        killed_when(host, has_made(tmp_path, moment), "up", lab)
    assert {change["action"] for change in host.json("up", lab)["changes"]} == {"create"}
    assert host.run("exec", lab, "two", "--", "cat", "/root/note") == "provisioned\n"
    host.run("destroy", lab, "--yes")
    assert there(host) == {"domains": [], "networks": [], "disks": [], "tables": []}


@pytest.mark.slow
def test_a_sealed_lab_is_proven_solved_scored_and_reset_over_the_guest_agent_alone(
    libvirt_host: Labctl, shipped: Callable[[str], Path]
) -> None:
    lab, host = shipped("malware"), libvirt_host
    replace(host, host=None).run("image", "prepare", lab, "--provider", "libvirt")
    host.run("up", lab, "--provider", "libvirt")
    report = host.json("verify", lab)
    assert {found["verdict"] for found in (*report["flows"], *report["checks"])} == {"PASS"}, report
    host.run("snapshot", "save", "fresh", lab)
    fresh, solved = score_before_and_after(host, lab)
    assert (fresh["earned"], {check["verdict"] for check in fresh["checks"]}) == (0, {"FAIL"})
    assert solved["earned"] == solved["possible"] > 0, solved
    host.run("reset", lab)
    assert host.json("score", lab)["earned"] == 0
    host.run("ssh", lab, "victim", "--", "true", code=1)  # it was sealed all the time
    host.run("destroy", lab, "--yes")


def test_a_lab_on_libvirt_lives_a_whole_life(libvirt_host: Labctl, tmp_path: Path) -> None:
    host = libvirt_host
    lab = host.home / "twonets"
    lab.mkdir()
    (lab / "lab.yaml").write_text(LAB)
    replace(host, host=None).run("image", "prepare", lab)
    killed_when(host, has_made(tmp_path, "a machine without NICs"), "up", lab)
    assert {change["action"] for change in host.json("up", lab)["changes"]} == {"create"}
    assert host.run("exec", lab, "two", "--", "cat", "/root/note") == "provisioned\n"
    word = host.run("exec", lab, "two", "--", "cat", "/root/word")
    assert word == host.json("secrets", lab)["word"]
    assert "told <word>" in host.run("logs", lab, "two")
    host.run("exec", lab, "two", "--", "sh", "-c", "[ ! -e /run/labctl-secrets ]")
    known = [
        path
        for path in host.state.rglob("*")
        if path.is_file() and path.stat().st_size < 1 << 20 and word.encode() in path.read_bytes()
    ]
    assert known == [], "its secret is in a file"

    # nothing was touched by the second one, which does not even ask Vagrant
    boot = ("--", "cat", "/proc/sys/kernel/random/boot_id")
    before = [host.run("exec", lab, name, *boot) for name in ("one", "two")]
    assert {change["action"] for change in host.json("up", lab)["changes"]} == {"keep"}
    assert [host.run("exec", lab, name, *boot) for name in ("one", "two")] == before

    report = host.json("verify", lab)
    assert Counter(flow["verdict"] for flow in report["flows"]).keys() == {"PASS"}, report
    # guests do not meet over the management network, and nobody reaches the host on it
    beyond = [f for f in host.json("verify", lab, "--outside", f"{WORLD}:{PORT}")["flows"] if f["target"] == "outside"]
    assert {(f["source"], f["source_device"]) for f in beyond} >= {("one", "mgmt"), ("two", "mgmt"), ("two", "eth0")}
    assert {(f["expected"], f["verdict"]) for f in beyond} == {("deny", "PASS")}, "this host itself gets there"
    closed = {(f["source"], f["target"]) for f in report["flows"] if f["source_device"] == "mgmt"}
    assert closed == {("one", "two"), ("two", "one"), *((m, t) for m in ("one", "two") for t in ("host", "management"))}
    assert {f["expected"] for f in report["flows"]} == {"pass", "deny"}

    assert host.host is not None
    inside = host.host.run
    # what somebody does to the host's side of the wires shows, and the filter is made again by up
    assert [found for found in report["host_evidence"] if found["verdict"] != "PASS"] == []
    names = [line.split()[0] for line in inside("ip", "-br", "link", "show", "type", "bridge").splitlines()]
    bridge = next(name for name in names if name.startswith("lb"))
    tables = inside("nft", "list", "tables", "arp").split()
    inside("ip", "link", "add", "odd", "type", "veth", "peer", "name", "even")
    inside("ip", "link", "set", "odd", "master", bridge)
    inside("ip", "address", "add", "192.0.2.77/24", "dev", bridge)
    inside("nft", "delete", *tables)
    told = " ".join(f["details"] for f in host.json("verify", lab, code=3)["host_evidence"] if f["kind"] == "open-wire")
    assert "port odd is not in the plan" in told
    assert "the host has the address 192.0.2.77 on it" in told
    assert "this host has no packet filter arp" in told
    inside("ip", "link", "delete", "odd")
    inside("ip", "address", "del", "192.0.2.77/24", "dev", bridge)
    host.run("up", lab)
    assert inside("nft", "list", "tables", "arp").split() == tables

    # the same file on the other engine: another instance, so that both run at once with the same addresses
    beside = ("--instance", "beside")
    host.run("up", lab, "--provider", "qemu", *beside)
    assert verdicts(host.json("verify", lab, *beside)) == verdicts(report)
    host.run("destroy", lab, "--yes", *beside)

    host.run("exec", lab, "one", "--", "sh", "-c", "echo before >/root/now; sync")
    saved = host.json("snapshot", "save", "clean", lab)
    assert (saved["machines"], saved["witnesses"]) == ({"one": "running", "two": "running"}, ["one", "two"])
    host.run("exec", lab, "one", "--", "sh", "-c", "echo after >/root/now; echo after >/run/now; sync")
    with host.start("snapshot", "save", "half", lab) as killed:
        wait_for(lambda: runs(killed, "snapshot-create-as"))
        killed.kill()
    assert host.json("status", lab)["state"] == "interrupted"
    host.run("snapshot", "restore", "clean", lab)
    assert host.run("exec", lab, "one", "--", "sh", "-c", "cat /root/now; ls /run/now || true") == "before\n"
    assert abs(float(host.run("exec", lab, "one", "--", "date", "+%s")) - time.time()) < 5, "its clock is wrong"
    assert [found["name"] for found in host.json("snapshot", "list", lab)["checkpoints"]] == ["clean"]
    assert host.json("status", lab)["state"] == "up"

    # sealed, the guest agent still leads in, and nothing else does
    host.run("seal", lab)
    assert {machine["ssh"] for machine in host.json("status", lab)["machines"]} == {""}
    host.run("ssh", lab, "one", "--", "true", code=1)
    sealed = host.json("verify", lab)
    assert [found for found in sealed["host_evidence"] if found["verdict"] != "PASS"] == []
    assert Counter(flow["verdict"] for flow in sealed["flows"]).keys() == {"PASS"}, sealed
    by = {control["by"] for flow in sealed["flows"] for control in flow["control"] if flow["source_device"] == "mgmt"}
    assert "unplugged" in by
    host.run("snapshot", "restore", "clean", lab)  # saved while the lab was open
    assert {machine["ssh"] for machine in host.json("status", lab)["machines"]} == {""}

    host.run("down", lab)
    assert {machine["state"] for machine in host.json("status", lab)["machines"]} == {"stopped"}
    host.run("destroy", lab, "--yes")
    assert there(host) == {"domains": [], "networks": [], "disks": [], "tables": []}
    assert host.json("list") == []


APART = """\
version: 1
name: apart
provider: libvirt
defaults: {image: debian-12, memory: 256 MiB}
networks:
  rooms: {subnet: 10.66.0.0/24, subnet6: "fd00:66::/64", peers: false}
  hall: {subnet: 10.67.0.0/24}
machines:
  a: {networks: {rooms: 10.66.0.10}}
  b: {networks: {rooms: 10.66.0.11}}
  r:
    router: true
    networks: {rooms: 10.66.0.1, hall: 10.67.0.1}
    provision: [{shell: ping -c 1 -w 150 10.66.0.10}]
providers: {libvirt: {driver: qemu}}
"""


class Ports:
    """The cables of a lab on the host that it runs on: NIC by machine and network."""

    def __init__(self, host: Labctl, lab: Path) -> None:
        assert host.host is not None
        self._run = host.host.run
        plan = build(load(lab), provider="libvirt")
        self._devices = {
            (machine.name, i.network): networks.tap(plan, i) for machine in plan.machines for i in machine.interfaces
        }

    def isolated(self) -> set[tuple[str, str]]:
        """NICs whose ports the kernel isolates; every one has to be plugged in."""
        flags = {
            port["ifname"]: port["isolated"] for port in json.loads(self._run("bridge", "-j", "-d", "link", "show"))
        }
        return {nic for nic, device in self._devices.items() if flags[device]}

    def isolate(self, machine: str, network: str, flag: str) -> None:
        """What somebody does behind labctl's back."""
        self._run("bridge", "link", "set", "dev", self._devices[machine, network], "isolated", flag)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_members_without_peers_reach_their_router_and_not_each_other(libvirt_host: Labctl) -> None:
    host = libvirt_host
    lab = host.home / "apart"
    lab.mkdir()
    (lab / "lab.yaml").write_text(APART)
    replace(host, host=None).run("image", "prepare", lab)
    members = {("a", "rooms"), ("b", "rooms")}
    between = {("a", "b"), ("b", "a")}

    def proven() -> None:
        report = host.json("verify", lab)
        assert Counter(flow["verdict"] for flow in report["flows"]).keys() == {"PASS"}, report
        assert [found for found in report["host_evidence"] if found["verdict"] != "PASS"] == []
        on_rooms = {
            (flow["source"], flow["target"], flow["expected"])
            for flow in report["flows"]
            if flow["source_device"] == "eth0" and flow["target"] in ("a", "b", "r")
        }
        meeting = {(a, b, "pass") for a, b in (("a", "r"), ("b", "r"), ("r", "a"), ("r", "b"))}
        assert on_rooms >= meeting | {(a, b, "deny") for a, b in between}

    host.run("up", lab)  # a step of the router's reaches a member already
    ports = Ports(host, lab / "lab.yaml")
    assert ports.isolated() == members
    proven()

    for machine, network in members:
        ports.isolate(machine, network, "off")
    report = host.json("verify", lab, code=3)
    told = {found["details"] for found in report["host_evidence"] if found["kind"] == "open-wire"}
    assert told == {f"rooms: the port of eth0 of {name} is not isolated, so it meets peers" for name in "ab"}
    assert {(f["source"], f["target"]) for f in report["flows"] if f["verdict"] == "FAIL"} == between
    assert {change["action"] for change in host.json("up", lab)["changes"]} == {"keep"}
    assert ports.isolated() == members

    ports.isolate("r", "rooms", "on")
    (fault,) = host.json("status", lab)["faults"]
    assert fault == "the port of eth0 of r on rooms is isolated, so peers do not reach it"
    assert "nothing had to change" not in host.run("up", lab)
    assert ports.isolated() == members

    # each has new cables afterwards
    host.run("snapshot", "save", "clean", lab)
    ports.isolate("a", "rooms", "off")
    host.run("snapshot", "restore", "clean", lab)
    assert ports.isolated() == members
    host.run("down", lab)
    host.run("up", lab)
    assert ports.isolated() == members

    # another mind: the wire is made anew under machines that run
    (lab / "lab.yaml").write_text(APART.replace(", peers: false", ""))
    host.run("up", lab)
    assert ports.isolated() == set()
    host.run("exec", lab, "a", "--", "ping", "-c", "1", "-w", "60", "10.66.0.11")
    (lab / "lab.yaml").write_text(APART)
    host.run("up", lab)
    assert ports.isolated() == members
    host.run("snapshot", "restore", "clean", lab)
    proven()
    host.run("destroy", lab, "--yes")
