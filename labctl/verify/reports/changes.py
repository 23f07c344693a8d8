"""What differs between two reports of one instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from labctl.verify.reports.document import Document, FlowEntry, VerdictWord

_WELL_KNOWN = 1023  # the last port that the system does not give out by itself
_WORST = ("PASS", "INCONCLUSIVE", "FAIL")


class FlowKey(NamedTuple):
    """What makes a flow the same in two reports.

    address is ``""`` where a NIC of the lab says more. port is 0 for icmp, and where it is another one each time: that
    of a canary of labctl's on the host, and that to which the trick ``source-port`` pretends to answer.
    """

    source: str
    source_device: str
    target: str
    target_device: str
    address: str
    family: int
    protocol: str
    port: int
    trick: str

    @property
    def door(self) -> str:
        """The flow's far end for people: ``web tcp/80``."""
        port = f"/{self.port}" if self.port else ""
        where = f" {self.address}" if self.address else f" {self.target_device}" if self.target_device else ""
        family = " IPv6" if self.family == 6 else ""
        trick = f" with {self.trick}" if self.trick else ""
        return f"{self.target}{where} {self.protocol}{port}{family}{trick}"


def flow_key(flow: FlowEntry) -> FlowKey:
    """The key of a document's flow."""
    canary = flow["target"] in ("host", "management") and not flow["target_device"] and flow["port"] > _WELL_KNOWN
    return FlowKey(
        flow["source"],
        flow["source_device"],
        flow["target"],
        flow["target_device"],
        "" if flow["target_device"] else flow["address"],
        flow["family"],
        flow["protocol"],
        0 if canary or flow.get("trick") == "source-port" else flow["port"],
        flow.get("trick", ""),
    )


@dataclass(frozen=True, slots=True)
class Turned:
    """A flow whose verdict is another one now."""

    key: FlowKey
    before: str
    now: VerdictWord

    @property
    def worse(self) -> bool:
        """Whether it is worse than it was."""
        return _WORST.index(self.now) > _WORST.index(self.before)


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since an earlier report. finished and verdict are the earlier one's; same_plan: both reports
    are about one plan, so a flow that is new or gone is no change of the lab file."""

    finished: str
    verdict: str
    same_plan: bool
    turned: tuple[Turned, ...]
    new: tuple[FlowKey, ...]
    gone: tuple[FlowKey, ...]

    @property
    def empty(self) -> bool:
        """Whether both say the same about the same flows."""
        return not (self.turned or self.new or self.gone)


def changes(before: Mapping[str, Any] | None, now: Document) -> Changes | None:
    """Compare a report with an earlier one; None where there is none, or none that can be understood.

    before: what a report's file held. It may come from another version of labctl, so nothing of it is taken for
    granted.
    """
    try:
        old = _verdicts(before["flows"]) if before is not None else None
        if old is None or before is None:
            return None
        finished, verdict = str(before["finished"]), str(before["verdict"])
        same_plan = before["plan_digest"] == now["plan_digest"]
    except (KeyError, TypeError, ValueError):
        return None
    new = _verdicts(now["flows"])
    turned = [Turned(key, old[key], word) for key, word in new.items() if key in old and old[key] != word]
    return Changes(
        finished,
        verdict,
        same_plan,
        tuple(sorted(turned, key=lambda one: (not one.worse, one.key))),
        tuple(key for key in new if key not in old),
        tuple(key for key in old if key not in new),
    )


def _verdicts(flows: list[FlowEntry]) -> dict[FlowKey, VerdictWord]:
    """The worst verdict for each key."""
    found: dict[FlowKey, VerdictWord] = {}
    for flow in flows:
        key, word = flow_key(flow), flow["verdict"]
        if _WORST.index(word) >= _WORST.index(found.get(key, "PASS")):
            found[key] = word
    return found
