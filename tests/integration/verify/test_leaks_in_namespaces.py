"""Leaks planted in a lab of network namespaces: each turns the right cells, and no other."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from labctl import inside
from labctl.errors import ExitCode
from labctl.host.runner import Runner
from labctl.plan.model import RoutePlan
from labctl.providers.base import ExecResult
from labctl.spec.model import PolicyRule, Ports, RuleEnd
from labctl.verify.model import ProbedFlow, Report, Verdict
from labctl.verify.reports import exit_code
from tests.support import passing
from tests.support.netlab import HOST_ADDRESS, NETWORKS

pytestmark = pytest.mark.integration

Cell = tuple[str, str, str, str, int, int, str]


def cell(flow: ProbedFlow) -> Cell:
    port = 0 if flow.target == "host" or flow.trick else flow.port
    protocol = f"{flow.protocol} {flow.trick}".strip()
    if protocol == "frame":
        protocol = f"frame to {flow.target_device}"
    return flow.source, flow.source_device, flow.target, protocol, port, flow.family, flow.expected


def cells(report: Report, verdict: Verdict) -> set[Cell]:
    return {cell(flow) for flow in report.flows if flow.verdict is verdict}


def wanted(report: Report, choose: Callable[[ProbedFlow], bool]) -> set[Cell]:
    chosen = {cell(flow) for flow in report.flows if choose(flow)}
    assert chosen, "the test chooses no cell at all"
    return chosen


def crosses(flow: ProbedFlow) -> bool:
    """A denied flow between machines through the router (not to it, and not by the management path)."""
    return flow.expected == "deny" and flow.target not in ("host", "fw") and flow.protocol != "frame"


def explain(report: Report) -> str:
    troubled = [flow for flow in report.flows if flow.verdict is not Verdict.PASS]
    return "\n".join(map(str, [*report.host_evidence, *troubled[:40]]))


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
    by_packet = [flow for flow in by_management if flow.protocol != "frame"]
    assert {flow.control[0].by for flow in by_packet} == {"nic"}
    assert {flow.control[1].by for flow in by_packet} == {"host"}
    assert {flow.control[0].by for flow in by_management if flow.protocol == "frame"} == {"self"}


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


def test_programs_that_wait_find_what_those_find_that_are_started(netlab: Any, tmp_path: Path) -> None:
    for name in ("attacker", "fw", "web"):
        netlab.wait_in(name, tmp_path / name)
    assert netlab.verify().verdict is Verdict.PASS
    assert {name for name, program in netlab.started if program == "python3"} == {"office"}, "nobody waits there"
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth0" ip daddr 198.51.100.4 tcp dport 4444 accept')
    report = netlab.verify()
    assert cells(report, Verdict.FAIL) == {("attacker", "eth0", "web", "tcp", 4444, 4, "deny")}, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)
    netlab.started.clear()
    netlab.desks["web"].close()
    assert cells(netlab.verify(), Verdict.FAIL) == cells(report, Verdict.FAIL)
    assert {name for name, program in netlab.started if program == "python3"} == {"office", "web"}


def test_a_program_that_waits_and_is_killed_while_it_is_needed_proves_nothing(
    netlab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netlab.wait_in("web", tmp_path / "web")
    ask, desk = netlab.ask, netlab.desks["web"]

    def once(machine: str, *question: Any, **options: Any) -> Any:
        said = ask(machine, *question, **options)
        if machine == "web":
            desk.close()
        return said

    monkeypatch.setattr(netlab, "ask", once)
    report = netlab.verify()
    assert not cells(report, Verdict.FAIL), explain(report)
    assert report.verdict is Verdict.INCONCLUSIVE
    own = wanted(report, lambda flow: flow.source == "web")
    assert own <= cells(report, Verdict.INCONCLUSIVE)
    assert any("the probe program is gone" in flow.evidence.details for flow in report.flows), explain(report)


def test_a_router_that_filters_nothing(netlab: Any) -> None:
    netlab.rules("fw", "delete table inet labctl")
    report = netlab.verify()
    expected = wanted(report, lambda f: crosses(f) and f.source_device != "mgmt" and f.source != "fw")
    expected |= wanted(report, lambda f: f.target == "fw" and f.expected == "deny" and f.protocol != "frame")
    assert cells(report, Verdict.FAIL) == expected, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)
    assert exit_code(report) is ExitCode.FAIL


def test_a_policy_one_port_too_wide(netlab: Any) -> None:
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth0" ip daddr 198.51.100.4 tcp dport 4444 accept')
    report = netlab.verify()
    assert cells(report, Verdict.FAIL) == {("attacker", "eth0", "web", "tcp", 4444, 4, "deny")}, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)


def test_a_router_that_filters_ipv4_only(netlab: Any) -> None:
    netlab.rules("fw", "insert rule inet labctl forward meta nfproto ipv6 accept")
    report = netlab.verify()
    expected = wanted(report, lambda f: crosses(f) and f.family == 6)
    assert cells(report, Verdict.FAIL) == expected, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)


def test_a_rule_that_no_probe_comes_near_shows_in_the_routers_filter(netlab: Any) -> None:
    netlab.rules("fw", "insert rule inet labctl forward tcp dport 3389 accept")
    report = netlab.verify()
    assert not cells(report, Verdict.FAIL), explain(report)
    assert [(finding.kind, finding.machine) for finding in report.host_evidence] == [("router-filter", "fw")]
    assert "tcp dport 3389 accept" in report.host_evidence[0].details
    assert exit_code(report) is ExitCode.FAIL


def test_a_refusal_from_the_target_is_a_leak_and_one_from_the_router_is_not(netlab: Any) -> None:
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth0" ip daddr 10.10.10.7 tcp dport 4444 reject')
    netlab.rules("office", "table ip t { chain i { type filter hook input priority 0; tcp dport 4444 reject; }; }")
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth1" ip daddr 10.10.10.7 tcp dport 4444 accept')
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
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth0" oifname "eth2" udp dport 4444 accept')
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth2" oifname "eth0" drop')
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
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth0" oifname "eth2" udp dport 4444 accept')
    netlab.lies["attacker"] = claim("silence")
    report = netlab.verify()
    leaks = {("attacker", "eth0", "office", "udp", 4444, family, "deny") for family in (4, 6)}
    assert {c for c in cells(report, Verdict.FAIL) if c[-1] == "deny"} == leaks, explain(report)


def test_a_nic_on_a_foreign_wire_is_drift(netlab: Any) -> None:
    netlab.wires["attacker", "52:54:00:00:00:00"] = "lan"
    report = netlab.verify()
    assert [(finding.kind, finding.machine) for finding in report.host_evidence] == [("wrong-wire", "attacker")]
    assert report.verdict is Verdict.FAIL


def offline(netlab: Any) -> None:
    netlab.ip("host", "link", "del", "uplink")
    netlab.inside("host", "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0")  # of NICs to come


def test_a_host_without_a_network_has_addresses_for_the_time_of_the_probes(netlab: Any) -> None:
    offline(netlab)
    report = netlab.verify()
    assert report.verdict is Verdict.PASS, explain(report)
    assert {flow.family for flow in report.flows if flow.target == "host"} == {4, 6}
    assert "labctl-c" not in netlab.ip("host", "link"), "it is gone afterwards"
    netlab.rules("host", "flush ruleset")
    report = netlab.verify()
    expected = wanted(report, lambda f: f.target == "host" and f.source_device == "mgmt")
    assert cells(report, Verdict.FAIL) == expected, explain(report)


def test_what_a_killed_run_left_on_the_host_is_removed(netlab: Any) -> None:
    offline(netlab)
    process = subprocess.Popen(["true"])
    process.wait()
    for number in (process.pid, os.getppid()):  # one that has ended, one that lives
        netlab.ip("host", "link", "add", f"labctl-c{number}", "type", "bridge")
    assert netlab.verify().verdict is Verdict.PASS
    assert f"labctl-c{process.pid}:" not in netlab.ip("host", "link")
    assert f"labctl-c{os.getppid()}:" in netlab.ip("host", "link")


def test_a_host_without_any_address_where_none_may_be_added_proves_nothing_about_the_way_out(netlab: Any) -> None:
    offline(netlab)
    powerless = Runner(environment={"PATH": "/nonexistent"})
    report = netlab.verify(runner=powerless)
    assert not [flow for flow in report.flows if flow.target == "host"]
    assert report.verdict is Verdict.INCONCLUSIVE
    (finding,) = report.host_evidence
    assert "run it as root" in finding.details and "--outside" in finding.details
    netlab.serve("host", 8443)
    named = netlab.verify(runner=powerless, outside=["10.0.2.2:8443"])
    assert named.verdict is Verdict.PASS, explain(named)


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


# --- wires ---


def kinds(report: Report) -> set[tuple[str, str]]:
    return {(finding.kind, finding.machine) for finding in report.host_evidence}


def frames(report: Report, *pairs: tuple[str, str, str, str]) -> set[Cell]:
    """Cells of frames between NICs (machine, device, machine, device)."""
    return wanted(
        report,
        lambda f: f.protocol == "frame" and (f.source, f.source_device, f.target, f.target_device) in pairs,
    )


def test_two_wires_that_are_bridged(netlab: Any) -> None:
    netlab.ip("lan", "link", "add", "leak", "type", "veth", "peer", "name", "leak", "netns", netlab.ns("outside"))
    for wire in ("lan", "outside"):
        netlab.ip(wire, "link", "set", "leak", "master", "br0", "up")
    report = netlab.verify()
    one, other = [("attacker", "eth0"), ("fw", "eth0")], [("office", "eth0"), ("fw", "eth2")]
    pairs = [(*a, *b) for a in one for b in other if a[0] != b[0]]
    pairs += [(*b, *a) for a in one for b in other if a[0] != b[0]]
    assert cells(report, Verdict.FAIL) >= frames(report, *pairs), explain(report)
    heard = next(f for f in report.flows if f.protocol == "frame" and (f.source, f.target) == ("attacker", "office"))
    for words in ("a frame of", "forged source address", "VLAN-tagged", "router advertisement"):
        assert words in heard.evidence.details
    frame_leaks = {cell for cell in cells(report, Verdict.FAIL) if cell[3].startswith("frame")}
    assert frame_leaks == frames(report, *pairs), explain(report)


def test_somebody_unplanned_on_a_wire(netlab: Any) -> None:
    netlab.ip("host", "link", "add", "spy", "type", "veth", "peer", "name", "spy", "netns", netlab.ns("dmz"))
    netlab.ip("dmz", "link", "set", "spy", "master", "br0", "up")
    netlab.ip("host", "link", "set", "spy", "address", "52:54:00:99:99:99", "up")
    report = netlab.verify()
    assert ("stranger", "web") in kinds(report), explain(report)
    assert "52:54:00:99:99:99 speaks on dmz" in next(f for f in report.host_evidence if f.machine == "web").details
    answers = [f.details for f in report.host_evidence if f.kind == "claim"]
    assert any(f"answers for {HOST_ADDRESS} on dmz" in text for text in answers), answers  # as Linux hosts do
    assert not [f for f in report.host_evidence if f.machine in ("attacker", "office")]


# Frames of every kind from the sender's own address, over and over, for half a minute.
FLOOD = """
import socket, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
own, end = sock.getsockname()[4], time.monotonic() + 30
while time.monotonic() < end:
    for kind in range(0x2000, 0x4000):
        sock.send(b"\\xff" * 6 + own + kind.to_bytes(2, "big") + bytes(46))
        if kind % 64 == 0:
            time.sleep(0.01)
