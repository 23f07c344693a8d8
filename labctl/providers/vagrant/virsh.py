"""A thin typed wrapper of ``virsh``: what libvirt has, read back from libvirt."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from labctl.errors import GuestError, ProviderError
from labctl.host.runner import Argument, CommandError, Result, Runner
from labctl.providers.agent import ANSWER_SECONDS, GuestAgent, request
from labctl.providers.base import MachineState

_SECONDS = 60.0
_DISK_SECONDS = 900.0  # what writes or reads memory and disks
_STATES: Mapping[str, MachineState] = {
    "running": "running",
    "idle": "running",
    "in shutdown": "running",
    "paused": "paused",
    "pmsuspended": "paused",
    "shut off": "stopped",
    "crashed": "dead",
}
_LEASE = re.compile(r"\s((?:\d{1,3}\.){3}\d{1,3})/\d+\s")


@dataclass(frozen=True, slots=True)
class DomainNic:
    """A NIC of a domain. mac: lower case. network: of libvirt, or the kind of whatever else it is joined to."""

    mac: str
    network: str
    linked: bool


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of libvirt. shares: folders and other things of the host that the guest is given."""

    name: str
    uuid: str
    state: MachineState
    nics: tuple[DomainNic, ...]
    shares: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """A network of libvirt. forward: how it leads out, ``""`` where it does not. isolated: its ports do not meet.

    leases: MAC (lower case) to the address that is kept for it.
    """

    name: str
    active: bool
    forward: str
    isolated: bool
    addresses: tuple[str, ...]
    resolver: bool
    leases: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Virsh:
    """libvirt at one URI."""

    uri: str
    runner: Runner

    def domains(self) -> tuple[str, ...]:
        """Names of all domains, running or not."""
        return _lines(self._run("list", "--all", "--name").text)

    def domain(self, name: str) -> Domain | None:
        """A domain as libvirt has it now; None where there is none. Raises ProviderError where libvirt does not say:
        a machine that is taken for absent is made anew."""
        dumped = self._run("dumpxml", name, check=False)
        if dumped.code != 0:
            if name not in self.domains():
                return None
            dumped = self._run("dumpxml", name)
        said = self._run("domstate", name, "--reason", check=False).text.strip()
        # libvirt's own "crashed" is for guests; of a process that died it says that the domain is off, and why.
        state = "crashed" if said == "shut off (crashed)" else said.partition(" (")[0]
        return read_domain(dumped.text, _STATES.get(state, "stopped"))

    def networks(self) -> tuple[str, ...]:
        """Names of all networks, active or not."""
        return _lines(self._run("net-list", "--all", "--name").text)

    def network(self, name: str) -> Network | None:
        """A network as libvirt has it now; None where there is none."""
        dumped = self._run("net-dumpxml", name, check=False)
        if dumped.code != 0:
            return None
        active = re.search(r"^Active:\s+yes$", self._run("net-info", name).text, re.MULTILINE) is not None
        return read_network(dumped.text, active)

    def define_network(self, xml: str) -> None:
        """Make a network that lasts until it is removed, and start it."""
        name = _parsed(xml).findtext("name", "")
        if name not in self.networks():
            self._feed(xml, "net-define")
        found = self.network(name)
        if found is None or not found.active:
            self._run("net-start", name)

    def keep_lease(self, name: str, mac: str, address: str) -> None:
        """Keep an address of a running network for a NIC."""
        found = self.network(name)
        there = found.leases.get(mac.lower()) if found else None
        if there != address:
            how = "add-last" if there is None else "modify"
            entry = f"<host mac='{mac}' ip='{address}'/>"
            self._run("net-update", name, how, "ip-dhcp-host", entry, "--live", "--config")

    def remove_network(self, name: str) -> None:
        """Stop and forget a network; no error where there is none."""
        if name in self.networks():
            self._run("net-destroy", name, check=False)
            self._run("net-undefine", name)

    def remove_domain(self, name: str, uuid: str) -> None:
        """End a domain and remove it with its snapshots and disks; no error where there is none.

        Raises ProviderError where the domain of that name is not the one meant.
        """
        found = self.domain(name)
        if found is None:
            return
        if uuid and found.uuid != uuid:
            raise ProviderError(f"the domain {name} is not labctl's", hint="Rename it, or this instance.")
        if found.state in ("running", "paused"):
            self._run("destroy", name, check=False)
        self._run("undefine", name, "--snapshots-metadata", "--managed-save", "--nvram", "--remove-all-storage")

    def keep_pool(self, name: str, folder: str) -> None:
        """Make a folder a pool of disks where there is none of that name; another one may do so at the same time."""
        if name not in _lines(self._run("pool-list", "--all", "--name").text):
            self._run("pool-define-as", name, "dir", "--target", folder, check=False)
            self._run("pool-build", name, check=False)
            self._run("pool-start", name, check=False)

    def volumes(self, pool: str) -> tuple[str, ...]:
        """Names of a pool's disks; none where there is no such pool, or it is not active."""
        self._run("pool-refresh", pool, check=False)  # a disk of a program that was killed may not be known yet
        said = self._run("vol-list", pool, check=False)
        return tuple(line.split()[0] for line in _lines(said.text)) if said.code == 0 else ()

    def remove_volume(self, pool: str, name: str) -> None:
        """Delete a disk of a pool."""
        self._run("vol-delete", name, "--pool", pool)

    def set_link(self, name: str, mac: str, up: bool) -> None:
        """Plug or unplug a NIC's cable, and read back that it is so. Raises ProviderError."""
        self._run("domif-setlink", name, mac, "up" if up else "down")
        found = self.domain(name)
        nic = next((nic for nic in found.nics if nic.mac == mac.lower()), None) if found else None
        if nic is None or nic.linked != up:
            raise ProviderError(f"the cable of {mac} of {name} did not change")

    def suspend(self, name: str) -> None:
        """Pause a domain."""
        self._run("suspend", name)

    def resume(self, name: str) -> None:
        """Let a paused domain go on."""
        self._run("resume", name)

    def suspend_all(self, names: Sequence[str]) -> None:
        """Pause several domains, one right after the other in one session: 0.03 s go by before the first."""
        self._run("; ".join(f"suspend {_word(name)}" for name in names), check=False)

    def snapshots(self, name: str) -> tuple[str, ...]:
        """Names of a domain's snapshots; none where there is no such domain."""
        return _lines(self._run("snapshot-list", name, "--name", check=False).text)

    def snapshot_take(self, name: str, snapshot: str) -> None:
        """Keep a domain's disks, and the memory of one that runs or is paused, inside its disk images."""
        self._run("snapshot-create-as", name, "--name", snapshot, timeout=_DISK_SECONDS)
        if snapshot not in self.snapshots(name):
            raise ProviderError(f"{name} has no snapshot {snapshot} afterwards")

    def snapshot_revert(self, name: str, snapshot: str) -> None:
        """Put a domain back: stopped if it was saved so, else paused."""
        said = self._run("snapshot-info", name, snapshot).text
        off = re.search(r"^State:\s+shutoff$", said, re.MULTILINE) is not None
        self._run("snapshot-revert", name, snapshot, *(() if off else ("--paused",)), timeout=_DISK_SECONDS)
        found = self.domain(name)
        if found is None or found.state != ("stopped" if off else "paused"):
            raise ProviderError(f"{name} is {found.state if found else 'gone'} after it was put back")

    def snapshot_delete(self, name: str, snapshot: str) -> None:
        """Forget a snapshot; those made after it stay. No error where it is not there."""
        if snapshot in self.snapshots(name):
            self._run("snapshot-delete", name, snapshot, timeout=_DISK_SECONDS)

    def lease(self, network: str, mac: str) -> str | None:
        """The IPv4 address that a network's DHCP server gave to a NIC last."""
        said = self._run("net-dhcp-leases", network, mac.lower(), check=False)
        found = _LEASE.findall(said.text)
        return found[-1] if said.code == 0 and found else None

    def agent(self, name: str) -> GuestAgent:
        """The guest agent of a domain."""
        return _Agent(self, name)

    def agent_command(self, name: str, command: Mapping[str, Any], timeout: float) -> Result:
        """Send one command to a domain's guest agent."""
        argv: list[Argument] = [*self._prefix, "qemu-agent-command", name, "--timeout", str(max(1, round(timeout)))]
        return self.runner.run([*argv, json.dumps(command)], check=False, timeout=timeout + 10, changes=False)

    @property
    def _prefix(self) -> list[str]:
        return ["virsh", "--quiet", "--connect", self.uri]

    def _feed(self, xml: str, *words: str, after: Sequence[str] = ()) -> None:
        """Run a command that reads a description from a file."""
        with tempfile.NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as file:
            file.write(xml)
            file.flush()
            self._run(*words, file.name, *after)

    def _run(self, *words: str, check: bool = True, timeout: float = _SECONDS) -> Result:
        try:
            return self.runner.run([*self._prefix, *words], check=check, timeout=timeout)
        except CommandError as error:
            raise ProviderError(error.brief, details=error.details) from error


