"""Topologies of containerlab: nodes of a kind, and links between their interfaces.

Source of the format: containerlab.dev, "Topology definition", "Nodes", "Kinds". A link is a bare wire, since the nodes
address themselves; only where a node's own commands give its interfaces addresses does the wire get their subnet.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.errors import UsageError
from labctl.lifecycle.foreign import untyped
from labctl.lifecycle.foreign.draft import Draft, Machine, Network
from labctl.spec.problems import quoted

# Kinds whose nodes are switches: what is linked to one shares a segment.
_SWITCHES = frozenset({"bridge", "ovs-bridge", "ovs"})
# Kinds of containers that are plain Linux.
_LINUX = frozenset({"linux", "frr", "ext-container", ""})
# What stands for something that is no node.
_OUTSIDE = frozenset({"host", "mgmt-net", "macvlan"})
_ROUTING = re.compile(r"frr|quagga|\bbird|vyos|router", re.IGNORECASE)
_SIZE = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([bkmgt]?)i?b?\s*\Z", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_KNOWN = ("name", "topology", "prefix", "mgmt")
_KNOWN_TOPOLOGY = ("nodes", "links", "kinds", "groups", "defaults")
# Drawing data and names of things are nothing to carry over.
_KNOWN_NODE = ("kind", "image", "type", "cpu", "memory", "exec", "group", "labels")
_KNOWN_LINK = ("endpoints", "endpoint", "type", "labels", "vars")


@dataclass(slots=True)
class _Node:
    """A node with its settings, inherited ones included. cables: interface name to network, in the source's order."""

    name: str
    settings: Mapping[str, Any]
    kind: str
    machine: Machine | None = None
    segment: Network | None = None
    cables: list[tuple[str, Network]] = field(default_factory=list)


def recognises(data: Any) -> bool:
    """Whether a document is such a topology."""
    return isinstance(untyped.mapping(untyped.mapping(data).get("topology")).get("nodes"), dict)


def fill(draft: Draft, data: Mapping[str, Any]) -> None:
    """Put a topology into the draft."""
    topology = untyped.mapping(data.get("topology"))
    nodes = {
        name: _node(draft, topology, name, entry) for name, entry in untyped.mapping(topology.get("nodes")).items()
    }
    if not draft.machines:
        raise UsageError("the topology has no nodes that are machines")
    for link in untyped.items(topology.get("links")):
        _link(draft, nodes, untyped.mapping(link))
    for node in nodes.values():
        if node.machine is not None:
            _seats(node.machine, node)
    if "mgmt" in data:
        draft.note("not carried over: mgmt; labctl has a management path of its own, and no lab can use it")
    ignored = [*(key for key in data if key not in _KNOWN), *(key for key in topology if key not in _KNOWN_TOPOLOGY)]
    for key in ignored:
        draft.note(f"not carried over: {quoted(key)}")
    draft.note("containers become virtual machines: what their images hold has to be installed with packages:")


def _node(draft: Draft, topology: Mapping[str, Any], name: str, entry: Any) -> _Node:
    own, defaults = untyped.mapping(entry), untyped.mapping(topology.get("defaults"))
    groups, kinds = untyped.mapping(topology.get("groups")), untyped.mapping(topology.get("kinds"))
    group = untyped.mapping(groups.get(untyped.text(own.get("group", defaults.get("group")))))
    kind = next((untyped.text(part["kind"]) for part in (own, group, defaults) if "kind" in part), "")
    settings = {**defaults, **untyped.mapping(kinds.get(kind)), **group, **own}
    node = _Node(name, settings, kind)
    if kind in _SWITCHES:
        node.segment = draft.network(name)
        node.segment.notes.append(f"a switch in the source, of the kind {kind}")
    elif kind == "host":
        draft.note(f"not carried over: the node {quoted(name)}, which is the host itself")
    else:
        node.machine = _machine(draft, node)
    return node


def _machine(draft: Draft, node: _Node) -> Machine:
    machine = draft.machine(node.name)
    image = untyped.text(node.settings.get("image"))
    if node.kind in _LINUX:
        machine.notes.append(f"it was a container of {quoted(image)}")
        if _ROUTING.search(image) or node.kind == "frr":
            machine.notes.append("where it routes between networks, write router: true and a policy")
    else:
        machine.image = re.sub(r"[^A-Za-z0-9._-]+", "-", node.kind).strip("-._")[:63] or machine.image
        machine.notes.append(f"it was of the kind {quoted(node.kind)}, with the image {quoted(image)}")
        draft.note(f"{machine.image} is no image of labctl's; import one, or write labctl's own router")
    if memory := untyped.text(node.settings.get("memory")):
        found = _SIZE.match(memory)
        if found:
            machine.has_memory(int(float(found[1]) * _UNITS[found[2].lower()]))
        else:
            machine.notes.append(f"not carried over: memory {quoted(memory)}")
    cpu = node.settings.get("cpu")
    if isinstance(cpu, int | float) and not isinstance(cpu, bool) and math.isfinite(cpu):
        machine.has_cpus(math.ceil(cpu))
    for command in untyped.items(node.settings.get("exec")):
        if not _address(untyped.text(command)):
            machine.notes.append(f"not carried over: exec {quoted(untyped.text(command))}")
    others = [key for key in node.settings if key not in _KNOWN_NODE]
    if others:
        machine.notes.append("not carried over: " + ", ".join(map(quoted, others)))
    return machine


