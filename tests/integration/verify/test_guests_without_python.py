"""Guests without python3, in labs of network namespaces: a shell asks with the tools that each kind of guest has."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labctl import inside
from labctl.providers.base import ExecResult
from labctl.verify import interview
from labctl.verify.model import ProbedFlow, Report, Verdict
from tests.support.netlab import PORT, unique
from tests.support.toolboxes import toolbox

pytestmark = pytest.mark.integration

TOLD = "it has no python3, and a shell neither sends nor hears bare frames"
Equip = Callable[..., None]


@pytest.fixture
def equip(netlab: Any) -> Iterator[Equip]:
    """Give guests of the lab the programs of a kind, and no others."""
    netlab.plan = replace(netlab.plan, instance=f"i{unique()}")  # namespaces share /run, where listeners keep a folder
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # a program may run as another user

        def give(kind: str, *names: str) -> None:
            box = toolbox(kind, Path(folder))
            for name in names:
                netlab.toolboxes[name] = box

        yield give
    for name in netlab.toolboxes:  # of one that talked nonsense; its listeners end with the namespace
        shutil.rmtree(folder_of(netlab, name), ignore_errors=True)


def folder_of(netlab: Any, name: str) -> Path:
    """Where a guest's shell keeps what its listeners need."""
    asked = interview.Interview(netlab.plan, netlab, None)  # type: ignore[arg-type]  # it needs no errands for that
    return Path(f"/run/labctl-verify-{asked._key(name)}")


def key(flow: ProbedFlow) -> tuple[Any, ...]:
    port = 0 if flow.target == "host" else flow.port
    return flow.source, flow.source_device, flow.target, flow.target_device, flow.protocol, port, flow.family


def keys(report: Report, verdict: Verdict) -> set[tuple[Any, ...]]:
    return {key(flow) for flow in report.flows if flow.verdict is verdict}


def chosen(report: Report, choose: Callable[[ProbedFlow], bool]) -> set[tuple[Any, ...]]:
    found = {key(flow) for flow in report.flows if choose(flow)}
    assert found, "the test chooses no cell at all"
    return found


def explain(report: Report) -> str:
    return "\n".join(str(f) for f in report.flows if f.verdict is not Verdict.PASS and f.protocol != "frame")[:8000]


def frames_of(*names: str) -> Callable[[ProbedFlow], bool]:
    return lambda flow: flow.protocol == "frame" and bool({flow.source, flow.target} & set(names))


def test_only_its_frames_are_in_doubt_where_a_guest_has_socat(netlab: Any, equip: Equip) -> None:
    equip("socat", "attacker", "office")
    report = netlab.verify()
    assert not keys(report, Verdict.FAIL), explain(report)
    doubtful = [flow for flow in report.flows if flow.verdict is Verdict.INCONCLUSIVE]
    assert {key(flow) for flow in doubtful} == chosen(report, frames_of("attacker", "office")), explain(report)
    assert all(
        TOLD in flow.evidence.details and "install python3-minimal" in flow.evidence.details for flow in doubtful
    )
    assert report.verdict is Verdict.INCONCLUSIVE


def test_debian_without_python_probes_all_and_listens_to_nothing(netlab: Any, equip: Equip) -> None:
    equip("debian", "attacker")
    report = netlab.verify()
    assert not keys(report, Verdict.FAIL), explain(report)
    doors = chosen(report, lambda f: f.target == "attacker" and f.port == PORT)
    assert keys(report, Verdict.INCONCLUSIVE) == doors | chosen(report, frames_of("attacker")), explain(report)
    told = [f.evidence.details for f in report.flows if f.target == "attacker" and f.port == PORT and f.source == "fw"]
    assert all("no tool for it (python3 or socat would do)" in details for details in told)


@pytest.mark.parametrize("kind", ["debian", "socat"])
def test_leaks_are_found_without_python(netlab: Any, equip: Equip, kind: str) -> None:
    equip(kind, "attacker")
    wide = 'iifname "eth0" ip daddr 198.51.100.4 tcp dport 4444 accept'
    one_way = 'iifname "eth0" oifname "eth2" udp dport 4444 accept'
    netlab.rules("fw", "insert rule inet labctl forward meta nfproto ipv6 meta l4proto icmpv6 accept")
    for rule in (wide, one_way, 'iifname "eth2" oifname "eth0" meta l4proto udp drop'):
        netlab.rules("fw", f"insert rule inet labctl forward {rule}")
    netlab.rules("host", "flush ruleset")
    report = netlab.verify()
    ours = {found for found in keys(report, Verdict.FAIL) if found[0] == "attacker"}
    assert ours == {
        ("attacker", "eth0", "web", "eth0", "tcp", PORT, 4),
        *(("attacker", "eth0", "office", "eth0", "udp", PORT, family) for family in (4, 6)),
        *(("attacker", "eth0", name, "eth0", "icmp", 0, 6) for name in ("web", "office")),
        *(("attacker", "mgmt", "host", "", protocol, 0, 4) for protocol in ("icmp", "tcp", "udp")),
    }, explain(report)


@pytest.mark.slow
def test_busybox_alone_finds_a_leak_and_says_what_it_cannot_ask(netlab: Any, equip: Equip) -> None:
    equip("busybox", "attacker")
    netlab.rules("fw", 'insert rule inet labctl forward iifname "eth0" ip daddr 198.51.100.4 tcp dport 4444 accept')
    report = netlab.verify()
    assert keys(report, Verdict.FAIL) == {("attacker", "eth0", "web", "eth0", "tcp", PORT, 4)}, explain(report)
    doubtful = keys(report, Verdict.INCONCLUSIVE)
    udp = chosen(report, lambda f: "attacker" in (f.source, f.target) and f.protocol == "udp")
    host = chosen(report, lambda f: f.source == "attacker" and f.target == "host")
    assert udp <= doubtful
    assert doubtful <= udp | host | chosen(report, frames_of("attacker")), explain(report)
    told = {f.protocol: f.evidence.details for f in report.flows if (f.source, f.source_device) == ("attacker", "mgmt")}
    assert "cannot route through the management gateway" in told["tcp"]
    assert "nothing else that sends udp (python3, socat or bash would)" in told["udp"]