class _Agent(GuestAgent):
    """Through libvirt, which holds the agent's channel itself."""

    def __init__(self, virsh: Virsh, domain: str) -> None:
        self._virsh, self._domain = virsh, domain

    def call(self, command: str, *, timeout: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        result = self._virsh.agent_command(self._domain, request(command, arguments), timeout)
        if result.code != 0:
            raise GuestError(f"the guest agent did not answer {command}", details=result.last_words(3))
        try:
            return json.loads(result.stdout)["return"]
        except (ValueError, KeyError, TypeError) as error:
            raise GuestError("the guest agent's answer makes no sense", details=result.text[:500]) from error

    def order(self, command: str, **arguments: Any) -> None:
        self._virsh.agent_command(self._domain, request(command, arguments), 5)


def read_domain(xml: str, state: MachineState) -> Domain:
    """A domain from libvirt's description of it."""
    root = _parsed(xml)
    nics = []
    for interface in root.iterfind("./devices/interface"):
        mac, source, link = interface.find("mac"), interface.find("source"), interface.find("link")
        network = source.get("network") if source is not None else None
        nics.append(
            DomainNic(
                (mac.get("address", "") if mac is not None else "").lower(),
                network
                or f"{interface.get('type', '?')} {sorted((source.attrib if source is not None else {}).values())}",
                link is None or link.get("state") != "down",
            )
        )
    sources = (share.find("source") for share in root.iterfind("./devices/filesystem"))
    shares = tuple(f"folder {'?' if source is None else source.get('dir', '?')}" for source in sources)
    return Domain(root.findtext("name", ""), root.findtext("uuid", ""), state, tuple(nics), shares)


def read_network(xml: str, active: bool) -> Network:
    """A network from libvirt's description of it."""
    root = _parsed(xml)
    forward, port, dns = root.find("forward"), root.find("port"), root.find("dns")
    addresses = tuple(ip.get("address", "") for ip in root.iterfind("ip"))
    return Network(
        root.findtext("name", ""),
        active,
        "" if forward is None else forward.get("mode", "nat"),
        port is not None and port.get("isolated") == "yes",
        addresses,
        bool(addresses) and (dns is None or dns.get("enable") != "no"),
        {host.get("mac", "").lower(): host.get("ip", "") for host in root.iterfind("./ip/dhcp/host")},
    )


def _word(name: str) -> str:
    """A name as a word of a session's line, which virsh splits as a shell does."""
    return shlex.quote(name)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _parsed(xml: str) -> ElementTree.Element:
    return ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own words, or ours
