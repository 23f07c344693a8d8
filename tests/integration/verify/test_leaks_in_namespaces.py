"""Leaks planted in a lab of network namespaces: each turns the right cells, and no other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from labctl.errors import ExitCode
from labctl.providers.base import ExecResult
from labctl.verify.model import ProbedFlow, Report, Verdict
from labctl.verify.report import exit_code

pytestmark = pytest.mark.integration

Cell = tuple[str, str, str, str, int, int, str]


def cell(flow: ProbedFlow) -> Cell:
    port = 0 if flow.target == "host" else flow.port
    return flow.source, flow.source_device, flow.target, flow.protocol, port, flow.family, flow.expected


def cells(report: Report, verdict: Verdict) -> set[Cell]:
    return {cell(flow) for flow in report.flows if flow.verdict is verdict}


def wanted(report: Report, choose: Callable[[ProbedFlow], bool]) -> set[Cell]:
    chosen = {cell(flow) for flow in report.flows if choose(flow)}
    assert chosen, "the test chooses no cell at all"
    return chosen


def crosses(flow: ProbedFlow) -> bool:
    """A denied flow between machines through the router (not to it, and not by the management path)."""
    return flow.expected == "deny" and flow.target not in ("host", "fw")


def explain(report: Report) -> str:
    return "\n".join(str(flow) for flow in report.flows if flow.verdict is not Verdict.PASS)


def test_a_clean_lab_passes_everywhere(netlab: Any) -> None:
    started = time.monotonic()
    report = netlab.verify()
    assert report.verdict is Verdict.PASS, explain(report)
    assert exit_code(report) is ExitCode.OK
    assert len(report.flows) > 130
    assert {flow.target for flow in report.flows} == {"attacker", "fw", "web", "office", "host"}
    assert {flow.family for flow in report.flows if flow.target == "host"} == {4, 6}
    assert time.monotonic() - started < 6


def test_every_denial_names_its_controls(netlab: Any) -> None:
    report = netlab.verify()
    for flow in report.flows:
        subjects = [control.subject for control in flow.control]
        assert subjects == (["source", "target"] if flow.expected == "deny" else []), flow
    by_management = [flow for flow in report.flows if flow.source_device == "mgmt"]
    assert {flow.control[0].by for flow in by_management} == {"nic"}
    assert {flow.control[1].by for flow in by_management} == {"host"}


def test_listeners_and_settings_are_gone_afterwards(netlab: Any) -> None:
    def settings() -> list[str]:
        path = "/proc/sys/net/ipv4/conf/{}/rp_filter"
        return [netlab.inside("web", "cat", path.format(device)) for device in ("all", "eth0", "mgmt")]

    netlab.inside("web", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.eth0.rp_filter=1")
    before = settings(), netlab.inside("web", "ss", "-Hltu"), netlab.ip("web", "rule")
    netlab.verify()
    time.sleep(0.2)
    assert (settings(), netlab.inside("web", "ss", "-Hltu"), netlab.ip("web", "rule")) == before
    assert netlab.ip("web", "route", "show", "table", "97") == ""


def test_a_second_run_finds_what_the_first_found(netlab: Any) -> None:
    first, second = netlab.verify(), netlab.verify()
    assert [(cell(f), f.verdict) for f in first.flows] == [(cell(f), f.verdict) for f in second.flows]
    assert first.plan_digest == second.plan_digest


def test_a_router_that_filters_nothing(netlab: Any) -> None:
    netlab.rules("fw", "delete table inet lab")
    report = netlab.verify()
    expected = wanted(report, lambda f: crosses(f) and f.source_device != "mgmt" and f.source != "fw")
    expected |= wanted(report, lambda f: f.target == "fw" and f.expected == "deny")
    assert cells(report, Verdict.FAIL) == expected, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)
    assert exit_code(report) is ExitCode.FAIL


def test_a_policy_one_port_too_wide(netlab: Any) -> None:
    netlab.rules("fw", 'insert rule inet lab forward iifname "eth0" ip daddr 198.51.100.4 tcp dport 4444 accept')
    report = netlab.verify()
    assert cells(report, Verdict.FAIL) == {("attacker", "eth0", "web", "tcp", 4444, 4, "deny")}, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)


def test_a_router_that_filters_ipv4_only(netlab: Any) -> None:
    netlab.rules("fw", "insert rule inet lab forward meta nfproto ipv6 accept")
    report = netlab.verify()
    expected = wanted(report, lambda f: crosses(f) and f.family == 6)
    assert cells(report, Verdict.FAIL) == expected, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)


def test_a_refusal_from_the_target_is_a_leak_and_one_from_the_router_is_not(netlab: Any) -> None:
    netlab.rules("fw", 'insert rule inet lab forward iifname "eth0" ip daddr 10.10.10.7 tcp dport 4444 reject')
    netlab.rules("office", "table ip t { chain i { type filter hook input priority 0; tcp dport 4444 reject; }; }")
    netlab.rules("fw", 'insert rule inet lab forward iifname "eth1" ip daddr 10.10.10.7 tcp dport 4444 accept')
    report = netlab.verify()
    assert ("web", "eth0", "office", "tcp", 4444, 4, "deny") in cells(report, Verdict.FAIL), explain(report)
    seen = {f.source: f.evidence.seen for f in report.flows if cell(f)[2:6] == ("office", "tcp", 4444, 4)}
    assert seen["attacker"] == "prohibited"
    assert seen["web"] == "refused"
    # office answers 4444 to nobody now, not even to its neighbour: the denial shows nothing any more
    assert ("attacker", "eth0", "office", "tcp", 4444, 4, "deny") not in cells(report, Verdict.FAIL)


def test_a_service_that_is_down(netlab: Any) -> None:
    netlab.processes[0].kill()
    netlab.processes[0].wait()
    report = netlab.verify()
    expected = wanted(report, lambda f: f.port == 80 and f.expected == "pass")
    assert cells(report, Verdict.FAIL) == expected, explain(report)
    assert {f.evidence.seen for f in report.flows if cell(f) in expected} == {"refused"}


def test_the_host_reachable_over_the_management_path(netlab: Any) -> None:
    netlab.rules("host", "flush ruleset")
    report = netlab.verify()
    expected = wanted(report, lambda f: f.target == "host" and f.source_device == "mgmt")
    assert cells(report, Verdict.FAIL) == expected, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)


def test_a_probe_that_arrives_without_an_answer_is_a_leak(netlab: Any) -> None:
    netlab.rules("fw", 'insert rule inet lab forward iifname "eth0" oifname "eth2" udp dport 4444 accept')
    netlab.rules("fw", 'insert rule inet lab forward iifname "eth2" oifname "eth0" drop')
    report = netlab.verify()
    leaks = [("attacker", "eth0", "office", "udp", 4444, family, "deny") for family in (4, 6)]
    assert cells(report, Verdict.FAIL) == set(leaks), explain(report)


def test_a_dead_guest_proves_nothing(netlab: Any) -> None:
    netlab.dead.add("office")
    netlab.stopped.add("office")
    netlab.ip("office", "link", "set", "eth0", "down")
    report = netlab.verify()
    assert not cells(report, Verdict.FAIL), explain(report)
    expected = wanted(report, lambda f: "office" in (f.source, f.target))
    assert cells(report, Verdict.INCONCLUSIVE) == expected, explain(report)
    assert exit_code(report) is ExitCode.INCONCLUSIVE
    assert [finding.kind for finding in report.host_evidence] == ["not-running"]


def test_a_guest_without_python_proves_nothing_about_itself(netlab: Any) -> None:
    netlab.without_python.add("attacker")
    report = netlab.verify()
    assert not cells(report, Verdict.FAIL), explain(report)
    unsure = cells(report, Verdict.INCONCLUSIVE)
    assert unsure >= wanted(report, lambda f: f.source == "attacker")
    assert all("attacker" in (source, target) for source, _, target, *_ in unsure)
    assert "no python3" in next(f for f in report.flows if f.source == "attacker").evidence.details


def say(text: bytes) -> Callable[[Sequence[str], bytes, ExecResult], ExecResult]:
    return lambda argv, stdin, said: ExecResult(0, text, b"")


def claim(seen: str) -> Callable[[Sequence[str], bytes, ExecResult], ExecResult]:
    """A guest that does everything it is told and reports something else."""

    def lie(argv: Sequence[str], stdin: bytes, said: ExecResult) -> ExecResult:
        document = json.loads(said.stdout)
        for row in document.get("results", []):
            row[1], row[4] = seen, "0123456789abcdef"
        return ExecResult(0, json.dumps(document).encode(), b"")

    return lie


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"[" * 100_000, b'{"results": [[0, "answered", "", 1, ""]]}', b"x" * (5 << 20)]
)
def test_a_guest_that_talks_nonsense_spoils_its_own_cells_only(netlab: Any, text: bytes) -> None:
    netlab.lies["attacker"] = say(text)
    report = netlab.verify()
    assert not cells(report, Verdict.FAIL), explain(report)
    unsure = cells(report, Verdict.INCONCLUSIVE)
    assert unsure >= wanted(report, lambda f: f.source == "attacker")
    assert all("attacker" in (source, target) for source, _, target, *_ in unsure)


def test_a_guest_that_claims_answers_proves_nothing(netlab: Any) -> None:
    netlab.lies["attacker"] = claim("answered")
    report = netlab.verify()
    mine = [flow for flow in report.flows if flow.source == "attacker" and flow.protocol == "udp"]
    assert mine
    assert {flow.verdict for flow in mine if flow.expected == "deny"} == {Verdict.FAIL}
    assert {flow.source for flow in report.flows if flow.verdict is not Verdict.PASS} == {"attacker"}


def test_a_guest_that_hides_a_leak_is_contradicted_by_the_target(netlab: Any) -> None:
    netlab.rules("fw", 'insert rule inet lab forward iifname "eth0" oifname "eth2" udp dport 4444 accept')
    netlab.lies["attacker"] = claim("silence")
    report = netlab.verify()
    leaks = {("attacker", "eth0", "office", "udp", 4444, family, "deny") for family in (4, 6)}
    assert {c for c in cells(report, Verdict.FAIL) if c[-1] == "deny"} == leaks, explain(report)


def test_a_nic_on_a_foreign_wire_is_drift(netlab: Any) -> None:
    netlab.wires["attacker", "52:54:00:00:00:00"] = "lan"
    report = netlab.verify()
    assert [(finding.kind, finding.machine) for finding in report.host_evidence] == [("wrong-wire", "attacker")]
    assert report.verdict is Verdict.FAIL


def test_an_address_outside_that_the_user_names(netlab: Any) -> None:
    netlab.serve("host", 8443)
    closed = netlab.verify(outside=["192.0.2.77:8443"])
    assert closed.verdict is Verdict.PASS, explain(closed)
    assert {flow.source for flow in closed.flows if flow.target == "outside"} == {"attacker", "fw", "web", "office"}
    netlab.rules("host", 'insert rule inet host input iifname "mg*" tcp dport 8443 accept')
    leaking = netlab.verify(outside=["192.0.2.77:8443"])
    expected = wanted(leaking, lambda f: f.target == "outside" and f.source_device == "mgmt")
    assert cells(leaking, Verdict.FAIL) == expected, explain(leaking)


def test_an_address_outside_that_answers_nobody_shows_nothing(netlab: Any) -> None:
    report = netlab.verify(outside=["192.0.2.77:8443"])
    assert cells(report, Verdict.INCONCLUSIVE) == wanted(report, lambda f: f.target == "outside"), explain(report)
