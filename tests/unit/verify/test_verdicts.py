"""The table of verdicts, cell by cell, and the sum over a report."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from labctl.verify.model import Control, Evidence, Finding, ProbedFlow, Report, Seen, Verdict, verdict

pytestmark = pytest.mark.unit

P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE  # noqa: E741
SOURCE, TARGET = Control("source", True, "peer", ""), Control("target", True, "self", "")
NO_SOURCE, NO_TARGET = Control("source", False, "none", ""), Control("target", False, "none", "")

# seen: (expected pass, deny with controls, deny without, rejected with controls, rejected without)
TABLE = {
    "answered": (P, F, F, F, F),
    "refused": (F, F, F, P, I),
    "silence": (F, P, I, P, I),
    "no-route": (F, P, I, P, I),
    "prohibited": (F, P, I, P, I),
    "error": (I, I, I, I, I),
}


def test_the_table_has_every_kind_of_evidence() -> None:
    assert set(TABLE) == set(get_args(Seen))


@pytest.mark.parametrize("seen", get_args(Seen))
def test_every_cell(seen: Seen) -> None:
    evidence = Evidence(seen)
    passes, denied, bare, rejected, bare_rejected = TABLE[seen]
    for controls, flag in product([(), (SOURCE, TARGET), (NO_SOURCE, TARGET)], (False, True)):
        assert verdict("pass", flag, evidence, controls) is passes
    assert verdict("deny", False, evidence, (SOURCE, TARGET)) is denied
    assert verdict("deny", True, evidence, (SOURCE, TARGET)) is rejected
    for controls in [(), (SOURCE,), (TARGET,), (NO_SOURCE, TARGET), (SOURCE, NO_TARGET), (SOURCE, TARGET, NO_TARGET)]:
        assert verdict("deny", False, evidence, controls) is bare
        assert verdict("deny", True, evidence, controls) is bare_rejected


def report(*verdicts: Verdict, findings: tuple[Finding, ...] = ()) -> Report:
    flows = tuple(
        ProbedFlow("a", "eth0", "b", "eth0", "10.0.0.1", 4, "icmp", 0, "pass", one, Evidence("silence"), (), "")
        for one in verdicts
    )
    return Report("lab", "default", "qemu", "0" * 64, 0.0, 1.0, flows, findings)


def test_a_report_is_as_bad_as_its_worst_part() -> None:
    assert report(P, P).verdict is P
    assert report(P, I).verdict is I
    assert report(P, I, F).verdict is F
    assert report(P, findings=(Finding("note", "", "", P),)).verdict is P
    assert report(P, findings=(Finding("not-running", "a", "", I),)).verdict is I
    assert report(I, findings=(Finding("extra-nic", "a", "", F),)).verdict is F


def test_a_report_without_flows_proves_nothing() -> None:
    assert report().verdict is I


def test_the_summary_counts_every_verdict() -> None:
    assert report(P, P, F).summary == {P: 2, F: 1, I: 0}
