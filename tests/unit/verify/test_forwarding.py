"""What guests say of how they forward, against the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.plan.firewall import render_nft
from labctl.verify.forwarding import asked, findings, question
from labctl.verify.model import Verdict
from tests.support import plans

pytestmark = pytest.mark.unit

PLAN = plans.lab(
    [plans.network("red"), plans.network("blue")],
    [
        plans.machine("alone", plans.interface("alone", "eth0", "red")),
        plans.machine("both", plans.interface("both", "eth0", "red"), plans.interface("both", "eth1", "blue")),
        plans.machine("fw", plans.interface("fw", "eth0", "red"), plans.interface("fw", "eth1", "blue"), router=True),
    ],
)
_, BOTH, FW = PLAN.machines
FORWARDS = "ipv4/conf/all/forwarding\nipv4/conf/eth0/forwarding\n"
RULES = "table inet labctl {\n\tchain forward {\n\t\tct state invalid drop\n\t}\n}\n"


def test_who_could_forward_is_asked() -> None:
    assert asked(PLAN) == ("both", "fw")
    windows = replace(PLAN, machines=(replace(BOTH, os="windows"),))
    assert asked(windows) == ()


def test_the_planned_rules_are_sent_along_and_never_part_of_the_script() -> None:
    argv, stdin = question(PLAN, FW)
    assert stdin.decode() == render_nft(FW, "mgmt")
    assert argv == question(replace(PLAN, lab="other"), FW)[0]
    assert question(PLAN, BOTH)[1] == b""


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        ("---\n", []),
        ("ipv4/conf/lo/forwarding\n---\n", []),
        (f"{FORWARDS}---\n", ["forwards"]),
        ("ipv4/conf/eth1/proxy_arp\n---\n", ["forwards"]),
    ],
)
def test_a_machine_that_is_no_router_passes_nothing_on(answer: str, kinds: list[str]) -> None:
    found = list(findings(BOTH, answer))
    assert [finding.kind for finding in found] == kinds
    assert {finding.verdict for finding in found} <= {Verdict.FAIL}


def test_a_router_filters_as_planned_or_not() -> None:
    assert list(findings(FW, f"{FORWARDS}---\n{RULES}---\n{RULES}")) == []
    wide = RULES.replace("\t}\n}", "\t\ttcp dport 3389 accept\n\t}\n}")
    (more,) = findings(FW, f"---\n{wide}---\n{RULES}")
    assert (more.kind, more.verdict, more.details) == (
        "router-filter", Verdict.FAIL, "fw: its filter has tcp dport 3389 accept",
    )  # fmt: skip
    (less,) = findings(FW, f"---\n{RULES}---\n{wide}")
    assert less.details == "fw: its filter lacks tcp dport 3389 accept"
    (nothing,) = findings(FW, f"---\n---\n{RULES}")
    assert "lacks table inet labctl {" in nothing.details


@pytest.mark.parametrize("answer", ["", "---\n", f"---\n{RULES}", f"---\n{RULES}---\n"])
def test_a_router_that_does_not_say_what_it_filters_proves_nothing(answer: str) -> None:
    assert [(f.kind, f.verdict) for f in findings(FW, answer)] == [("unobserved", Verdict.INCONCLUSIVE)]


def test_what_a_guest_says_is_printed_without_its_control_characters() -> None:
    (found,) = findings(FW, f"---\n{RULES}\t\x1b[2Jaccept\n---\n{RULES}")
    assert "\x1b" not in found.details
