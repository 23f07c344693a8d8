"""Evidence from the host's side: what the engine reports, compared with the plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import MANAGEMENT, Observed, ObservedNic, is_management
from labctl.verify.model import Finding, FindingKind, Verdict


def compare(plan: LabPlan, observed: Observed, *, sealed: bool = False) -> tuple[Finding, ...]:
    """Every difference in NICs and wires of running machines, every leftover and opening; what does not run.

    sealed: no machine is to be joined to its management NIC.
    """
    states = {status.name: status for status in observed.machines}
    unseen = dict(observed.unseen)
    found: list[Finding] = []
    for machine in plan.machines:
        status = states.get(machine.name)
        if status is None or status.state != "running":
            state = status.state if status else "absent"
            found.append(Finding("not-running", machine.name, f"{machine.name} is {state}", Verdict.INCONCLUSIVE))
        elif machine.name in unseen:
            details = f"the engine does not say what NICs {machine.name} has: {unseen[machine.name]}"
            found.append(Finding("unobserved", machine.name, details, Verdict.INCONCLUSIVE))
        else:
            found += _nics(plan, machine, [nic for nic in observed.nics if nic.machine == machine.name])
    found += _open(observed) if sealed else ()
    names = {machine.name for machine in plan.machines}
    strangers = [nic for nic in observed.nics if nic.machine not in names]
    found += [
        Finding("extra-nic", nic.machine, f"{_shown(nic)} of an unknown machine", Verdict.FAIL) for nic in strangers
    ]
    found += [Finding("leftover", "", f"{thing} is not in the plan", Verdict.FAIL) for thing in observed.leftovers]
    found += [Finding("opening", name, f"{name}: {what}", Verdict.FAIL) for name, what in observed.openings]
    found += [
        Finding("open-wire", "", f"{network or 'the wires'}: {what}", Verdict.FAIL) for network, what in observed.wires
    ]
    found += [Finding("not-running", "", fault, Verdict.INCONCLUSIVE) for fault in observed.faults]
    return tuple(found)


def as_planned(plan: LabPlan, observed: Observed) -> frozenset[tuple[str, str]]:
    """(machine, device) of NICs that the engine has linked, with the planned MAC on the planned wire."""
    seen = {(nic.machine, nic.mac.lower(), nic.wire) for nic in observed.nics if nic.linked}
    return frozenset(
        (machine.name, device)
        for machine in plan.machines
        for device, mac, wire in _planned(plan, machine)
        if (machine.name, mac, wire) in seen
    )


def unplugged(plan: LabPlan, observed: Observed) -> frozenset[tuple[str, str]]:
    """(machine, device) of management NICs whose cable the engine reports pulled: nothing goes by those."""
    return frozenset((nic.machine, plan.management.device) for nic in observed.nics if _pulled(nic))


def _pulled(nic: ObservedNic) -> bool:
    return is_management(nic) and not nic.linked


def _open(observed: Observed) -> Iterator[Finding]:
    for nic in observed.nics:
        if is_management(nic) and nic.linked:
            details = f"{nic.machine}: its management NIC is joined in a lab that is to be sealed"
            yield Finding("unsealed", nic.machine, details, Verdict.FAIL)


def _planned(plan: LabPlan, machine: MachinePlan) -> Iterator[tuple[str, str, str]]:
    """Device, MAC and wire of every NIC of a machine, the management NIC last."""
    for interface in machine.interfaces:
        yield interface.device, interface.mac.lower(), interface.network
    yield plan.management.device, machine.management_mac.lower(), MANAGEMENT


def _nics(plan: LabPlan, machine: MachinePlan, nics: list[ObservedNic]) -> Iterator[Finding]:
    seen = {nic.mac.lower(): nic for nic in nics}
    for device, mac, wire in _planned(plan, machine):
        nic = seen.pop(mac, None)
        if nic is None:
            if wire != MANAGEMENT:  # a sealed machine has none, and no path is opened by its absence
                yield _difference("missing-nic", machine, f"{device} ({mac}, {wire}) is not there")
        elif nic.wire != wire:
            yield _difference("wrong-wire", machine, f"{device} ({mac}) is on {nic.wire}, planned on {wire}")
        elif not nic.linked and wire != MANAGEMENT:
            yield _difference("unlinked", machine, f"{device} ({mac}, {wire}) has its cable pulled")
    for nic in seen.values():
        yield _difference("extra-nic", machine, f"{_shown(nic)} is not in the plan")


def _difference(kind: FindingKind, machine: MachinePlan, details: str) -> Finding:
    return Finding(kind, machine.name, f"{machine.name}: {details}", Verdict.FAIL)


def _shown(nic: ObservedNic) -> str:
    return f"a NIC {nic.mac} on {nic.wire}"
