"""Hundreds of flows that fail for one reason are one thing to mend, and one line."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from labctl.plan.model import LabPlan
from labctl.verify.model import Evidence, Report
from labctl.verify.reports import show, to_json
from labctl.verify.reports.causes import causes
from tests.support.labs import plan_of
from tests.support.reports import reported

pytestmark = pytest.mark.unit

LAB = """
    networks: {out: {subnet: 10.1.0.0/24}, lan: {subnet: 10.2.0.0/24}}
    machines:
      fw: {router: true, networks: [out, lan]}
      mallory: {networks: [out]}
      web: {networks: [lan], services: [tcp/80]}
      desk: {count: 3, networks: [lan]}
    policy: [{from: out, to: web, ports: [tcp/80]}]
"""


@pytest.fixture
def plan() -> LabPlan:
    return plan_of(LAB)


def reasons(report: Report) -> list[tuple[str, str]]:
    return [(cause.verdict, cause.reason) for cause in causes(to_json(report)["flows"])]


def shown(report: Report, *, verbose: bool = False) -> list[str]:
    out = io.StringIO()
    show(report, out, verbose=verbose)
    return out.getvalue().splitlines()


def test_everything_that_a_dead_machine_spoils_has_one_cause(plan: LabPlan) -> None:
    report = reported(plan, dead={"desk-2": "it does not answer"})
    assert reasons(report) == [("INCONCLUSIVE", "desk-2 could not be asked: it does not answer")]
    (cause,) = causes(to_json(report)["flows"])
    assert len(cause.flows) == sum(flow.verdict != "PASS" for flow in report.flows)
    assert {"desk-2"} < {flow["source"] for flow in cause.flows}, "others could not reach it, for the same reason"


def test_frames_that_a_dead_machine_did_not_send_or_hear_have_the_same_cause(plan: LabPlan) -> None:
    report = reported(plan, dead={"desk-2": "it is stopped"})
    model = replace(next(flow for flow in report.flows if flow.source == "desk-2"), protocol="frame", port=0, family=0)
    frames = (
        replace(model, evidence=Evidence("error", "desk-2 sent nothing: it is stopped")),
        replace(
            model, source="web", target="desk-2", evidence=Evidence("error", "desk-2 could not listen: it is stopped")
        ),
        replace(model, evidence=Evidence("error", "it is stopped"), protocol="tcp", port=80, trick="source-port"),
    )
    assert len(reasons(replace(report, flows=report.flows + frames))) == 1


def test_two_dead_machines_are_two_causes(plan: LabPlan) -> None:
    report = reported(plan, dead={"desk-1": "it is stopped", "desk-2": "no answer; seen: nothing"})
    assert {reason for _, reason in reasons(report)} == {
        "desk-1 could not be asked: it is stopped",
        "desk-2 could not be asked: no answer; seen: nothing",
    }


def test_a_service_that_answers_nobody_is_one_cause_however_many_rules_lead_to_it(plan: LabPlan) -> None:
    assert reasons(reported(plan, mute={("web", "tcp", 80)})) == [
        ("FAIL", "web tcp/80 answers nobody of those who may reach it")
    ]


def test_a_path_that_is_shut_to_some_is_told_by_its_rule(plan: LabPlan) -> None:
    report = reported(plan, shut={("mallory", "web", "tcp", 80)})
    assert reasons(report) == [("FAIL", "saw silence, should pass: policy rule 1: out to web tcp/80")]


def test_leaks_come_first(plan: LabPlan) -> None:
    leaks = {("mallory", "desk-1", "tcp", 22), ("mallory", "desk-3", "tcp", 22)}
    report = reported(plan, open_to=leaks, mute={("web", "tcp", 80)}, dead={"desk-2": "it is stopped"})
    assert reasons(report)[0] == ("FAIL", "saw an answer, should be closed: no policy rule lets it from out to lan")
    assert [verdict for verdict, _ in reasons(report)] == ["FAIL", "FAIL", "INCONCLUSIVE"]


def test_what_differs_between_flows_with_one_cause_is_left_out_of_it(plan: LabPlan) -> None:
    report = reported(plan, mute={("web", "udp", 9), ("web", "tcp", 22)}, deaf={"web"})
    told = {flow.control[1].details for flow in report.flows if flow.verdict == "INCONCLUSIVE" and flow.control}
    assert len(told) > 1, "each names its own address and port"
    assert {reason for _, reason in reasons(report)} == {
        "no listener could be opened on web",
        "web answered nobody",
    }


def test_a_flood_is_one_line_with_examples_and_verbose_shows_all(plan: LabPlan) -> None:
    report = reported(plan, dead={"desk-2": "it does not answer"})
    many = sum(flow.verdict == "INCONCLUSIVE" for flow in report.flows)
    short, long = shown(report), shown(report, verbose=True)
    (head,) = [line for line in short if line.startswith("? INCONCLUSIVE")]
    assert head == f"? INCONCLUSIVE  {many} flows: desk-2 could not be asked: it does not answer"
    assert f"    and {many - 3} more; --verbose shows all" in short
    assert len(short) < 25
    assert sum(line.startswith("? INCONCLUSIVE") for line in long) == many
    assert short[-1] == long[-1]