def test_a_guest_with_a_shell_and_no_tools_proves_nothing(netlab: Any, equip: Equip) -> None:
    equip("bare", "attacker")
    netlab.rules("fw", "delete table inet labctl")
    report = netlab.verify()
    mine = [flow for flow in report.flows if flow.source == "attacker"]
    assert {flow.verdict for flow in mine} == {Verdict.INCONCLUSIVE}, explain(report)
    assert {flow.evidence.seen for flow in mine} == {"error"}
    assert any(flow.source == "web" for flow in report.flows if flow.verdict is Verdict.FAIL), "others still look"


def test_a_refusal_is_told_from_a_routers(netlab: Any, equip: Equip) -> None:
    equip("debian", "attacker")
    # A kernel sends one host a few such messages at once, then one a second (ip-sysctl.rst, icmp_ratelimit).
    netlab.inside("fw", "sysctl", "-qw", "net.ipv4.icmp_ratemask=0")
    for port, answer in ((80, "reject with tcp reset"), (PORT, "reject with icmp type port-unreachable")):
        rule = f'iifname "eth0" ip daddr 10.10.10.7 tcp dport {port} {answer}'
        netlab.rules("fw", f"insert rule inet labctl forward {rule}")
    netlab.plan = replace(
        netlab.plan,
        flows=(
            *netlab.plan.flows,
            *(
                replace(f, port=80)
                for f in netlab.plan.flows
                if f.target == "office" and f.port == PORT and f.family == 4
            ),
        ),
    )
    report = netlab.verify()
    seen = {
        f.port: f for f in report.flows if key(f)[:5] == ("attacker", "eth0", "office", "eth0", "tcp") and f.family == 4
    }
    assert seen[80].evidence.seen == "refused", "nobody but a target sends a reset"
    assert seen[80].verdict is Verdict.FAIL
    assert seen[PORT].verdict is Verdict.INCONCLUSIVE
    assert "nothing here tells whose" in seen[PORT].evidence.details


def test_it_leaves_a_guest_as_it_was(netlab: Any, equip: Equip) -> None:
    equip("debian", "attacker")
    equip("socat", "web")
    for name in ("attacker", "web"):
        netlab.inside(name, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.eth0.rp_filter=1")

    def state(name: str) -> tuple[str, ...]:
        settings = [netlab.inside(name, "sysctl", f"net.ipv4.conf.{nic}.rp_filter") for nic in ("all", "eth0", "mgmt")]
        rules = [netlab.ip(name, *words.split()) for words in ("-4 rule", "-6 rule", "route show table all")]
        return (*settings, *rules, netlab.inside(name, "ss", "-Hltu"))

    before = [state(name) for name in ("attacker", "web")]
    netlab.verify()
    assert [state(name) for name in ("attacker", "web")] == before
    assert not any(folder_of(netlab, name).exists() for name in ("attacker", "web"))
    for name in ("attacker", "web"):
        found = subprocess.run(
            ["ip", "netns", "pids", netlab.ns(name)], capture_output=True, text=True, check=True
        ).stdout
        assert len(found.split()) == (1 if name == "web" else 0), "the web server alone is left"


@pytest.mark.parametrize("text", [b"", b"[]", b'{"results": [[0, "answered", "", 1, ""]]}', b"x" * (5 << 20)])
def test_nonsense_from_a_shell_spoils_its_own_cells_only(netlab: Any, equip: Equip, text: bytes) -> None:
    equip("bare", "attacker")

    def lie(argv: Any, stdin: bytes, said: ExecResult) -> ExecResult:
        return said if argv[0] == "python3" else ExecResult(0, text, b"")

    netlab.lies["attacker"] = lie
    report = netlab.verify()
    assert not keys(report, Verdict.FAIL), explain(report)
    unsure = [flow for flow in report.flows if flow.verdict is Verdict.INCONCLUSIVE]
    assert {key(f) for f in unsure} >= chosen(report, lambda f: f.source == "attacker")
    assert all("attacker" in (flow.source, flow.target) for flow in unsure)


HOSTILE = ("$(touch\t{0})", "$(touch${{IFS}}{0})", "`touch${{IFS}}{0}`", "'\"$(touch${{IFS}}{0})", "-e", "*")


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_what_it_reads_is_never_code(namespace: str, tmp_path: Path, shell: str) -> None:
    """Whatever a plan could hold, and labctl lets none of this through."""
    trap = tmp_path / "trap"
    words = [word.format(trap) for word in HOSTILE]
    lines = [f"device {word} {word}\ngateway {word} {word}" for word in words]
    lines += [
        f"probe {number} {word} 4 {p} {word} {word} {word}" for number, word in enumerate(words) for p in ("tcp",)
    ]
    start = ["busybox", "sh"] if shell == "busybox" else [shell]
    for mode in ("probe", "listen", "collect"):
        head = "key 0123456789abcdef\n" if mode != "probe" else ""
        doors = "".join(f"seconds 1\ntoken {word}\ndoor 0 4 tcp {word} {word}\n" for word in words)
        argv = ["ip", "netns", "exec", namespace, *start, "-c", inside.SHELL, "labctl", mode]
        text = head + (doors if mode == "listen" else "\n".join(lines) + "\n")
        subprocess.run(argv, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert not trap.exists()
