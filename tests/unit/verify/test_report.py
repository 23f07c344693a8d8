"""The report as JSON and as text."""

from __future__ import annotations

import io
import json
from typing import Any

import jsonschema
import pytest

from labctl import resources
from labctl.errors import ExitCode
from labctl.verify.model import Control, Evidence, Finding, ProbedFlow, Report, Verdict
from labctl.verify.reports import exit_code, show, to_json

pytestmark = pytest.mark.unit

P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE  # noqa: E741
CONTROLS = (
    Control("source", True, "peer", "a reached n"),
    Control("target", False, "none", "b answered nobody"),
)


def flow(verdict: Verdict, target: str = "b", **more: Any) -> ProbedFlow:
    values: dict[str, Any] = {
        "source": "a", "source_device": "eth0", "target": target, "target_device": "eth0", "address": "10.2.0.1",
        "family": 4, "protocol": "tcp", "port": 443, "expected": "deny", "verdict": verdict,
        "evidence": Evidence("silence"), "control": CONTROLS, "why": "no policy",
    }  # fmt: skip
    return ProbedFlow(**values | more)


def report(*flows: ProbedFlow, findings: tuple[Finding, ...] = ()) -> Report:
    return Report("dmz", "default", "qemu", "0" * 64, 1_700_000_000.25, 1_700_000_003.0, flows, findings)


FULL = report(
    flow(P),
    flow(F, "c", evidence=Evidence("answered", "echo reply", 3), protocol="icmp", port=0),
    flow(I, "host"),
    findings=(
        Finding("wrong-wire", "a", "a: eth0 is on blue", F),
        Finding("note", "", "this host has no IPv6 address", P),
    ),
)


def shown(made: Report, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    show(made, out)
    return out.getvalue()


def test_the_schema_holds() -> None:
    schema = json.loads(resources.text("schemas/report.schema.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for made in (FULL, report()):
        validator.validate(to_json(made))
    broken = to_json(FULL)
    broken["flows"][0]["verdict"] = "MAYBE"
    assert not validator.is_valid(broken)


def test_one_object_for_each_flow() -> None:
    document = to_json(FULL)
    assert document["summary"] == {"PASS": 1, "FAIL": 1, "INCONCLUSIVE": 1}
    assert document["verdict"] == "FAIL"
    assert document["started"] == "2023-11-14T22:13:20.250Z"
    assert list(document["flows"][1]) == [
        "source", "source_device", "target", "target_device", "address", "family", "protocol", "port", "expected",
        "verdict", "evidence", "control", "why", "trick",
    ]  # fmt: skip
    assert document["flows"][1]["evidence"] == {"seen": "answered", "details": "echo reply", "milliseconds": 3}


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (report(flow(P)), ExitCode.OK),
        (report(flow(I), flow(P)), ExitCode.INCONCLUSIVE),
        (report(flow(I), flow(F)), ExitCode.FAIL),
        (report(), ExitCode.INCONCLUSIVE),
    ],
)
def test_exit_codes(made: Report, code: ExitCode) -> None:
    assert exit_code(made) is code


def test_the_matrix_and_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(FULL, monkeypatch)
    row = next(line for line in text.splitlines() if line.startswith("│ a "))
    assert [part.strip() for part in row.strip("│").split("│")] == ["a", "·", "-1", "✗1", "?1", "-1 ✗1 ?1"]
    assert "✗ FAIL  a (eth0) → c (10.2.0.1 icmp): expected deny, answered (echo reply)" in text
    assert "? INCONCLUSIVE  a (eth0) → host (10.2.0.1 tcp/443): expected deny, silence" in text
    assert "target control failed (none): b answered nobody" in text
    assert "✗ FAIL  a: eth0 is on blue" in text
    assert "note: this host has no IPv6 address" in text
    assert text.rstrip().endswith("FAIL: 3 flows, 1 PASS, 1 FAIL, 1 INCONCLUSIVE, in 2.8 s")
    assert text.index("FAIL  a (eth0)") < text.index("INCONCLUSIVE  a (eth0)")


def test_no_colour_in_a_pipe_or_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(FULL, monkeypatch)
    assert "\x1b[1;31m" in shown(FULL, monkeypatch, FORCE_COLOR="1")
    assert "31m" not in shown(FULL, monkeypatch, FORCE_COLOR="1", NO_COLOR="1")


def test_texts_of_guests_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = report(flow(F, evidence=Evidence("answered", "[red]x[/red] [link=http://evil]y[/link]")))
    assert "[red]x[/red] [link=http://evil]y[/link]" in shown(hostile, monkeypatch)


def test_a_large_lab_shows_the_columns_with_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    flows = [flow(F if number == 17 else P, f"m{number}") for number in range(30)]
    head = next(line for line in shown(report(*flows), monkeypatch).splitlines() if "all" in line)
    assert "m17" in head
    assert "m16" not in head
