"""The report as JUnit's XML."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from labctl.plan.model import LabPlan
from labctl.verify.model import Check, Evidence, Finding, Report, Verdict
from labctl.verify.reports import junit, to_json
from tests.support.labs import plan_of
from tests.support.reports import reported

pytestmark = pytest.mark.unit

LAB = """
    networks: {out: {subnet: 10.1.0.0/24}, lan: {subnet: 10.2.0.0/24}}
    machines:
      fw: {router: true, networks: [out, lan]}
      mallory: {networks: [out]}
      web: {networks: [lan]}
      desk: {networks: [lan]}
"""
EXTRA = Finding("extra-nic", "web", "web has a NIC too many", Verdict.FAIL)
NOTE = Finding("note", "", "this host has no IPv6 address", Verdict.PASS)


@pytest.fixture
def plan() -> LabPlan:
    return plan_of(LAB)


def parsed(document: Any) -> ET.Element:
    return read(junit(document))


def read(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - it is labctl's own


def suites(top: ET.Element) -> dict[str, ET.Element]:
    return {suite.attrib["name"]: suite for suite in top}


def test_a_suite_for_each_machine_and_a_case_for_each_flow(plan: LabPlan) -> None:
    report = reported(plan)
    found = suites(parsed(to_json(report)))
    assert list(found) == ["fw", "mallory", "web", "desk", "host side"]
    for name in ("fw", "mallory", "web", "desk"):
        assert len(found[name]) == sum(flow.source == name for flow in report.flows)
        names = [case.attrib["name"] for case in found[name]]
        assert len(set(names)) == len(names), "CI systems tell cases apart by their names"
    assert not [case for suite in found.values() for case in suite if len(case)]


def test_counts_agree_with_the_report_and_with_the_cases(plan: LabPlan) -> None:
    report = reported(
        plan, dead={"desk": "it is stopped"}, open_to={("mallory", "web", "tcp", 22)}, findings=(EXTRA, NOTE)
    )
    top = parsed(to_json(report))
    assert int(top.attrib["failures"]) == report.summary[Verdict.FAIL] + 1
    assert int(top.attrib["errors"]) == report.summary[Verdict.INCONCLUSIVE] > 0
    assert int(top.attrib["tests"]) == len(report.flows) + 2
    for key, tag in (("failures", "failure"), ("errors", "error"), ("tests", None)):
        assert int(top.attrib[key]) == sum(int(suite.attrib[key]) for suite in top)
        for suite in top:
            assert int(suite.attrib[key]) == len(suite if tag is None else suite.findall(f"testcase/{tag}"))


def test_a_failure_says_what_was_expected_and_seen_and_why(plan: LabPlan) -> None:
    top = parsed(to_json(reported(plan, open_to={("mallory", "web", "tcp", 22)}, says="SSH-2.0")))
    (failure,) = top.iter("failure")
    assert failure.attrib["message"] == "expected deny, answered (SSH-2.0)"
    assert "why: no policy rule lets it from out to lan" in (failure.text or "")


def test_names_of_cases_do_not_change_with_the_ports_of_canaries(plan: LabPlan) -> None:
    report = reported(plan)
    moved = tuple(replace(flow, port=flow.port + 1) if flow.port == 50000 else flow for flow in report.flows)

    def names(made: Report) -> list[str]:
        return [case.attrib["name"] for case in parsed(to_json(made)).iter("testcase")]

    assert names(replace(report, flows=moved)) == names(report)


def test_a_report_without_a_flow_is_an_error_and_not_an_empty_success(plan: LabPlan) -> None:
    top = parsed(to_json(replace(reported(plan), flows=())))
    assert int(top.attrib["errors"]) == 1


def test_the_lab_s_own_checks_are_a_suite_when_there_are_some(plan: LabPlan) -> None:
    checks = (
        Check("test_web.py::test_nginx", "nginx runs.", Verdict.FAIL, "no nginx", 1.5),
        Check("test_web.py::test_port", "test_port", Verdict.PASS, "", 0.25),
    )
    suite = suites(parsed(to_json(replace(reported(plan), checks=checks))))["checks"]
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["time"]) == ("2", "1", "1.750")


HOSTILE = '"><script>alert(1)</script>]]>&amp;\x00\x1b[31m\ud800\ufffe'


def test_what_guests_say_stays_text_and_never_breaks_the_xml(plan: LabPlan) -> None:
    report = reported(plan)
    flow = replace(report.flows[0], verdict=Verdict.FAIL, evidence=Evidence("answered", HOSTILE), source=HOSTILE)
    text = junit(to_json(replace(report, flows=(flow,))))
    text.encode()
    (failure,) = read(text).iter("failure")
    assert '"><script>alert(1)</script>]]>&amp;' in failure.attrib["message"]
    assert "\x1b" not in failure.attrib["message"]
    assert not list(read(text).iter("script"))