"""


def test_who_floods_a_wire_hides_nothing(netlab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What peers can remember is not without end: one of them must not be able to fill it."""
    few = inside._program().replace("MOST_FACTS = 4000", "MOST_FACTS = 400")
    assert few != inside._program()
    monkeypatch.setattr(inside, "_program", lambda: few)  # so that it would be full within a moment
    flood = f"exec python3 -c {shlex.quote(FLOOD)} >/dev/null 2>&1"
    assert netlab.run("attacker", ("sh", "-c", f"({flood}) &")).code == 0
    time.sleep(1)
    report = netlab.verify()
    assert cells(report, Verdict.FAIL) | cells(report, Verdict.INCONCLUSIVE) == set(), explain(report)
    assert kinds(report) == set(), explain(report)


def test_a_router_that_answers_for_others(netlab: Any) -> None:
    netlab.inside("fw", "sysctl", "-qw", "net.ipv4.conf.eth0.proxy_arp=1")
    report = netlab.verify()
    assert kinds(report) == {("claim", "attacker"), ("forwards", "fw")}, explain(report)
    claims = [finding.details for finding in report.host_evidence if finding.kind == "claim"]
    assert all("fw's eth0 answers for" in details for details in claims)


def test_a_wire_that_floods(netlab: Any) -> None:
    netlab.ip("lan", "link", "set", "br0", "type", "bridge", "ageing_time", "0")
    third(netlab)
    report = netlab.verify()
    assert ("overhears", "office") in kinds(report), explain(report)
    assert not cells(report, Verdict.FAIL)
    netlab.switched = False
    assert netlab.verify().verdict is Verdict.PASS


