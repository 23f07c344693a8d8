"""The report as JUnit's XML, which CI systems read.

One testsuite for each machine that asked, with a testcase for each flow; one for what the host's side shows; one for
the lab's own checks where it has any. FAIL is a ``failure``. INCONCLUSIVE is an ``error`` and not ``skipped``: no CI
system turns red for what was skipped, and an isolation that nobody could prove must not look like one that was proven.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree as ET

from labctl.verify.reports.changes import flow_key
from labctl.verify.reports.document import Document, FlowEntry, VerdictWord

_OUTCOME = {"FAIL": "failure", "INCONCLUSIVE": "error"}
# XML 1.0 has no way to write these, escaped or not.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    verdict: VerdictWord
    message: str = ""
    text: str = ""
    seconds: float = 0.0


def junit(document: Document) -> str:
    """The XML text. Counts of all suites add up to those of the report."""
    suites = list(_suites(document))
    started = document["started"].removesuffix("Z")
    top = ET.Element(
        "testsuites", _counts(f"{document['lab']}/{document['instance']}", [c for _, s in suites for c in s])
    )
    top.set("time", f"{_seconds(document):.3f}")
    for name, cases in suites:
        suite = ET.SubElement(top, "testsuite", _counts(name, cases))
        suite.set("timestamp", started)
        suite.set("time", f"{sum(case.seconds for case in cases):.3f}")
        for case in cases:
            _add(suite, f"{document['lab']}.{name}", case)
    ET.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(top, encoding="unicode") + "\n"


def _suites(document: Document) -> Iterator[tuple[str, list[_Case]]]:
    for source in dict.fromkeys(flow["source"] for flow in document["flows"]):
        yield source, [_flow(flow) for flow in document["flows"] if flow["source"] == source]
    yield "host side", list(_host_side(document))
    if checks := document["checks"]:
        yield (
            "checks",
            [_Case(f"{c['name']} ({c['id']})", c["verdict"], c["message"], seconds=c["seconds"]) for c in checks],
        )


def _flow(flow: FlowEntry) -> _Case:
    evidence = flow["evidence"]
    seen = f"{evidence['seen']} ({evidence['details']})" if evidence["details"] else evidence["seen"]
    lines = [
        f"{flow['source']} ({flow['source_device']}) to {flow['target']} ({flow['address']}), seen: {seen}",
        *(
            f"{c['subject']} control {'passed' if c['passed'] else 'failed'} ({c['by']}): {c['details']}"
            for c in flow["control"]
        ),
        *([f"why: {flow['why']}"] if flow["why"] else []),
    ]
    return _Case(
        f"{flow['source_device']} to {flow_key(flow).door}: {flow['expected']}",
        flow["verdict"],
        f"expected {flow['expected']}, {seen}",
        "\n".join(lines),
        (evidence["milliseconds"] or 0) / 1000,
    )


def _host_side(document: Document) -> Iterator[_Case]:
    """Every finding, and where none is a problem, what that means; a report without a flow is a case of its own."""
    findings = document["host_evidence"]
    if all(finding["verdict"] == "PASS" for finding in findings):
        yield _Case("machines, NICs and wires are as planned", "PASS")
    for finding in findings:
        subject = finding["machine"] or "lab"
        yield _Case(f"{finding['kind']}: {subject}: {finding['details']}", finding["verdict"], finding["details"])
    if not document["flows"] and not document["checks"]:
        yield _Case("something was probed", "INCONCLUSIVE", "no flow was probed, so nothing is proven")


def _counts(name: str, cases: list[_Case]) -> dict[str, str]:
    verdicts = [case.verdict for case in cases]
    return {
        "name": _legal(name),
        "tests": str(len(cases)),
        "failures": str(verdicts.count("FAIL")),
        "errors": str(verdicts.count("INCONCLUSIVE")),
        "skipped": "0",
    }


def _add(suite: ET.Element, group: str, case: _Case) -> None:
    made = ET.SubElement(
        suite, "testcase", {"classname": _legal(group), "name": _legal(case.name), "time": f"{case.seconds:.3f}"}
    )
    if case.verdict in _OUTCOME:
        trouble = ET.SubElement(made, _OUTCOME[case.verdict], {"message": _legal(case.message), "type": case.verdict})
        trouble.text = _legal(case.text or case.message)


def _seconds(document: Document) -> float:
    return (datetime.fromisoformat(document["finished"]) - datetime.fromisoformat(document["started"])).total_seconds()


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
