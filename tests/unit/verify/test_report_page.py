"""The report as a page: what its markup holds, and what can never become markup in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from labctl.plan.model import LabPlan
from labctl.verify.model import Check, Control, Evidence, Finding, Verdict
from labctl.verify.reports import page, to_json
from tests.support.labs import plan_of
from tests.support.reports import reported

pytestmark = pytest.mark.unit

LAB = """
    networks: {out: {subnet: 10.1.0.0/24}, lan: {subnet: 10.2.0.0/24}}
    machines:
      fw: {router: true, networks: [out, lan]}
      mallory: {networks: [out]}
      web: {networks: [lan], services: [tcp/80]}
    policy: [{from: out, to: web, ports: [tcp/80]}]
"""
HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>\"'{{7777*7}}{%raw%}\u202e\u2028\x00\ud800"


class Markup(HTMLParser):
    """Every element with its attributes, and what is inside style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag if tag in self.raw else ""
        if self._in:
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.raw[self._in][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def plan() -> LabPlan:
    return plan_of(LAB)


def hostile_page(plan: LabPlan) -> str:
    """Everything that a report or a plan can hold in words is hostile."""
    report = reported(plan, open_to={("mallory", "web", "tcp", 22)})
    flows = tuple(
        replace(
            flow,
            source=f"{flow.source}{HOSTILE}",
            target=f"{flow.target}{HOSTILE}",
            why=HOSTILE,
            evidence=Evidence(flow.evidence.seen, HOSTILE),
            control=tuple(Control(c.subject, c.passed, c.by, HOSTILE) for c in flow.control),
        )
        for flow in report.flows
    )
    findings = (Finding("note", HOSTILE, HOSTILE, Verdict.PASS), Finding("leftover", "", HOSTILE, Verdict.FAIL))
    origin = replace(report.origin, file=HOSTILE, images=tuple(replace(i, image=HOSTILE) for i in report.origin.images))
    made = replace(report, flows=flows, host_evidence=findings, origin=origin, instance=HOSTILE, provider=HOSTILE)
    machines = tuple(replace(machine, name=f"{machine.name}{HOSTILE}", image=HOSTILE) for machine in plan.machines)
    networks = tuple(replace(network, name=f"{network.name}") for network in plan.networks)
    said = replace(plan, machines=machines, networks=networks, description=HOSTILE)
    checks = (Check(HOSTILE, HOSTILE, Verdict.FAIL, HOSTILE, 0.5),)
    return page(to_json(replace(made, checks=checks)), said)


def test_hostile_texts_add_no_element_and_no_handler(plan: LabPlan) -> None:
    text = hostile_page(plan)
    text.encode()  # a lone surrogate would not go into a file
    markup = Markup(text)
    assert len(markup.all("script")) == 2
    assert not markup.all("img")
    assert not [name for _, attributes in markup.elements for name in attributes if name.startswith("on")]
    assert "54439" not in text, "a template inside a text is not filled"
    assert not {"\u202e", "\u2028", "\x00"} & set(text)
    data = json.loads(markup.raw["script"][0])
    assert "</script><script>alert(1)</script>" in data["flows"][0]["why"], "it is all there, as text"


def test_the_policy_names_the_style_and_the_script_and_nothing_else(plan: LabPlan) -> None:
    markup = Markup(page(to_json(reported(plan)), plan))
    (policy,) = [m["content"] or "" for m in markup.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for tag, text in (("style", markup.raw["style"][0]), ("script", markup.raw["script"][1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [attributes for _, attributes in markup.elements if "style" in attributes]


def test_nothing_outside_the_page_is_named(plan: LabPlan) -> None:
    markup = Markup(page(to_json(reported(plan)), plan))
    named = [a[key] for _, a in markup.elements for key in ("src", "href", "action", "data", "srcset") if a.get(key)]
    assert named == ["#matrix"]
    assert "http" not in re.sub(r"http-equiv", "", page(to_json(reported(plan)), plan))
    assert "url(" not in "".join(markup.raw["style"])


@pytest.mark.parametrize(
    ("troubles", "headline", "sentence"),
    [
        ({}, "Isolation proven", "every denial could have failed"),
        ({"open_to": {("mallory", "web", "tcp", 22)}}, "Isolation broken", "1 flow passes that must not."),
        ({"mute": {("web", "tcp", 80)}}, "Not as written", "2 allowed flows do not pass."),
        ({"dead": {"web": "it is stopped"}}, "Not proven", "flows could not be decided."),
    ],
)
def test_the_headline_says_what_kind_of_trouble_it_is(
    plan: LabPlan, troubles: dict[str, Any], headline: str, sentence: str
) -> None:
    text = page(to_json(reported(plan, **troubles)), plan)
    assert f"<span>{headline}</span>" in text
    assert sentence in text


def test_every_pair_with_flows_has_a_button_that_says_what_it_holds(plan: LabPlan) -> None:
    report = reported(plan, open_to={("mallory", "web", "tcp", 22)})
    buttons = {
        (b["data-source"], b["data-target"]): b["aria-label"]
        for b in Markup(page(to_json(report), plan)).all("button")
        if (b.get("class") or "").startswith("cell")
    }
    assert set(buttons) == {(flow.source, flow.target) for flow in report.flows}
    assert buttons["mallory", "web"] == "mallory to web: 1 FAIL, 1 open as allowed, 5 shown to be closed"


def test_a_lab_without_machines_or_flows_still_makes_a_page(plan: LabPlan) -> None:
    empty = replace(plan, machines=(), networks=(), policy=())
    assert "Nothing was probed" in page(to_json(replace(reported(plan), flows=())), empty)