def third(netlab: Any) -> None:
    """A second leg for the web server, on the office's wire: three machines are there then, and one may overhear."""
    web = netlab.plan.machine("web")
    leg = replace(
        netlab.plan.machine("office").interfaces[0],
        device="eth1", mac="52:54:00:00:02:01", address=IPv4Interface("10.10.10.9/24"), address6=None,
    )  # fmt: skip
    netlab._seat("web", "eth1", leg.mac, "lan", "br0", "lan")
    netlab.ip("web", "addr", "add", "10.10.10.9/24", "dev", "eth1")
    machines = tuple(replace(m, interfaces=(*m.interfaces, leg)) if m is web else m for m in netlab.plan.machines)
    legal = [f for f in netlab.plan.flows if not (f.source == "web" and f.target in ("office", "fw"))]
    legal = [f for f in legal if (f.source, f.target) != ("office", "web")]
    netlab.plan = replace(netlab.plan, machines=machines, flows=tuple(legal))


def test_a_machine_on_two_networks_that_passes_packets_on_by_a_program_of_its_own(netlab: Any) -> None:
    third(netlab)
    netlab.switched = False
    clean = netlab.verify()
    assert clean.verdict is Verdict.PASS, explain(clean)
    target = netlab.plan.machine("fw").interfaces[1]
    program = shlex.quote(passing.program("eth1", "eth0", target.mac))
    relay = f"exec timeout 60 python3 -c {program} >/dev/null 2>&1"
    assert netlab.run("web", ("sh", "-c", f"({relay}) & sleep 0.5")).code == 0
    report = netlab.verify()
    assert {cell for cell in tricks(report, Verdict.FAIL) if cell[2] == "relay"} == {("office", "fw", "relay")}
    leaks = [flow for flow in report.flows if flow.verdict is Verdict.FAIL]
    assert {(f.source, f.target, f.protocol) for f in leaks} == {("office", "fw", "tcp"), ("office", "fw", "udp")}
    assert "through web" in leaks[0].evidence.details
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)


