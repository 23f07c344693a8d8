"""What is wrong, by cause: one dead machine spoils hundreds of flows, and is one thing to mend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from labctl.verify.reports.document import FlowEntry, VerdictWord, service

_UNASKED = "could not be asked: "  # as ``verify.judge`` words it


@dataclass(frozen=True, slots=True)
class Cause:
    """Flows that are not PASS for one reason. reason: in words, without what differs between the flows."""

    verdict: VerdictWord
    reason: str
    flows: tuple[FlowEntry, ...]


def causes(flows: Sequence[FlowEntry]) -> tuple[Cause, ...]:
    """Every flow that is not PASS, in the group of its cause: leaks first, then what else FAILs, the largest first."""
    troubles, mute = _troubles(flows), _mute(flows)
    groups: dict[tuple[VerdictWord, str], list[FlowEntry]] = defaultdict(list)
    for flow in flows:
        if flow["verdict"] != "PASS":
            reason = _undecided(flow, troubles) if flow["verdict"] == "INCONCLUSIVE" else _failed(flow, mute)
            groups[flow["verdict"], reason].append(flow)
    found = [Cause(verdict, reason, tuple(members)) for (verdict, reason), members in groups.items()]
    return tuple(sorted(found, key=lambda c: (c.verdict != "FAIL", c.flows[0]["expected"] == "pass", -len(c.flows))))


def _troubles(flows: Sequence[FlowEntry]) -> dict[str, str]:
    """Machine to why it could not be asked."""
    found: dict[str, str] = {}
    for flow in flows:
        if flow["evidence"]["seen"] == "error":
            for machine in (flow["source"], flow["target"]):
                head = f"{machine} {_UNASKED}"
                if flow["evidence"]["details"].startswith(head):
                    told = flow["evidence"]["details"].removeprefix(head)
                    found[machine] = told if machine == flow["source"] else _unseen(told)
    return found


def _unseen(details: str) -> str:
    """A target's trouble without what the source saw of it."""
    return details.rpartition("; seen: ")[0] or details


def _mute(flows: Sequence[FlowEntry]) -> frozenset[tuple[str, str, int]]:
    """Target, protocol and port of services that several may reach and nobody does: it is not the way that is shut."""
    missed: Counter[tuple[str, str, int]] = Counter()
    for flow in flows:
        if flow["expected"] == "pass":
            missed[_service(flow)] += {"FAIL": 1, "INCONCLUSIVE": 0, "PASS": -len(flows)}[flow["verdict"]]
    return frozenset(service for service, count in missed.items() if count > 1)


def _service(flow: FlowEntry) -> tuple[str, str, int]:
    return flow["target"], flow["protocol"], flow["port"]


def _undecided(flow: FlowEntry, troubles: dict[str, str]) -> str:
    """Why a flow is INCONCLUSIVE: the machine that could not be asked, what went wrong, or the controls that failed."""
    if flow["evidence"]["seen"] == "error":
        details = flow["evidence"]["details"]
        for machine in (flow["source"], flow["target"]):
            trouble = troubles.get(machine)
            # Whatever it was that it could not do.
            if trouble is not None and (
                details == trouble or (details.startswith(f"{machine} ") and trouble in details)
            ):
                return f"{machine} {_UNASKED}{trouble}"
        return _unseen(flow["evidence"]["details"]) or "not probed"
    failed = [control for control in flow["control"] if not control["passed"]]
    if any(control["subject"] == "target" for control in failed) and flow["target"] in troubles:
        return f"{flow['target']} {_UNASKED}{troubles[flow['target']]}"
    if failed:
        return "; ".join(_general(control["details"], flow) for control in failed)
    return "its controls are missing"


def _general(details: str, flow: FlowEntry) -> str:
    """A control's words without the flow's own address and port."""
    return details.replace(f"{flow['target']} ({flow['address']} {service(flow)})", flow["target"])


def _failed(flow: FlowEntry, mute: Collection[tuple[str, str, int]]) -> str:
    """What a FAIL has in common with others: what was expected, what came, and the rule that it is about."""
    if flow["expected"] == "pass" and _service(flow) in mute:
        return f"{flow['target']} {service(flow)} answers nobody of those who may reach it"
    seen = {"no-route": "no route", "answered": "an answer"}.get(flow["evidence"]["seen"], flow["evidence"]["seen"])
    expected = "should pass" if flow["expected"] == "pass" else "should be closed"
    rule = f": {flow['why']}" if flow["why"] else ""
    return f"saw {seen}, {expected}{rule}"
