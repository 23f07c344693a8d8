"""Labs that labctl drives from its command line, in a place where VirtualBox runs, and VirtualBox's own view of them.

What VirtualBox holds is read here from what ``VBoxManage`` prints for people, and from nothing that labctl reads.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.lifecycle import locate
from labctl.plan.model import LabPlan
from labctl.providers.base import BootImage
from labctl.verify.drift import compare
from labctl.verify.model import Finding
from tests.virtualbox.harness import VirtualBoxHost

BOX = "labctl-tests/empty"
_NIC = re.compile(
    r"NIC (\d): +MAC: (\w{12}), Attachment: (.+?), Cable connected: (on|off), .* Promisc Policy: ([a-z-]+),"
)
_RULE = re.compile(
    r"NIC \d Rule\(\d+\): +name = \w+, protocol = (\w+), host ip = (.*?), host port = (\d+), .*, guest port = (\d+)"
)


@dataclass(frozen=True)
class Adapter:
    """An adapter as VirtualBox shows it. attachment: ``NAT``, ``Internal Network '…'``, ``NAT Network '…'``."""

    mac: str
    attachment: str
    connected: bool
    policy: str


@dataclass(frozen=True)
class Rule:
    """A forwarded port as VirtualBox shows it."""

    protocol: str
    host_ip: str
    host_port: int
    guest_port: int


@dataclass(frozen=True)
class Driven:
    """An instance of a lab whose file is in ``folder``."""

    host: VirtualBoxHost
    folder: Path
    name: str
    instance: str = "default"

    def labctl(self, verb: str, *options: str, code: int | None = 0) -> str:
        return self.host.labctl(*self._words(verb), *options, code=code)

    def json(self, verb: str, *options: str) -> Any:
        """What a verb prints for scripts."""
        return json.loads(self.labctl(verb, *options, "--json"))

    def start(self, verb: str, *options: str) -> subprocess.Popen[bytes]:
        return self.host.start(sys.executable, "-m", "labctl", *self._words(verb), *options)

    def up(self) -> dict[str, str]:
        """Machine to what was done with it."""
        found = self.json("up", "--provider", "virtualbox")
        return {change["machine"]: change["action"] for change in found["changes"]}

    def states(self) -> dict[str, str]:
        return {machine["name"]: machine["state"] for machine in self.json("status")["machines"]}

    def running(self) -> locate.Running:
        """The instance as labctl finds it; the caller's environment must be the place's."""
        return locate.find(self.folder, instance=self.instance)

    @property
    def plan(self) -> LabPlan:
        return self.running().plan

    def snapshot(self, verb: str, name: str, *options: str) -> str:
        """``labctl snapshot`` of the whole lab."""
        return self.host.labctl("snapshot", verb, name, self.folder, "--instance", self.instance, *options)

    def findings(self) -> tuple[Finding, ...]:
        """The host's side of ``labctl verify``."""
        found = self.running()
        return compare(found.plan, found.provider.observe(found.plan), sealed=found.record.sealed)

    @property
    def log(self) -> Path:
        """A line for each program that labctl has started for this instance."""
        return self.running().folder.engine / "commands.log"

    def full_name(self, machine: str) -> str:
        return f"labctl.{self.name}.{self.instance}.{machine}"

    def manage(self, *words: str) -> str:
        return self.host.run("VBoxManage", *words)

    def shown(self, machine: str, *options: str) -> str:
        """What VirtualBox shows of a machine, for people unless options say otherwise."""
        return self.manage("showvminfo", self.full_name(machine), *options)

    def fact(self, machine: str, name: str) -> str:
        found = re.search(rf"^{name}: +(.*)$", self.shown(machine), re.MULTILINE)
        assert found is not None, name
        return found[1]

    def adapters(self, machine: str) -> dict[int, Adapter]:
        """Slot to adapter."""
        return {int(m[1]): Adapter(m[2], m[3], m[4] == "on", m[5]) for m in _NIC.finditer(self.shown(machine))}

    def planned(self, machine: str) -> dict[int, Adapter]:
        """What ``adapters`` must give for a machine of the plan, all cables in."""
        plan = self.plan
        wanted = plan.machine(machine)
        found = {1: Adapter(_bare(wanted.management_mac), "NAT", True, "deny")}
        for slot, interface in enumerate(wanted.interfaces, start=2):
            network = plan.network(interface.network)
            kind = "NAT Network" if network.egress == "nat" else "Internal Network"
            policy = "allow-vms" if interface.promiscuous else "deny"
            found[slot] = Adapter(_bare(interface.mac), f"{kind} '{network.wire}'", True, policy)
        return found

    def rules(self, machine: str) -> list[Rule]:
        return [Rule(m[1], m[2], int(m[3]), int(m[4])) for m in _RULE.finditer(self.shown(machine))]

    def started(self, machine: str) -> str:
        """When the machine came into the state that it is in."""
        return self.fact(machine, "State")

    def poweroff(self, machine: str) -> None:
        """Behind labctl's back."""
        self.manage("controlvm", self.full_name(machine), "poweroff")
        wait_for(lambda: self.fact(machine, "State").startswith("powered off"))
        self.settle(machine)

    def power_on(self, machine: str) -> None:
        """Behind labctl's back."""
        self.manage("startvm", self.full_name(machine), "--type", "headless")

    def settle(self, machine: str) -> None:
        """Wait until whoever ran the machine has let go of it."""
        wait_for(lambda: "SessionName" not in self.shown(machine, "--machinereadable"))

    def _words(self, verb: str) -> list[str | Path]:
        return [verb, self.folder, "--instance", self.instance]


def driven(host: VirtualBoxHost, name: str, spec: str, instance: str = "default") -> Driven:
    """A lab's file in its own folder; nothing is up."""
    folder = host.home / "labs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab.yaml").write_text(f"version: 1\nname: {name}\ndefaults: {{image: {BOX}, memory: 64 MiB}}\n{spec}")
    return Driven(host, folder, name, instance)


def _bare(mac: str) -> str:
    return mac.replace(":", "").upper()


def add_box(host: VirtualBoxHost, box: BootImage) -> None:
    host.run("vagrant", "box", "add", "--name", BOX, box.disk)


def vms(host: VirtualBoxHost) -> list[str]:
    """The names of all machines that VirtualBox knows."""
    return re.findall(r'^"(.*)" \{', host.run("VBoxManage", "list", "vms"), re.MULTILINE)


def masters(host: VirtualBoxHost) -> list[str]:
    """Those that machines are cloned from."""
    return [name for name in vms(host) if not name.startswith("labctl.")]


def traces(host: VirtualBoxHost, name: str) -> list[str]:
    """Whatever VirtualBox has of a lab: machines, disks, networks, folders; and labctl's own notes of it.

    A clone, or the import of a box, that Vagrant was killed in the middle of is not seen: it has another name.
    """
    listed = [
        line
        for what in ("vms", "hdds", "natnets", "intnets")
        for line in host.run("VBoxManage", "list", what).splitlines()
    ]
    listed += [path.name for path in (host.home / "VirtualBox VMs").iterdir()]
    found = [line for line in listed if f"labctl.{name}." in line or f" {name}-" in line]
    return found + [path.name for path in (host.home / "state").rglob(f"{name}*") if path.parent.name != ".locks"]


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
