"""Results of a lab's own checks: how they are kept, and what they make of a report."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from labctl import resources
from labctl.errors import ExitCode
from labctl.verify.checks import Journal, is_points, plain
from labctl.verify.model import Check, Finding, Report, Verdict
from labctl.verify.reports import exit_code, show, to_json

pytestmark = pytest.mark.unit

P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE  # noqa: E741


def check(verdict: Verdict = P, identity: str = "checks/test_a.py::test_x", **more: Any) -> Check:
    return Check(identity, "It works.", verdict, **more)


def report(*checks: Check, findings: tuple[Finding, ...] = ()) -> Report:
    return Report("dmz", "default", "qemu", "0" * 64, 1_700_000_000.25, 1_700_000_003.0, (), findings, checks=checks)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_a_check_that_was_found_and_never_settled_is_inconclusive(journal: Journal) -> None:
    journal.found("a", "A", 5)
    journal.found("b", "B", None)
    journal.settled(Check("a", "A", F, "because", 1.25, 5))
    assert journal.progress() == (1, 2)
    assert journal.read("it was killed") == (
        Check("a", "A", F, "because", 1.25, 5.0),
        Check("b", "B", I, "it was killed"),
    )


def test_a_journal_that_breaks_off_keeps_what_is_whole(journal: Journal) -> None:
    journal.found("a", "A", None)
    journal.settled(Check("a", "A", P))
    journal.found("b", "B", None)
    with journal.path.open("a") as file:
        file.write('[1]\n{"id": "c"}\n{"id": "b", "verd')
    assert [(c.id, c.verdict) for c in journal.read("")] == [("a", P), ("b", I)]


def test_there_may_be_no_journal_at_all(journal: Journal) -> None:
    assert journal.read("") == ()
    assert journal.progress() == (0, 0)


def test_texts_of_guests_reach_no_terminal_as_they_are(journal: Journal) -> None:
    journal.settled(check(F, message="\x1b[2Jgone\r\n\tand\u202e on\ud800\x00" + "x" * 10_000))
    (found,) = journal.read("")
    assert found.message.startswith("\N{REPLACEMENT CHARACTER}[2Jgone\n    and\N{REPLACEMENT CHARACTER} on")
    assert len(found.message) == 4001
    found.message.encode()
    assert plain("a\nb") == "a\nb"


@pytest.mark.parametrize(
    ("value", "good"),
    [(5, True), (0, True), (2.5, True), (-1, False), ("5", False), (True, False), (float("nan"), False), (None, False)],
)
def test_points_are_a_number(value: object, good: bool) -> None:
    assert is_points(value) is good


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (report(check(P)), ExitCode.OK),
        (report(check(P), check(I)), ExitCode.INCONCLUSIVE),
        (report(check(I), check(F)), ExitCode.FAIL),
        (report(check(P), findings=(Finding("opening", "", "open", F),)), ExitCode.FAIL),
        (report(), ExitCode.INCONCLUSIVE),
    ],
)
def test_checks_count_as_flows_do(made: Report, code: ExitCode) -> None:
    assert exit_code(made) is code


def test_the_schema_knows_checks() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(resources.text("schemas/report.schema.json")))
    document = to_json(report(check(P, points=5.0), check(F, message="no", seconds=0.12345)))
    validator.validate(document)
    assert document["checks"][1] == {
        "id": "checks/test_a.py::test_x",
        "name": "It works.",
        "verdict": "FAIL",
        "message": "no",
        "seconds": 0.123,
        "points": None,
    }
    document["checks"][0]["points"] = "many"
    assert not validator.is_valid(document)
    del document["checks"]
    assert not validator.is_valid(document)


def test_people_read_every_check_and_why_it_is_no_pass() -> None:
    out = io.StringIO()
    show(report(check(P, points=2.5, seconds=1.0), check(F, message="assert 1 == 2\n[red]no markup[/red]")), out)
    text = out.getvalue()
    assert "✓ PASS  It works. (checks/test_a.py::test_x, 2.5 points, 1.0 s)" in text
    assert "✗ FAIL  It works. (checks/test_a.py::test_x, 0.0 s)\n    assert 1 == 2\n    [red]no markup[/red]\n" in text
    assert "from ↓ to →" not in text
    assert text.rstrip().endswith("FAIL: 2 checks, 1 PASS, 1 FAIL, in 2.8 s")
