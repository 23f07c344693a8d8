"""Rendered files without labctl: plain Vagrant brings the lab up and takes it away, and what stock settings leave open.

The second lab differs from the first by the lines on its management network, which are removed, so that vagrant-libvirt
makes the one it makes for everybody. labctl's own verifier judges it.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.providers.vagrant import networks
from labctl.spec.load import load
from tests.support.command import Labctl
from tests.support.libvirt import libvirtd

pytestmark = [pytest.mark.e2e, pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(600)]

LAB = """\
version: 1
name: plain
provider: libvirt
defaults: {image: debian-12, memory: 256 MiB}
networks:
  lan: {subnet: 10.63.0.0/24}
machines:
  one: {networks: [lan]}
  two: {networks: [lan]}
providers: {libvirt: {driver: qemu}}
"""
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
STOCK = "vagrant-libvirt"  # what vagrant-libvirt calls the management network that it makes


@dataclass(frozen=True)
class Project:
    """A folder with a Vagrantfile, on a host with libvirt."""

    command: Labctl
    folder: Path

    def render(self, lab: str) -> None:
        """Write the lab's files with labctl."""
        source = self.folder.parent / "lab"
        source.mkdir(parents=True, exist_ok=True)
        (source / "lab.yaml").write_text(lab)
        replace(self.command, host=None).run("render", source, "--provider", "libvirt", "-o", self.folder)

    def vagrant(self, *arguments: str, code: int = 0) -> str:
        """Run plain Vagrant there to its end and give what it says. No labctl runs meanwhile."""
        with self.command.spawn("env", "-C", str(self.folder), "vagrant", *arguments) as process:
            out, err = process.communicate(timeout=280)
        said = out.decode() + err.decode()
        assert process.returncode == code, f"vagrant {arguments}\n{said[-6000:]}"
        return out.decode() if code == 0 else said

    def asked(self, *addresses: str) -> list[str]:
        """What the host that the lab is on hears at the SSH port of each address."""
        assert self.command.host is not None
        return self.command.host.run(sys.executable, "-c", ASK, *addresses).split()

    def virsh(self, *arguments: str) -> str:
        assert self.command.host is not None
        return self.command.host.run(*VIRSH, *arguments)

    def there(self) -> dict[str, list[str]]:
        """What libvirt has of labs: domains, networks, disks of machines. The disk of the box stays for the next."""
        return {
            "domains": self.virsh("list", "--all", "--name").split(),
            "networks": self.virsh("net-list", "--all", "--name").split(),
            "disks": [line.split()[0] for line in self.virsh("vol-list", "default").splitlines() if "labctl." in line],
        }


