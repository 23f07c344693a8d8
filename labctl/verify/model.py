"""What the verifier says: evidence first, judgement second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from labctl.plan.model import Expected, FlowProtocol

Seen = Literal["answered", "refused", "silence", "no-route", "prohibited", "error"]
"""What came back to the source of a probe.

refused: the target itself said no (RST, an ICMP error of its own), so the packet arrived. no-route: the source could
not send it. prohibited: somebody between sent an ICMP error. error: the probe could not run, so nothing was seen.
"""


class Verdict(StrEnum):
    """The judgement over one flow, or over a whole report. INCONCLUSIVE: the check could not have failed."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a probe saw. milliseconds: until the answer came, None where none did."""

    seen: Seen
    details: str = ""
    milliseconds: int | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """A check that shows that a denial could have failed.

    subject ``source``: the source can reach something with the same protocol. subject ``target``: the target's port
    answers somebody. by, from strong to weak: ``peer`` (over the wire, by the same NIC), ``nic`` (over the wire, by
    another NIC of the source), ``self`` (the machine's own address, with its NIC up as planned: all that a machine
    alone on its wire can show), ``host`` (labctl asked from the computer that runs the lab), ``twin`` (another port
    that opens and closes with this one, where nobody may ask this one), ``unplugged`` (the engine reports the cable of
    a sealed machine's management NIC pulled, so nothing goes by it), ``none``.
    """

    subject: Literal["source", "target"]
    passed: bool
    by: Literal["peer", "nic", "self", "host", "twin", "unplugged", "none"]
    details: str


@dataclass(frozen=True, slots=True)
class ProbedFlow:
    """One flow with what was seen and said. address and port are concrete; port is 0 for icmp.

    protocol ``frame``: whether bare Ethernet frames get from one NIC to another; family is 0 and address the target's
    MAC address then. trick: what root in the source did to the packet, ``""`` for nothing.
    """

    source: str
    source_device: str
    target: str
    target_device: str
    address: str
    family: Literal[0, 4, 6]
    protocol: FlowProtocol | Literal["frame"]
    port: int
    expected: Expected
    verdict: Verdict
    evidence: Evidence
    control: tuple[Control, ...]
    why: str
    trick: str = ""


FindingKind = Literal[
    "missing-nic",
    "extra-nic",
    "wrong-wire",
    "unlinked",
    "leftover",
    "opening",
    "open-wire",
    "router-filter",
    "forwards",
    "undeclared-service",
    "unsealed",
    "not-running",
    "unobserved",
    "stranger",
    "claim",
    "overhears",
    "deaf",
    "management-ipv6",
    "note",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something beside the flows: where engine and plan differ, what was heard on a wire, what limits this report.

    stranger: an address that no planned NIC has. claim: somebody answers for an address that is not theirs. overhears:
    a NIC gets others' unicast. deaf: a sensor does not. management-ipv6: the management path speaks IPv6. open-wire:
    the engine's wire lets through what no plan allows. router-filter, forwards, undeclared-service: what guests on
    several networks say of their own filter, of passing on, and of what they serve.

    A difference from the plan is FAIL, a machine that does not run or cannot be looked at INCONCLUSIVE, a mere note
    PASS. machine is ``""`` for the lab as a whole.
    """

    kind: FindingKind
    machine: str
    details: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class MachineImage:
    """What a machine's disk was made from. digest: of the image, ``""`` where the engine does not know."""

    machine: str
    image: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where what was verified came from.

    file: the lab file, from the top of its git work tree where it is in one, else its bare name. commit: the one that
    is checked out there, ``""`` where there is none; dirty: the lab's folder is not as in that commit.
    """

    file: str = ""
    commit: str = ""
    dirty: bool = False
    images: tuple[MachineImage, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One of the lab's own checks, as it went.

    id: pytest's, relative to the lab's folder. name: the first line of its docstring, else what it is called. message:
    why it is no PASS, as plain text of several lines. points: what its author says that it is worth, None for nothing.
    """

    id: str
    name: str
    verdict: Verdict
    message: str = ""
    seconds: float = 0.0
    points: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found out about one instance. started and finished are seconds since the epoch."""

    lab: str
    instance: str
    provider: str
    plan_digest: str
    started: float
    finished: float
    flows: tuple[ProbedFlow, ...]
    host_evidence: tuple[Finding, ...]
    origin: Origin = Origin()
    checks: tuple[Check, ...] = ()

    @property
    def summary(self) -> dict[Verdict, int]:
        """How many flows got each verdict."""
        counts = Counter(flow.verdict for flow in self.flows)
        return {verdict: counts[verdict] for verdict in Verdict}

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all; a report without a single flow or check shows nothing, so it is INCONCLUSIVE."""
        tried = [flow.verdict for flow in self.flows] + [check.verdict for check in self.checks]
        found = {*tried, *(finding.verdict for finding in self.host_evidence)}
        if Verdict.FAIL in found:
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in found or not tried else Verdict.PASS


def verdict(expected: Expected, rejected: bool, evidence: Evidence, controls: Sequence[Control]) -> Verdict:
    """Judge one flow.

    rejected: a policy answers this flow with a refusal, so a refusal may be that; it needs the controls of silence.
    controls count for denials only: there must be some for the source and some for the target, and all must pass.
    """
    if evidence.seen == "error":
        return Verdict.INCONCLUSIVE
    if expected == "pass":
        return Verdict.PASS if evidence.seen == "answered" else Verdict.FAIL
    if evidence.seen == "answered" or (evidence.seen == "refused" and not rejected):
        return Verdict.FAIL
    both = {control.subject for control in controls} == {"source", "target"}
    return Verdict.PASS if both and all(control.passed for control in controls) else Verdict.INCONCLUSIVE
