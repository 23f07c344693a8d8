"""The wires of a libvirt instance on its host: who may meet on them, and whether they are closed as they were made.

Under ``peers: false`` the ports of a bridge are isolated: the kernel lets no frame pass from one such port to another.
libvirt isolates them all; ``settle`` opens those of routers, which lasts as long as the cable: a machine that starts
anew, as from a checkpoint, has new ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labctl.errors import HostError
from labctl.host import nftables
from labctl.host.runner import Runner
from labctl.plan.model import InterfacePlan, LabPlan, NetworkPlan
from labctl.providers.vagrant import networks
from labctl.providers.vagrant.virsh import Network, Virsh

Opening = tuple[str, str]
"""A network, ``""`` for all of them, and what it lets through, for people."""

_PARTED = "---"
_QUESTIONS = f"""
set -e
ip -json -details address show; echo {_PARTED}
nft --stateless list ruleset; echo {_PARTED}
{nftables.LISTED}
"""


def settle(plan: LabPlan, machine: str, runner: Runner) -> None:
    """Plug the cables of a machine that is started in where they belong, each port isolated or open as planned.

    One that is so already is left alone. Raises HostError, CommandError.
    """
    lines = "".join(f"{line}\n" for line in _mending(plan, machine, _links(runner)))
    if lines:
        runner.run(["ip", "-batch", "-"], stdin=lines.encode())


def unplug(network: NetworkPlan, runner: Runner) -> None:
    """Take whatever is on a network's bridge off it until ``settle``: a cable without a bridge leads to this host."""
    bridge = networks.wire_bridge(network)
    lines = "".join(f"link set dev {link['ifname']} down\n" for link in _links(runner) if link.get("master") == bridge)
    if lines:
        runner.run(["ip", "-batch", "-"], stdin=lines.encode())


def look(plan: LabPlan, virsh: Virsh, runner: Runner) -> tuple[tuple[Opening, ...], tuple[str, ...]]:
    """Every difference from the plan that lets something through, and for people every one that keeps NICs from meeting
    which may. Raises HostError where this host does not tell."""
    said = runner.run(["sh", "-c", _QUESTIONS], stdin=networks.host_filter(plan).encode(), check=False, changes=False)
    parts = said.text.split(f"{_PARTED}\n")
    if said.code != 0 or len(parts) != len(_QUESTIONS.split(_PARTED)):
        raise HostError(f"this host does not tell what is on the lab's wires: {said.last_words(1)}")
    devices, there, planned = parts
    try:
        links = json.loads(devices)
        on_bridges = (*_addresses(plan, links), *_plugged(plan, links), *_meeting(plan, links))
        apart = tuple(_apart(plan, links))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError("this host says of its devices what makes no sense", details=str(error)) from error
    found = (
        *(opening for network in plan.networks for opening in _defined(network, virsh.network(network.wire))),
        *on_bridges,
        *_filtered(nftables.tables(there), nftables.tables(planned)),
    )
    return found, apart


def _links(runner: Runner) -> list[dict[str, Any]]:
    said = runner.run(["ip", "-json", "-details", "link", "show"], changes=False)
    try:
        return list(json.loads(said.text or "[]"))
    except ValueError as error:
        raise HostError("this host says of its devices what makes no sense", details=str(error)) from error


def _mending(plan: LabPlan, machine: str, links: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lines for ``ip -batch``. A cable that is plugged in anew is dead until its port is as planned."""
    for name, cable, link in _cables(plan, links):
        if cable.machine != machine:
            continue
        isolated = f"link set dev {name} type bridge_slave isolated {'on' if cable.interface.isolated else 'off'}"
        if link.get("master") != cable.bridge:
            yield f"link set dev {name} down"
            yield f"link set dev {name} master {cable.bridge}"
            yield isolated
            yield f"link set dev {name} up"
        elif _isolated(link) != cable.interface.isolated:
            yield isolated


def _defined(network: NetworkPlan, found: Network | None) -> Iterator[Opening]:
    """What libvirt itself would do with a network. One that is not there has no machine on it."""
    if found is not None and found.forward:
        yield network.name, f"its libvirt network leads out: {found.forward}"
    if found is not None and found.resolver:
        yield network.name, "its libvirt network answers names"
    if found is not None and not network.peers and not found.isolated:
        yield network.name, "its libvirt network lets whoever is plugged in meet peers"


def _addresses(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> Iterator[Opening]:
    """This host's own addresses on the bridges; it has a link-local one wherever IPv6 is on, behind the filter."""
    bridges = {networks.wire_bridge(network): network.name for network in plan.networks}
    for link in links:
        for address in link.get("addr_info", ()):
            if link["ifname"] in bridges and address.get("scope") != "link":
                yield bridges[link["ifname"]], f"the host has the address {address.get('local')} on it"


def _plugged(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> Iterator[Opening]:
    """What is on the bridges beside the machines' cables, and cables that are on another's bridge."""
    bridges = {networks.wire_bridge(network): network.name for network in plan.networks}
    planned = {
        networks.tap(plan, interface): interface.network
        for machine in plan.machines
        for interface in machine.interfaces
    }
    for link in links:
        network = bridges.get(link.get("master", ""))
        if network is not None and planned.get(link["ifname"]) != network:
            yield network, f"port {link['ifname']} is not in the plan"


def _meeting(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> Iterator[Opening]:
    """Cables that lead away from the lab, and those of peers that are to be kept apart and are not."""
    bridges = {networks.wire_bridge(network) for network in plan.networks}
    for _, cable, link in _cables(plan, links):
        master = link.get("master", "")
        if master not in bridges and "UP" in link["flags"]:
            yield cable.interface.network, f"the cable of {cable} leads to {master or 'the host itself'}"
        if cable.interface.isolated and master == cable.bridge and not _isolated(link):
            yield cable.interface.network, f"the port of {cable} is not isolated, so it meets peers"


def _apart(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Cables whose machines do not reach whom they may, for people."""
    for _, cable, link in _cables(plan, links):
        if link.get("master") != cable.bridge:
            yield f"the cable of {cable} is not plugged into {cable.interface.network}"
        elif _isolated(link) and not cable.interface.isolated:
            yield f"the port of {cable} on {cable.interface.network} is isolated, so peers do not reach it"


@dataclass(frozen=True, slots=True)
class _Cable:
    """The cable of a NIC and the bridge that it belongs to."""

    machine: str
    interface: InterfacePlan
    bridge: str

    def __str__(self) -> str:
        return f"{self.interface.device} of {self.machine}"


def _cables(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, _Cable, Mapping[str, Any]]]:
    """The device, the cable and what the host says of it, of every cable that is there: machines that run have them."""
    there = {link["ifname"]: link for link in links}
    for machine in plan.machines:
        for interface in machine.interfaces:
            name = networks.tap(plan, interface)
            if name in there:
                bridge = networks.wire_bridge(plan.network(interface.network))
                yield name, _Cable(machine.name, interface, bridge), there[name]


def _isolated(link: Mapping[str, Any]) -> bool:
    """Whether the kernel keeps a bridge's port from others of which this is also true."""
    return bool(link.get("linkinfo", {}).get("info_slave_data", {}).get("isolated"))


def _filtered(there: Mapping[str, str], planned: Mapping[str, str]) -> Iterator[Opening]:
    """The filter between this host and its guests, and between the wires."""
    for name, content in planned.items():
        if name not in there:
            yield "", f"this host has no packet filter {name}"
            continue
        for difference in nftables.differences(nftables.lines(there[name]), nftables.lines(content)):
            yield "", f"this host's packet filter {name} {difference}"