@pytest.fixture(scope="module")
def rendered(labctl: Labctl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The lab as ``labctl render`` writes it, and Vagrant with the box that ``labctl image box`` made."""
    assert labctl.host is not None
    home = labctl.home / "plain"
    here = replace(labctl, host=None)
    box = here.json("image", "box", "debian-12", "--provider", "libvirt")
    with libvirtd(labctl.host, tmp_path_factory.mktemp("libvirt")):
        settings = {"VAGRANT_HOME": str(home / "vagrant"), "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}
        project = Project(replace(labctl, variables=settings), home / "rendered")
        project.render(LAB)
        project.vagrant("box", "add", "--name", "labctl/debian-12", box["path"])
        yield project


@pytest.fixture(scope="module")
def plan(rendered: Project) -> LabPlan:
    return build(load(rendered.folder.parent / "lab/lab.yaml"), provider="libvirt")


ASK = """\
import socket, sys
for address in sys.argv[1:]:
    try:
        with socket.create_connection((address, 22), 8) as connection:
            print(address, connection.recv(4).decode())
    except OSError:
        print(address, "silent")
"""


def test_a_rendered_lab_lives_and_goes_with_plain_vagrant(rendered: Project, plan: LabPlan) -> None:
    rendered.vagrant("up", "--provider=libvirt")
    management = f"labctl-{plan.lab_key}-mgmt"
    assert set(rendered.there()["networks"]) == {management, plan.network("lan").wire}
    two = plan.machine("two")
    (lan,) = two.interfaces[0].addresses()
    assert two.management_address is not None
    address = str(two.management_address.ip)
    said = rendered.vagrant("ssh", "one", "-c", f"python3 -c '{ASK}' {lan} {address}")
    assert said.split() == [str(lan), "SSH-", address, "silent"]
    # what does not answer its neighbour answers this host, until the lab is sealed
    assert rendered.asked(address) == [address, "SSH-"]
    rendered.render(LAB + "seal: true\n")
    rendered.vagrant("up", "two")
    assert rendered.virsh("domif-getlink", "labctl.plain.default.two", two.management_mac).split()[-1] == "down"
    assert rendered.asked(address) == [address, "silent"]
    rendered.vagrant("up", "two", "--provision-with", "machine")  # which opens and seals it again
    assert rendered.asked(address) == [address, "silent"]

    nothing: dict[str, list[str]] = {"domains": [], "networks": [], "disks": []}
    rendered.vagrant("destroy", "-f")
    assert rendered.there() == nothing
    # what is left where `up` fails after the management network was made, for want of a box for example
    rendered.virsh("net-define", str(rendered.folder / "management-network.xml"))
    rendered.virsh("net-start", management)
    rendered.vagrant("destroy", "-f")
    assert rendered.there() == nothing


APART = """\
version: 1
name: apart
provider: libvirt
defaults: {image: debian-12, memory: 256 MiB}
networks:
  lan: {subnet: 10.64.0.0/24, peers: false}
  hall: {subnet: 10.65.0.0/24}
machines:
  one: {networks: [lan]}
  two: {networks: [lan, hall], router: true}
providers: {libvirt: {driver: qemu}}
"""


@pytest.mark.timeout(900)
def test_plain_vagrant_keeps_members_apart_and_opens_their_router(rendered: Project) -> None:
    project = Project(rendered.command, rendered.folder.parent / "apart/project")
    project.render(APART)
    plan = build(load(project.folder.parent / "lab/lab.yaml"), provider="libvirt")
    lan = plan.network("lan")
    taps = {networks.tap(plan, machine.interfaces[0]): machine.name for machine in plan.machines}
    assert project.command.host is not None
    host = project.command.host

    def isolated() -> set[str]:
        ports = json.loads(host.run("bridge", "-json", "-details", "link", "show"))
        assert taps.keys() <= {port["ifname"] for port in ports}
        return {taps[port["ifname"]] for port in ports if port["isolated"] and port["ifname"] in taps}

    # a network from another time, which Vagrant would take
    before = project.folder / "before.xml"
    before.write_text(networks.wire(replace(lan, peers=True)))
    project.virsh("net-define", str(before))
    assert "lets its members meet" in project.vagrant("up", "--provider=libvirt", code=1)
    assert project.virsh("list", "--all", "--name").split() == []
    project.virsh("net-undefine", lan.wire)

    project.vagrant("up", "--provider=libvirt")
    assert isolated() == {"one"}
    address, beside = (str(plan.machine(name).interfaces[0].addresses()[0]) for name in ("two", "one"))
    project.vagrant("ssh", "one", "-c", f"ping -c 1 -w 60 {address}")
    project.vagrant("reload", "two")
    assert isolated() == {"one"}
    project.vagrant("ssh", "two", "-c", f"ping -c 1 -w 60 {beside}")
    project.vagrant("destroy", "-f")
    assert project.there() == {"domains": [], "networks": [], "disks": []}


VERIFY = """\
import json, pickle, sys
from pathlib import Path
from labctl.providers.vagrant.provider import LibvirtProvider
from labctl.verify.guests import GuestSession
from labctl.verify.reports import to_json
from labctl.verify.run import verify
workdir = Path(sys.argv[1])
plan = pickle.loads((workdir / "plan").read_bytes())
with GuestSession(LibvirtProvider(workdir), plan) as session:
    print(json.dumps(to_json(verify(plan, session))))
"""


def stock(text: str) -> str:
    """A Vagrantfile without a word on the management network but the MAC addresses of its NICs."""
    made = re.sub(r"^ +unless client\..*\n.*\n +end\n", "", text, flags=re.MULTILINE)
    made = re.sub(r"^ +lv\.management_network_(?!mac).*\n", "", made, flags=re.MULTILINE)
    assert len(text.splitlines()) - len(made.splitlines()) == 3 + 5
    return made


def as_found(project: Project, plan: LabPlan) -> LabPlan:
    """The plan with the management network that vagrant-libvirt made, and the addresses that guests have got on it."""
    network = project.virsh("net-dumpxml", STOCK)
    leases = project.virsh("net-dhcp-leases", STOCK)
    (host,) = re.findall(r"<ip address='([^']+)' netmask='255\.255\.255\.0'>", network)
    subnet = IPv4Interface(f"{host}/24").network
    moved = {str(plan.management.host): host}
    machines = []
    for machine in plan.machines:
        (address,) = set(re.findall(rf"{machine.management_mac} +ipv4 +(\S+)", leases))
        assert machine.management_address is not None
        moved[str(machine.management_address.ip)] = str(IPv4Interface(address).ip)
        machines.append(replace(machine, management_address=IPv4Interface(address)))
    return replace(
        plan,
        management=replace(
            plan.management, subnet=subnet, host=IPv4Address(host), dns=IPv4Address(host), guest=IPv4Interface(address)
        ),
        machines=tuple(machines),
        flows=tuple(replace(flow, address=moved.get(str(flow.address), flow.address)) for flow in plan.flows),
    )


def judged(project: Project, plan: LabPlan) -> Any:
    """The report of labctl's verifier, which has to run on the host that the lab is on."""
    workdir = project.folder.parent
    (workdir / "plan").write_bytes(pickle.dumps(plan))
    with project.command.spawn(sys.executable, "-c", VERIFY, str(workdir)) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


def test_stock_settings_leave_open_what_labctl_closes(rendered: Project, plan: LabPlan) -> None:
    project = Project(
        replace(rendered.command, variables={**rendered.command.variables, "LABCTL_WAVES": "1"}),  # both at once
        rendered.folder.parent / "stock/project",
    )
    project.render(LAB)
    path = project.folder / "Vagrantfile"
    path.write_text(stock(path.read_text()))
    project.vagrant("up", "--provider=libvirt")

    report = judged(project, as_found(project, plan))
    flows = report["flows"]
    own = [f for f in flows if f["source_device"] == "eth0" and f["target"] in ("one", "two")]
    assert {f["verdict"] for f in own} == {"PASS"}, "guests meet where they may"
    # the very cells that are PASS where labctl brings the lab up
    open_ways = {(f["source"], f["target"], f["verdict"]) for f in flows if f["source_device"] == "mgmt"}
    names = ("one", "two")
    assert open_ways == {(a, b, "FAIL") for a in names for b in (*names, "host", "management") if a != b}
    assert {(f["kind"], f["machine"]) for f in report["host_evidence"]} == {
        ("wrong-wire", "one"),
        ("wrong-wire", "two"),
    }
