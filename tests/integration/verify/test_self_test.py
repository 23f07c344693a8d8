"""Leaks that labctl plants in a user's lab: seen, gone by themselves, and reported where they could not be planted."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.verify import selftest
from labctl.verify.model import Verdict

pytestmark = pytest.mark.integration


def test_every_planted_leak_is_seen(netlab: Any) -> None:
    seen, report = selftest.run(netlab.plan, netlab, netlab.verify)
    assert [one.trouble for one in seen] == ["", "", ""]
    assert [one.found for one in seen] == [True, True, True], report and report.host_evidence
    assert [one.what for one in seen] == [
        "fw lets attacker reach web at tcp/4444",
        "a stranger speaks on outside, next to attacker",
        "fw carries frames from outside to dmz",
    ]
    assert report is not None
    assert report.verdict is Verdict.FAIL


def test_a_leak_that_the_verifier_misses_is_said(netlab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = netlab.verify()
    seen, _ = selftest.run(netlab.plan, netlab, lambda: clean)
    assert not any(one.found for one in seen)


def test_a_guest_in_which_nothing_can_be_planted_is_said(netlab: Any) -> None:
    netlab.dead.add("fw")
    seen, _ = selftest.run(netlab.plan, netlab, netlab.verify)
    assert [(one.found, one.trouble) for one in seen[:2]] == [(False, "fw does not answer")] * 2
    assert (seen[2].found, seen[2].trouble) == (False, "")  # who was to hear it is dead


def test_the_rule_that_is_planted_ends_by_itself(netlab: Any) -> None:
    selftest.run(netlab.plan, netlab, netlab.verify)
    said = netlab.inside("fw", "nft", "list", "set", "inet", "labctl", "labctl_self_test")
    assert "expires" in said
