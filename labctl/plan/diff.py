"""The difference between two plans of one instance, machine by machine: what a new ``up`` has to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from labctl.plan.model import LabPlan, MachinePlan

Action = Literal["create", "replace", "restart", "configure", "provision", "keep", "remove"]
"""What happens to a machine.

create: it is new. replace: its disk must be made anew (image, packages, disks). restart: its hardware changes (memory,
cpus, NICs), its disk stays. provision: its steps changed and run again, after configuring. configure: its addresses,
routes, names, users or firewall are set again while it runs. keep: nothing. remove: it is no longer in the spec.
"""

# Which action a change of a MachinePlan field calls for; a field that is not here changes nothing in the guest.
_ACTION_OF_FIELD: Mapping[str, Action] = {
    "uuid": "replace",
    "image": "replace",
    "os": "replace",
    "packages": "replace",
    "disks": "replace",
    "memory": "restart",
    "cpus": "restart",
    "gui": "restart",
    "management_mac": "restart",
    "management_address": "restart",
    "steps": "provision",
    "secrets": "provision",
    "router": "configure",
    "routes": "configure",
    "source_routes": "configure",
    "forward": "configure",
    "hosts": "configure",
    "resolvers": "configure",
    "users": "configure",
    "winrm": "configure",
    "interfaces": "configure",
}
STRENGTH: tuple[Action, ...] = ("keep", "configure", "provision", "create", "restart", "replace", "remove")
"""From the mildest to the most drastic. What there may be of a machine already, an interrupted ``up`` has made: where
that differs from what is wanted, its restart or replacement counts for more than that it is new."""


@dataclass(frozen=True, slots=True)
class Change:
    """One machine's action and the plan fields that call for it."""

    machine: str
    action: Action
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """All machines' changes, in plan order, removed ones last."""

    changes: tuple[Change, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing at all is to be done."""
        return all(change.action == "keep" for change in self.changes)

    def actions(self) -> dict[str, Action]:
        """Machine name to action."""
        return {change.machine: change.action for change in self.changes}


def compare(old: LabPlan | None, new: LabPlan) -> PlanDiff:
    """What turns ``old`` (None: nothing runs yet) into ``new``."""
    before = {machine.name: machine for machine in old.machines} if old else {}
    changes = [_change(before.get(machine.name), machine, old, new) for machine in new.machines]
    kept = {machine.name for machine in new.machines}
    changes += [Change(name, "remove") for name in before if name not in kept]
    return PlanDiff(tuple(changes))


def _change(old: MachinePlan | None, new: MachinePlan, old_plan: LabPlan | None, new_plan: LabPlan) -> Change:
    if old is None or old_plan is None:
        return Change(new.name, "create")
    changed = tuple(f.name for f in fields(MachinePlan) if getattr(old, f.name) != getattr(new, f.name))
    wanted: set[Action] = {_ACTION_OF_FIELD[name] for name in changed if name in _ACTION_OF_FIELD}
    if _hardware(old, old_plan) != _hardware(new, new_plan):
        wanted.add("restart")
    action: Action = max(wanted, key=STRENGTH.index, default="keep")
    return Change(new.name, action, changed)


def _hardware(machine: MachinePlan, plan: LabPlan) -> list[tuple[object, ...]]:
    """What the engine knows of a machine and its NICs besides its size: all that cannot change while it runs."""
    wires = {network.name: (network.wire, network.egress, network.exit) for network in plan.networks}
    return [
        (plan.management, plan.settings.get(plan.provider), machine.settings.get(plan.provider)),
        *((i.mac, i.device, i.promiscuous, i.isolated, wires[i.network]) for i in machine.interfaces),
    ]