def test_the_management_path_with_ipv6(netlab: Any) -> None:
    netlab.inside("host", "sysctl", "-qw", "net.ipv6.conf.mg0.disable_ipv6=0")
    netlab.rules("host", 'insert rule inet host input iifname "mg*" meta nfproto ipv6 accept')
    time.sleep(2.5)  # its address has to be found free first
    report = netlab.verify()
    assert {kind for kind, _ in kinds(report)} == {"management-ipv6"}, explain(report)


def test_guests_that_meet_on_the_management_path(netlab: Any) -> None:
    for link in json.loads(netlab.ip("host", "-j", "link", "show", "master", "mg0")):
        netlab.ip("host", "link", "set", "dev", link["ifname"], "type", "bridge_slave", "isolated", "off")
    report = netlab.verify()
    leaks = {cell for cell in cells(report, Verdict.FAIL) if cell[1] == "mgmt"}
    assert leaks == wanted(
        report, lambda f: f.protocol == "frame" and (f.source_device, f.target_device) == ("mgmt", "mgmt")
    ), explain(report)


RULES = (("outside", "web"), ("lan", "web"))


def with_policy(netlab: Any) -> None:
    """The rules of the filter as the plan would have them, and the routes that tell whose packets come in where."""
    rules = tuple(
        PolicyRule(RuleEnd("network", network=source), RuleEnd("machine", machine=target), (Ports("tcp", 80, 80),))
        for source, target in RULES
    )
    routes = {
        name: tuple(
            RoutePlan(ip_network(zero), netlab.plan.machine("fw").interface(device).addresses()[number], "eth0")
            for number, zero in enumerate(("0.0.0.0/0", "::/0"))
        )
        for name, device in (("attacker", "eth0"), ("web", "eth1"), ("office", "eth2"))
    }
    machines = tuple(replace(m, routes=routes.get(m.name, ())) for m in netlab.plan.machines)
    netlab.plan = replace(netlab.plan, policy=rules, machines=machines)


