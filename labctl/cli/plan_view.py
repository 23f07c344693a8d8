"""A plan and its difference to what exists, for people."""

from __future__ import annotations

from labctl.cli.output import say, table
from labctl.plan.diff import Change, PlanDiff
from labctl.plan.model import LabPlan, MachinePlan

_SIGN = {
    "create": "+",
    "replace": "-/+",
    "restart": "~",
    "configure": "~",
    "provision": "~",
    "keep": " ",
    "remove": "-",
}
_WORDS = {
    "create": "will be created",
    "replace": "will be made anew, its disk with it",
    "restart": "will be restarted",
    "configure": "will be configured while it runs",
    "provision": "will be provisioned again",
    "keep": "stays as it is",
    "remove": "will be removed, its disk with it",
}


def show_plan(plan: LabPlan, diff: PlanDiff) -> None:
    """Print the lab's machines with their addresses and what ``up`` would do with each."""
    say(f"{plan.lab}/{plan.instance} on {plan.provider}\n")
    table(
        ("NETWORK", "IPV4", "IPV6", "REMARKS"),
        [
            (
                n.name,
                str(n.subnet or "-"),
                str(n.subnet6 or "-"),
                ", ".join(
                    filter(None, ["" if n.peers else "no peers", "" if n.egress == "none" else f"egress {n.egress}"])
                ),
            )
            for n in plan.networks
        ],
    )
    say()
    machines = {machine.name: machine for machine in plan.machines}
    table(
        ("", "MACHINE", "IMAGE", "MEMORY", "NETWORKS", "WHAT UP DOES"),
        [_row(change, machines.get(change.machine)) for change in diff.changes],
    )
    allowed = sum(flow.expected == "pass" for flow in plan.flows)
    say(f"\n{len(plan.flows)} expected flows: {allowed} pass, {len(plan.flows) - allowed} deny.")
    say(summary(diff))


def summary(diff: PlanDiff) -> str:
    """One line, such as ``Plan: 2 to create, 1 to restart.``"""
    if diff.empty:
        return "No changes: what exists is what the spec says."
    counts = {action: sum(change.action == action for change in diff.changes) for action in _SIGN if action != "keep"}
    return "Plan: " + ", ".join(f"{count} to {action}" for action, count in counts.items() if count) + "."


def _row(change: Change, machine: MachinePlan | None) -> tuple[str, ...]:
    words = _WORDS[change.action] + (
        f" ({', '.join(change.fields)})" if change.fields and change.action != "create" else ""
    )
    if machine is None:
        return (_SIGN[change.action], change.machine, "", "", "", words)
    seats = ", ".join(
        f"{i.network} {' '.join(str(a) for a in i.addresses())}".strip() + (" (promiscuous)" if i.promiscuous else "")
        for i in machine.interfaces
    )
    return (
        _SIGN[change.action],
        machine.name + (" (router)" if machine.router else ""),
        machine.image,
        f"{machine.memory >> 20} MiB",
        seats,
        words,
    )
