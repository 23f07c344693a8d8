"""Leaks that labctl plants in a user's lab: seen, gone by themselves, and reported where they could not be planted."""

from __future__ import annotations

import time
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


FILTER = ("nft", "--stateless", "list", "table", "inet", "labctl")


def test_a_routers_filter_is_as_it_was_afterwards(netlab: Any) -> None:
    before = netlab.inside("fw", *FILTER)
    during: list[str] = []

    def verify() -> Any:
        during.append(netlab.inside("fw", *FILTER))
        return netlab.verify()

    selftest.run(netlab.plan, netlab, verify)
    assert "dport 4444 accept" in during[0]
    assert netlab.inside("fw", *FILTER) == before
    assert not [f for f in netlab.verify().host_evidence if f.kind == "router-filter"]


def test_a_routers_filter_comes_back_by_itself(netlab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """labctl may be killed before it has put the rules back."""
    monkeypatch.setattr(selftest, "_SECONDS", 3)
    before = netlab.inside("fw", *FILTER)
    wide = next(plant for plant in selftest.plants(netlab.plan) if plant.undo)
    assert netlab.run("fw", wide.argv, stdin=wide.stdin.encode()).code == 0
    assert netlab.inside("fw", *FILTER) != before
    deadline = time.monotonic() + 30
    while netlab.inside("fw", *FILTER) != before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
