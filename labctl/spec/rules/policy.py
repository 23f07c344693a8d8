"""Policy rules: both ends exist, have addresses, and routers can carry what the rule lets pass."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.spec.model import RuleEnd
from labctl.spec.problems import Finding, Keys, listed, nearest, quoted
from labctl.spec.rules.context import FAMILIES, Context, Family, addressed


def ends(context: Context) -> Iterator[Finding]:
    """Ends that name nothing, or a machine on a network where it is not, or something without addresses."""
    for keys, end in _ends(context):
        unknown = _unknown(context, keys, end)
        if unknown:
            yield unknown
        elif _bare(context, end):
            yield Finding(
                keys,
                f"{end} has no address, so no router can carry this",
                hint="Policy is about routed flows; a bare wire carries whatever its members say.",
            )


def carried(context: Context) -> Iterator[Finding]:
    """Rules that no chain of routers can carry, and rules that nothing needs."""
    for index, rule in enumerate(context.spec.policy):
        if any(_unknown(context, (), end) or _bare(context, end) for end in (rule.source, rule.target)):
            continue
        pairs = {
            (source, target, target in context.components[family][source])
            for family in FAMILIES
            for source in _networks(context, rule.source, family)
            for target in _networks(context, rule.target, family)
        }
        if any(joined and source != target for source, target, joined in pairs):
            continue
        if any(source == target for source, target, _joined in pairs):
            yield Finding(
                ("policy", index),
                f"{rule.source} and {rule.target} are on one network, where policy has no say",
                hint="Members of a network reach each other; peers: false on the network stops that.",
            )
        else:
            yield Finding(
                ("policy", index),
                f"no router joins {rule.source} with {rule.target}, so nothing can carry this rule",
                hint="Give a machine router: true and an address on both networks, or remove the rule.",
            )


def _ends(context: Context) -> Iterator[tuple[Keys, RuleEnd]]:
    for index, rule in enumerate(context.spec.policy):
        yield ("policy", index, "from"), rule.source
        yield ("policy", index, "to"), rule.target


def _unknown(context: Context, keys: Keys, end: RuleEnd) -> Finding | None:
    machines, networks = context.entry_of, context.spec.networks
    if end.machine is not None and end.machine not in machines:
        swapped = end.machine in networks and end.network in machines
        meant = f"{end.network}.{end.machine}" if swapped else nearest(end.machine, machines)
        return Finding(keys, f"there is no machine {quoted(end.machine)}", "machine.network", meant)
    if end.kind == "interface":
        own = [interface.network for interface in machines[str(end.machine)].interfaces]
        if end.network not in own:
            return Finding(keys, f"{end.machine} is not on a network {quoted(end.network)}", listed(own))
    elif end.kind == "network" and end.network not in networks:
        known = [*machines, *networks]
        return Finding(
            keys,
            f"there is no machine or network {quoted(end.network)}",
            listed(known[:20]) + (", …" if len(known) > 20 else ""),
            nearest(str(end.network), known),
        )
    return None


def _bare(context: Context, end: RuleEnd) -> bool:
    return not any(_networks(context, end, family) for family in FAMILIES)


def _networks(context: Context, end: RuleEnd, family: Family) -> list[str]:
    """The networks on which the end has an address of this family."""
    if end.kind == "network":
        network = context.spec.networks[str(end.network)]
        subnet = network.subnet if family == 4 else network.subnet6
        return [network.name] if subnet is not None else []
    own = addressed(context.entry_of[str(end.machine)], family)
    own = [name for name in own if name in context.spec.networks]
    return own if end.kind == "machine" else [name for name in own if name == end.network]