STRICT = [
    f'insert rule inet labctl forward iifname "{device}" {family} saddr != {subnet} drop'
    for device, network in (("eth0", "outside"), ("eth1", "dmz"), ("eth2", "lan"))
    for family, subnet in zip(("ip", "ip6"), NETWORKS[network], strict=True)
]


def tricks(report: Report, verdict: Verdict) -> set[tuple[str, str, str]]:
    return {(f.source, f.target, f.trick) for f in report.flows if f.trick and f.verdict is verdict}


def test_a_router_that_lets_addresses_be_borrowed(netlab: Any) -> None:
    with_policy(netlab)
    netlab.rules("fw", "flush chain inet labctl antispoof")
    for match in ("ip daddr 198.51.100.4", "ip6 daddr fd00:b::4"):  # whoever's address it has
        netlab.rules("fw", f'insert rule inet labctl forward oifname "eth1" {match} tcp dport 80 accept')
    report = netlab.verify()
    expected = {("attacker", "web", "spoofed-source"), ("office", "web", "spoofed-source")}
    assert tricks(report, Verdict.FAIL) == expected, explain(report)
    assert {f.trick for f in report.flows if f.verdict is Verdict.FAIL} == {"spoofed-source"}
    assert {f.family for f in report.flows if f.verdict is Verdict.FAIL} == {4, 6}
    for rule in STRICT:
        netlab.rules("fw", rule)
    report = netlab.verify()
    assert not cells(report, Verdict.FAIL), explain(report)
    assert tricks(report, Verdict.PASS) >= expected


def test_a_router_that_takes_every_packet_from_a_port_for_an_answer(netlab: Any) -> None:
    with_policy(netlab)
    for rule in STRICT:
        netlab.rules("fw", rule)
    netlab.rules("fw", "insert rule inet labctl forward tcp sport 80 accept")
    report = netlab.verify()
    assert tricks(report, Verdict.FAIL) == {("web", n, "source-port") for n in ("attacker", "office")}, explain(report)
    assert not cells(report, Verdict.INCONCLUSIVE), explain(report)
