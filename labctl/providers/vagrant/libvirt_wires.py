"""Whether the wires of a libvirt instance are closed as they were made: networks, bridges on the host, its filter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from labctl.errors import HostError
from labctl.host import nftables
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, NetworkPlan
from labctl.providers.vagrant import networks
from labctl.providers.vagrant.virsh import Network, Virsh

Opening = tuple[str, str]
"""A network, ``""`` for all of them, and what it lets through, for people."""

_PARTED = "---"
_QUESTIONS = f"""
set -e
ip -json address show; echo {_PARTED}
bridge -json link show; echo {_PARTED}
nft --stateless list ruleset; echo {_PARTED}
{nftables.LISTED}
"""


def openings(plan: LabPlan, virsh: Virsh, runner: Runner) -> tuple[Opening, ...]:
    """Every difference from the plan that lets something through. Raises HostError where this host does not tell."""
    said = runner.run(["sh", "-c", _QUESTIONS], stdin=networks.host_filter(plan).encode(), check=False, changes=False)
    parts = said.text.split(f"{_PARTED}\n")
    if said.code != 0 or len(parts) != len(_QUESTIONS.split(_PARTED)):
        raise HostError(f"this host does not tell what is on the lab's wires: {said.last_words(1)}")
    links, ports, there, planned = parts
    try:
        on_bridges = (*_addresses(plan, json.loads(links)), *_plugged(plan, json.loads(ports or "[]")))
    except (ValueError, KeyError) as error:
        raise HostError("this host says of its devices what makes no sense", details=str(error)) from error
    return (
        *(opening for network in plan.networks for opening in _defined(network, virsh.network(network.wire))),
        *on_bridges,
        *_filtered(nftables.tables(there), nftables.tables(planned)),
    )


def _defined(network: NetworkPlan, found: Network | None) -> Iterator[Opening]:
    """What libvirt itself would do with a network. One that is not there has no machine on it."""
    if found is not None and found.forward:
        yield network.name, f"its libvirt network leads out: {found.forward}"
    if found is not None and found.resolver:
        yield network.name, "its libvirt network answers names"


def _addresses(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> Iterator[Opening]:
    """This host's own addresses on the bridges; it has a link-local one wherever IPv6 is on, behind the filter."""
    bridges = {networks.wire_bridge(network): network.name for network in plan.networks}
    for link in links:
        for address in link.get("addr_info", ()):
            if link["ifname"] in bridges and address.get("scope") != "link":
                yield bridges[link["ifname"]], f"the host has the address {address.get('local')} on it"


def _plugged(plan: LabPlan, ports: Iterable[Mapping[str, Any]]) -> Iterator[Opening]:
    """What is on the bridges beside the machines' cables, and cables that are on another's bridge."""
    bridges = {networks.wire_bridge(network): network.name for network in plan.networks}
    planned = {
        networks.tap(plan, interface): interface.network
        for machine in plan.machines
        for interface in machine.interfaces
    }
    for port in ports:
        network = bridges.get(port.get("master", ""))
        if network is not None and planned.get(port["ifname"]) != network:
            yield network, f"port {port['ifname']} is not in the plan"


def _filtered(there: Mapping[str, str], planned: Mapping[str, str]) -> Iterator[Opening]:
    """The filter between this host and its guests, and between the wires."""
    for name, content in planned.items():
        if name not in there:
            yield "", f"this host has no packet filter {name}"
            continue
        for difference in nftables.differences(nftables.lines(there[name]), nftables.lines(content)):
            yield "", f"this host's packet filter {name} {difference}"
