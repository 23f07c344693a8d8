"""The topology as a picture: networks, machines, who sits where, and what the policy lets cross."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan, NetworkPlan
from labctl.plan.reach import Blast
from labctl.spec.model import PolicyRule, RuleEnd

# How far a machine is from one that somebody owns: fill and text. Darker is nearer; a dashed border needs a router.
_NEARNESS = {
    "owned": ("#9c211a", "#ffffff", "solid"),
    "direct": ("#f2a59d", "#000000", "solid"),
    "later": ("#fbe3b6", "#000000", "solid"),
    "router_falls": ("#f4f1ea", "#000000", "dashed"),
}


def mermaid(plan: LabPlan, blast: Blast | None = None) -> str:
    """Mermaid's flowchart language, as GitHub and GitLab draw it. Dashed arrows are what the policy allows.

    blast: colour the machine that somebody owns, and those that could be reached from it.
    """
    lines = [*_mermaid_lines(plan), *(_mermaid_classes(blast) if blast else ())]
    return "\n".join(["flowchart LR", *(f"  {line}" for line in lines), ""])


def _nearness(blast: Blast) -> dict[str, str]:
    """Machine to how near it is, a key of ``_NEARNESS``."""
    found = {
        one.machine: "router_falls" if one.router else "direct" if one.direct else "later" for one in blast.reached
    }
    return {blast.machine: "owned", **found}


def _mermaid_classes(blast: Blast) -> Iterator[str]:
    for name, (fill, text, border) in _NEARNESS.items():
        dashes = ",stroke-dasharray:5 4" if border == "dashed" else ""
        yield f"classDef {name} fill:{fill},color:{text},stroke:#333333{dashes}"
    for machine, name in _nearness(blast).items():
        yield f"class {_machine_id(machine)} {name}"


def _mermaid_lines(plan: LabPlan) -> Iterator[str]:
    for network in plan.networks:
        yield f'{_network_id(network.name)}(["{_mermaid_text(_network_label(network))}"])'
    for machine in plan.machines:
        left, right = ("{{", "}}") if machine.router else ("[", "]")
        yield f'{_machine_id(machine.name)}{left}"{_mermaid_text(_machine_label(machine))}"{right}'
    for machine in plan.machines:
        for interface in machine.interfaces:
            label = _mermaid_text([_seat_label(interface)])
            yield f'{_machine_id(machine.name)} ---|"{label}"| {_network_id(interface.network)}'
    for rule in plan.policy:
        label = _mermaid_text([_rule_label(rule)])
        for source, target in _rule_edges(plan, rule):
            yield f'{source} -.->|"{label}"| {target}'


def dot(plan: LabPlan, blast: Blast | None = None) -> str:
    """Source text for Graphviz. Routers are diamonds; dashed green arrows are allowed, dashed red ones rejected.

    blast: as in ``mermaid``.
    """
    from graphviz import Graph, escape

    def text(parts: list[str]) -> str:
        return "\n".join(str(escape(_printable(part))) for part in parts).replace("\n", r"\n")

    picture = Graph(name="lab", graph_attr={"rankdir": "LR", "label": text([plan.lab]), "fontname": "sans-serif"})
    picture.attr("node", fontname="sans-serif")
    picture.attr("edge", fontname="sans-serif", fontsize="10")
    for network in plan.networks:
        picture.node(_network_id(network.name), text(_network_label(network)), shape="ellipse", style="filled")
    nearness = _nearness(blast) if blast else {}
    for machine in plan.machines:
        look = {"shape": "diamond" if machine.router else "box"}
        if machine.name in nearness:
            fill, words, border = _NEARNESS[nearness[machine.name]]
            look |= {"style": f"filled,{border}", "fillcolor": fill, "fontcolor": words}
        picture.node(_machine_id(machine.name), text(_machine_label(machine)), **look)
    for machine in plan.machines:
        for interface in machine.interfaces:
            label = text([_seat_label(interface)])
            picture.edge(_machine_id(machine.name), _network_id(interface.network), label=label)
    for rule in plan.policy:
        colour = "darkgreen" if rule.action == "allow" else "red"
        for source, target in _rule_edges(plan, rule):
            look = {"style": "dashed", "dir": "forward", "color": colour, "constraint": "false"}
            picture.edge(source, target, label=text([_rule_label(rule)]), **look)
    return str(picture.source)


def _network_id(name: str) -> str:
    return f"network_{_identifier(name)}"


def _machine_id(name: str) -> str:
    return f"machine_{_identifier(name)}"


def _identifier(name: str) -> str:
    """Letters, digits and underscores only, and still different for different names."""
    return re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):x}_", name)


def _network_label(network: NetworkPlan) -> list[str]:
    remarks = [str(subnet) for subnet in network.subnets()] or ["bare"]
    if not network.peers:
        remarks.append("no peers")
    if network.egress != "none":
        remarks.append(f"egress {network.egress}")
    return [network.name, *remarks]


def _machine_label(machine: MachinePlan) -> list[str]:
    return [f"{machine.name} (router)" if machine.router else machine.name, machine.image]


def _seat_label(interface: InterfacePlan) -> str:
    addresses = [str(address) for address in interface.addresses()]
    return " ".join([interface.device, *addresses, *(["promiscuous"] if interface.promiscuous else [])])


def _rule_label(rule: PolicyRule) -> str:
    ports = ", ".join(str(ports) for ports in rule.ports)
    return ports if rule.action == "allow" else f"{rule.action} {ports}"


def _rule_edges(plan: LabPlan, rule: PolicyRule) -> Iterator[tuple[str, str]]:
    for source in _ends(plan, rule.source):
        for target in _ends(plan, rule.target):
            yield source, target


def _ends(plan: LabPlan, end: RuleEnd) -> list[str]:
    """The nodes of a rule's end: a network, or one machine or all copies of one."""
    if end.machine is None:
        return [_network_id(end.network or "")]
    return [_machine_id(m.name) for m in plan.machines if end.machine in (m.name, m.entry)]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _mermaid_text(parts: list[str]) -> str:
    """Text inside double quotes: everything with a meaning in Mermaid or HTML as a character code."""
    coded = (re.sub(r"[^\w ./:,()-]", lambda match: f"#{ord(match[0])};", _printable(part)) for part in parts)
    return "<br/>".join(coded)
