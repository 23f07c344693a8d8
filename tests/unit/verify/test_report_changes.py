"""What has changed since the last report of an instance."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from labctl.plan.model import LabPlan
from labctl.verify.model import Report
from labctl.verify.reports import changes, digest, show, to_json
from tests.support.labs import plan_of
from tests.support.reports import reported

pytestmark = pytest.mark.unit

LAB = """
    networks: {out: {subnet: 10.1.0.0/24}, lan: {subnet: 10.2.0.0/24}}
    machines: {fw: {router: true, networks: [out, lan]}, mallory: {networks: [out]}, web: {networks: [lan]}}
"""


@pytest.fixture
def plan() -> LabPlan:
    return plan_of(LAB)


@pytest.fixture
def clean(plan: LabPlan) -> Report:
    return reported(plan)


def test_the_same_again_is_no_change(clean: Report) -> None:
    found = changes(to_json(clean), to_json(clean))
    assert found is not None
    assert found.empty
    assert found.same_plan


def test_canaries_on_other_ports_are_the_same_flows(clean: Report) -> None:
    moved = tuple(replace(flow, port=flow.port + 1) if flow.port == 50000 else flow for flow in clean.flows)
    assert moved != clean.flows
    found = changes(to_json(clean), to_json(replace(clean, flows=moved)))
    assert found is not None
    assert found.empty


def test_a_leak_is_worse_and_its_end_is_better(plan: LabPlan, clean: Report) -> None:
    leaking = reported(plan, open_to={("mallory", "web", "tcp", 22)})
    found, back = changes(to_json(clean), to_json(leaking)), changes(to_json(leaking), to_json(clean))
    assert found is not None
    assert back is not None
    (turned,) = found.turned
    assert (turned.key.source, turned.key.door, turned.before, turned.now) == (
        "mallory",
        "web eth0 tcp/22",
        "PASS",
        "FAIL",
    )
    assert turned.worse
    assert [one.worse for one in back.turned] == [False]


def test_flows_that_are_new_or_gone(clean: Report) -> None:
    fewer = replace(clean, flows=clean.flows[3:], plan_digest="1" * 64)
    grown, shrunk = changes(to_json(fewer), to_json(clean)), changes(to_json(clean), to_json(fewer))
    assert grown is not None
    assert shrunk is not None
    assert (len(grown.new), len(grown.gone), len(shrunk.new), len(shrunk.gone)) == (3, 0, 0, 3)
    assert not grown.same_plan


@pytest.mark.parametrize(
    "before",
    [
        None,
        {},
        [],
        {"flows": 7},
        {"flows": [{"source": "a"}]},
        {"flows": [{"source": []}]},
        {"flows": [], "finished": "x"},
        {"flows": ["x"], "finished": "x", "verdict": "PASS", "plan_digest": ""},
    ],
)
def test_what_cannot_be_understood_is_not_compared_with(clean: Report, before: Any) -> None:
    assert changes(before, to_json(clean)) is None


def test_an_earlier_report_with_a_verdict_of_another_version_is_not_compared_with(clean: Report) -> None:
    before: Any = to_json(clean)
    before["flows"][0]["verdict"] = "MAYBE"
    assert changes(before, to_json(clean)) is None


def test_the_terminal_says_what_became_worse(plan: LabPlan, clean: Report) -> None:
    leaking = reported(plan, open_to={("mallory", "web", "tcp", 22)})
    out = io.StringIO()
    show(leaking, out, since=changes(to_json(clean), to_json(leaking)))
    assert "since 2023-11-14T22:13:23.000Z (PASS): 1 verdicts worse" in out.getvalue()
    assert "mallory → web eth0 tcp/22: PASS → FAIL" in out.getvalue()


def test_the_digest_is_that_of_the_document_without_it(clean: Report) -> None:
    document = to_json(clean)
    assert document["digest"] == digest(document)
    document["flows"][0]["why"] = "another"
    assert document["digest"] != digest(document)
