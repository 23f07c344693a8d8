"""``topology.yml`` of KYPO and CyberRangeCZ: hosts and routers of images, mapped to networks.

Source of the format: github.com/cyberrangecz/backend-topology-definition, ``models.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from labctl.errors import UsageError
from labctl.lifecycle.foreign import boxes, untyped
from labctl.lifecycle.foreign.draft import Draft, Machine, Network
from labctl.spec.problems import quoted

_GIB = 1 << 30
# Processors and GiB of the flavors that CyberRangeCZ sets up; others carry theirs in the name: csirtmu.tiny1x2.
_FLAVORS = {"standard.small": (1, 2), "standard.medium": (2, 4), "standard.large": (4, 8), "standard.xlarge": (8, 16)}
_FLAVOR = re.compile(r"([0-9]{1,3})x([0-9]{1,4})\Z")
# What the definition has where it says nothing.
_WAN = {"name": "wan", "cidr": "100.100.100.0/24"}
_KNOWN = ("name", "hosts", "routers", "wan", "networks", "net_mappings", "router_mappings", "groups")
_KNOWN_NODE = ("name", "base_box", "flavor", "block_internet", "hidden", "network", "networks")
_KNOWN_NETWORK = ("name", "cidr", "accessible_by_user", "hidden")


def recognises(data: Any) -> bool:
    """Whether a document is such a topology."""
    keys = {"hosts", "routers", "networks", "net_mappings", "router_mappings"}
    return len(keys & set(untyped.mapping(data))) >= 3 and isinstance(data.get("hosts"), list)


def fill(draft: Draft, data: Mapping[str, Any]) -> None:
    """Put a topology into the draft."""
    nodes: dict[str, Machine] = {}
    for kind in ("hosts", "routers"):
        for entry in untyped.items(data.get(kind)):
            _node(draft, nodes, untyped.mapping(entry), router=kind == "routers")
    if not nodes:
        raise UsageError("the topology has no hosts and no routers")
    networks: dict[str, Network] = {}
    for entry in untyped.items(data.get("networks")):
        _network(draft, networks, untyped.mapping(entry))
    for kind, end, own in (("router_mappings", "router", "routers"), ("net_mappings", "host", "hosts")):
        for entry in [*untyped.items(data.get(kind)), *_own_mappings(data.get(own), end)]:
            _mapping(draft, nodes, networks, untyped.mapping(entry), end)
    _wan(draft, data)
    _groups(draft, nodes, data)
    for key in data:
        if key not in _KNOWN:
            draft.note(f"not carried over: {quoted(key)}")
    if any(machine.router for machine in draft.machines):
        draft.open_between_networks = True
        draft.note("policy: routers of the source pass everything between networks, so do these; narrow the rules")
    if not all(untyped.truth(untyped.mapping(host).get("block_internet")) for host in untyped.items(data.get("hosts"))):
        draft.note("hosts of the source may reach the internet; here nothing does until a network has egress: nat")


def _node(draft: Draft, nodes: dict[str, Machine], entry: Mapping[str, Any], *, router: bool) -> None:
    name, box = untyped.text(entry.get("name")), entry.get("base_box")
    settings = untyped.mapping(box)
    image = untyped.text(settings.get("image")) or untyped.text(box)
    protocol = untyped.text(settings.get("mgmt_protocol", settings.get("mng_protocol"))).lower()
    machine = draft.machine(name, windows=protocol == "winrm")
    machine.router = router
    if name in nodes:
        machine.notes.append(f"there is more than one {quoted(name)} in the source; mappings mean the first")
    nodes.setdefault(name, machine)
    _image(draft, machine, image, router=router and not machine.windows)
    _flavor(machine, untyped.text(entry.get("flavor")))
    if untyped.truth(entry.get("hidden")):
        machine.notes.append("not carried over: hidden from the picture that trainees see")
    _others(machine.notes, entry, _KNOWN_NODE)


def _image(draft: Draft, machine: Machine, image: str, *, router: bool) -> None:
    if router:
        machine.image = "router"
        machine.notes.append(f"the image was {quoted(image)}")
    elif image.startswith("debian-12"):
        machine.image = "debian-12"
        if image != "debian-12":
            machine.notes.append(f"the image was {quoted(image)}")
    else:
        boxes.choose(draft, machine, image)


def _flavor(machine: Machine, flavor: str) -> None:
    found = _FLAVOR.search(flavor)
    size = (int(found[1]), int(found[2])) if found else _FLAVORS.get(flavor)
    if size:
        machine.has_cpus(size[0])
        machine.has_memory(size[1] * _GIB)
        machine.notes.append(f"cpus and memory are a reading of the flavor {quoted(flavor)}")
    elif flavor:
        machine.notes.append(f"not carried over: the flavor {quoted(flavor)}; write cpus and memory")


def _network(draft: Draft, networks: dict[str, Network], entry: Mapping[str, Any]) -> None:
    name = untyped.text(entry.get("name"))
    network = draft.network(name)
    if name in networks:
        network.notes.append(f"there is more than one {quoted(name)} in the source; mappings mean the first")
    networks.setdefault(name, network)
    cidr = untyped.text(entry.get("cidr"))
    if cidr:
        network.give(cidr)
    else:
        network.notes.append("it has no cidr in the source")
    if "accessible_by_user" in entry and not untyped.truth(entry["accessible_by_user"]):
        network.notes.append("not carried over: accessible_by_user: false; labctl ssh reaches every machine")
    if untyped.truth(entry.get("hidden")):
        network.notes.append("not carried over: hidden from the picture that trainees see")
    _others(network.notes, entry, _KNOWN_NETWORK)


def _mapping(
    draft: Draft, nodes: dict[str, Machine], networks: dict[str, Network], entry: Mapping[str, Any], end: str
) -> None:
    node, name = untyped.text(entry.get(end)), untyped.text(entry.get("network"))
    if node in nodes and name in networks:
        nodes[node].sit(networks[name], untyped.text(entry.get("ip")))
    else:
        missing = f"{end} {quoted(node)}" if node not in nodes else f"network {quoted(name)}"
        draft.note(f"not carried over: a mapping of {quoted(node)} to {quoted(name)}; the source has no {missing}")


def _own_mappings(entries: Any, end: str) -> Iterator[dict[str, Any]]:
    """Mappings written with their node: a list below ``network``, or addresses by name below ``networks``."""
    for entry in map(untyped.mapping, untyped.items(entries)):
        for mapping in map(untyped.mapping, untyped.items(entry.get("network"))):
            yield {**mapping, end: entry.get("name")}
        for name, address in untyped.mapping(entry.get("networks")).items():
            yield {end: entry.get("name"), "network": name, "ip": address}


def _wan(draft: Draft, data: Mapping[str, Any]) -> None:
    """The network between the routers, where there is one or a router needs it to have two."""
    routers = [machine for machine in draft.machines if machine.router]
    if not routers or ("wan" not in data and len(routers) == 1 and len(routers[0].seats) > 1):
        return
    wan = untyped.mapping(data.get("wan")) or _WAN
    network = draft.network(untyped.text(wan.get("name")) or _WAN["name"])
    network.notes.append("the source's WAN: it joins the routers, and leads nowhere else here")
    network.give(untyped.text(wan.get("cidr")) or _WAN["cidr"])
    for router in routers:
        router.sit(network)


def _groups(draft: Draft, nodes: Mapping[str, Machine], data: Mapping[str, Any]) -> None:
    for entry in map(untyped.mapping, untyped.items(data.get("groups"))):
        label = untyped.text(entry.get("name")) or "group"
        members = [untyped.text(node) for node in untyped.items(entry.get("nodes"))]
        for name in _unknown(members, nodes):
            draft.note(f"not carried over: {quoted(name)} of a group; the source has no such node")
        known = (nodes[name].name for name in members if name in nodes)
        draft.groups[label] = [*draft.groups.get(label, ()), *known]
    if draft.groups:
        draft.note("groups are kept below x-groups, which labctl does not read")


def _unknown(members: list[str], nodes: Mapping[str, Machine]) -> Iterator[str]:
    return (name for name in members if name not in nodes)


def _others(notes: list[str], entry: Mapping[str, Any], known: tuple[str, ...]) -> None:
    notes.extend(f"not carried over: {quoted(key)}" for key in entry if key not in known)