def _address(command: str) -> tuple[str, str] | None:
    """The address with its prefix length and the interface of ``ip address add``, or None for another command."""
    try:
        words = [word for word in shlex.split(command) if word not in ("-4", "-6")]
    except ValueError:
        return None
    match words:
        case ["ip", "a" | "addr" | "address", "add" | "a", address, "dev", interface] if "/" in address:
            return address, interface
    return None


def _link(draft: Draft, nodes: Mapping[str, _Node], link: Mapping[str, Any]) -> None:
    ends = list(_ends(link))
    shown = " - ".join(f"{name}:{interface}" for name, interface in ends) or "without ends"
    kind = untyped.text(link.get("type"))
    inside = [(nodes[name], interface) for name, interface in ends if name in nodes and nodes[name].kind != "host"]
    for name, _interface in ends:
        if name not in nodes and name not in _OUTSIDE:
            draft.note(f"not carried over: one end of the link {quoted(shown)}; there is no node {quoted(name)}")
    switches = [node for node, _ in inside if node.segment is not None]
    members = [(node, interface) for node, interface in inside if node.segment is None]
    if len(switches) > 1:
        _join(draft, nodes, switches, shown)
        return
    if not members:
        draft.note(f"not carried over: the link {quoted(shown)}")
        return
    network = (
        switches[0].segment if switches else draft.network("-".join(node.name for node, _ in members), named=False)
    )
    if network is None:  # the type checker's: a switch has a segment
        return
    if not switches:
        network.notes.append(f"the link {shown}")
        if len(inside) < 2 or kind not in ("", "veth"):
            network.notes.append(f"its other end is outside the lab{f' ({kind})' if kind else ''}; here it is isolated")
    for node, interface in members:
        node.cables.append((interface, network))
    others = [key for key in link if key not in _KNOWN_LINK]
    if others:
        network.notes.append("not carried over: " + ", ".join(map(quoted, others)))


def _ends(link: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Node and interface of each end, written either way."""
    for end in [*untyped.items(link.get("endpoints")), *([link["endpoint"]] if "endpoint" in link else [])]:
        if isinstance(end, str):
            name, _, interface = end.partition(":")
            yield name, interface
        elif isinstance(end, dict):
            yield untyped.text(end.get("node")), untyped.text(end.get("interface"))


def _join(draft: Draft, nodes: Mapping[str, _Node], switches: list[_Node], shown: str) -> None:
    """Two switches with a cable between them are one segment."""
    kept, gone = switches[0].segment, switches[1].segment
    if kept is None or gone is None or kept is gone:
        return
    for node in nodes.values():
        node.segment = kept if node.segment is gone else node.segment
        node.cables = [(interface, kept if network is gone else network) for interface, network in node.cables]
    kept.notes.append(f"one with {gone.name}: the source links them ({shown})")
    draft.networks.remove(gone)


def _seats(machine: Machine, node: _Node) -> None:
    """Give it its interfaces in the order of their names, with the addresses that its commands give them."""
    given: dict[str, str] = {}
    for command in untyped.items(node.settings.get("exec")):
        if found := _address(untyped.text(command)):
            given.setdefault(found[1], found[0])
    own = sorted(node.cables, key=lambda cable: _natural(cable[0]))
    for interface, network in own:
        cidr = given.pop(interface, "")
        taken = bool(cidr) and network.give(cidr)
        machine.sit(network, cidr.partition("/")[0] if taken else "", silent=not taken)
    for interface, cidr in given.items():
        machine.notes.append(f"not carried over: {cidr} on {interface}, which no link of the source has")
    names = [interface for interface, _ in own]
    if any(name != f"eth{index}" for index, name in enumerate(names)):
        renamed = ", ".join(f"{name} is eth{index}" for index, name in enumerate(names))
        machine.notes.append(f"interfaces: {renamed}")


def _natural(name: str) -> list[tuple[int, str]]:
    """A name's parts, numbers by value: eth2 comes before eth10."""
    parts = re.findall(r"[0-9]{1,9}|[^0-9]+", name)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts]
