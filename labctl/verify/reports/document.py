"""The report as a JSON value, as ``schemas/report.schema.json`` has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict

from labctl import __version__
from labctl.errors import ExitCode
from labctl.verify import checks
from labctl.verify.model import Evidence, Finding, Origin, ProbedFlow, Report, Verdict

REPORT_VERSION = 1

VerdictWord = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class EvidenceEntry(TypedDict):
    """What a probe saw."""

    seen: str
    details: str
    milliseconds: int | None


class ControlEntry(TypedDict):
    """A check that shows that a denial could have failed."""

    subject: str
    passed: bool
    by: str
    details: str


class FlowEntry(TypedDict):
    """One probed flow."""

    source: str
    source_device: str
    target: str
    target_device: str
    address: str
    family: int
    protocol: str
    port: int
    expected: Literal["pass", "deny"]
    verdict: VerdictWord
    evidence: EvidenceEntry
    control: list[ControlEntry]
    why: str
    trick: str


class FindingEntry(TypedDict):
    """Something beside the flows, seen from the host's side or heard on a wire."""

    kind: str
    machine: str
    details: str
    verdict: VerdictWord


class ImageEntry(TypedDict):
    """What a machine's disk was made from; digest is None where the engine does not know."""

    machine: str
    image: str
    digest: str | None


class SpecEntry(TypedDict):
    """The lab file. commit and dirty are None where it is in no git work tree."""

    file: str
    commit: str | None
    dirty: bool | None


class Document(TypedDict):
    """The whole report."""

    version: int
    labctl: str
    lab: str
    instance: str
    provider: str
    plan_digest: str
    spec: SpecEntry
    images: list[ImageEntry]
    started: str
    finished: str
    verdict: VerdictWord
    summary: dict[str, int]
    flows: list[FlowEntry]
    host_evidence: list[FindingEntry]
    checks: list[checks.CheckEntry]
    digest: str


def exit_code(report: Report) -> ExitCode:
    """0 where everything is PASS; FAIL and INCONCLUSIVE have codes of their own."""
    return {
        Verdict.PASS: ExitCode.OK,
        Verdict.FAIL: ExitCode.FAIL,
        Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    }[report.verdict]


def to_json(report: Report) -> Document:
    """The report as a JSON value, one object per probed flow."""
    document: Document = {
        "version": REPORT_VERSION,
        "labctl": __version__,
        "lab": report.lab,
        "instance": report.instance,
        "provider": report.provider,
        "plan_digest": report.plan_digest,
        "spec": _spec(report.origin),
        "images": [{"machine": i.machine, "image": i.image, "digest": i.digest or None} for i in report.origin.images],
        "started": _moment(report.started),
        "finished": _moment(report.finished),
        "verdict": report.verdict.value,
        "summary": {verdict.value: count for verdict, count in report.summary.items()},
        "flows": [_flow(flow) for flow in report.flows],
        "host_evidence": [_finding(finding) for finding in report.host_evidence],
        "checks": [checks.to_json(check) for check in report.checks],
        "digest": "",
    }
    document["digest"] = digest(document)
    return document


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a document without its ``digest``: 64 hexadecimal digits.

    Over the JSON text with sorted keys, no white space and everything beyond ASCII escaped, so that whoever has the
    file can compute it again in any language.
    """
    bare = {key: value for key, value in document.items() if key != "digest"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def service(flow: FlowEntry) -> str:
    """What is asked for, for people: ``tcp/80``, ``icmp``, ``frame``."""
    return f"{flow['protocol']}/{flow['port']}" if flow["protocol"] in ("tcp", "udp") else flow["protocol"]


def _spec(origin: Origin) -> SpecEntry:
    known = bool(origin.commit)
    return {"file": origin.file, "commit": origin.commit or None, "dirty": origin.dirty if known else None}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _flow(flow: ProbedFlow) -> FlowEntry:
    return {
        "source": flow.source,
        "source_device": flow.source_device,
        "target": flow.target,
        "target_device": flow.target_device,
        "address": flow.address,
        "family": flow.family,
        "protocol": flow.protocol,
        "port": flow.port,
        "expected": flow.expected,
        "verdict": flow.verdict.value,
        "evidence": _evidence(flow.evidence),
        "control": [{"subject": c.subject, "passed": c.passed, "by": c.by, "details": c.details} for c in flow.control],
        "why": flow.why,
        "trick": flow.trick,
    }


def _evidence(evidence: Evidence) -> EvidenceEntry:
    return {"seen": evidence.seen, "details": evidence.details, "milliseconds": evidence.milliseconds}


def _finding(finding: Finding) -> FindingEntry:
    return {
        "kind": finding.kind,
        "machine": finding.machine,
        "details": finding.details,
        "verdict": finding.verdict.value,
    }
