"""The plan's expected flows against real packets: routes, firewall rules and guest scripts on kernels of this host."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from labctl.plan.build import build
from labctl.plan.model import Flow, LabPlan
from labctl.spec.load import load
from tests.support.namespaces import Lab, built

pytestmark = pytest.mark.integration

TESTS = Path(__file__).parents[2]
OWN_LABS = TESTS / "golden" / "plan"
LABS = [*sorted(OWN_LABS.glob("*.yaml")), *sorted((TESTS / "labs").glob("*/lab.yaml"))]


@pytest.fixture(autouse=True)
def _needs() -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root to make network namespaces: run it with sudo")
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            pytest.fail(f"needs {program}: apt install {package}")


def guest_flows(plan: LabPlan) -> list[Flow]:
    """What can be asked between namespaces: not the management path, not the host."""
    return [f for f in plan.flows if f.target_device and f.source_device != plan.management.device]


def wrong(seen: dict[Flow, str]) -> Iterator[str]:
    for flow, what in seen.items():
        fitting = {"answered"} if flow.expected == "pass" else {"silence", "prohibited"}
        if flow.rejected:
            fitting = {"refused", "prohibited"}
        if what not in fitting:
            yield f"{what}: {flow}"


@pytest.mark.parametrize("lab", LABS, ids=lambda path: path.stem if path.stem != "lab" else f"tests-{path.parent.name}")
def test_every_flow_of_the_plan_is_as_expected(lab: Path, tmp_path: Path) -> None:
    plan = build(load(lab))
    with built(plan, tmp_path) as real:
        assert list(wrong(real.ask(guest_flows(plan)))) == []


def test_the_probes_see_a_router_without_rules_and_one_that_lets_all_pass(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "hard.yaml"))
    flows = [flow for flow in guest_flows(plan) if flow.source in ("pc-1", "kiosk-1") and flow.target == "web"]
    with built(plan, tmp_path) as real:
        real.inside("core", "nft", "flush", "table", "inet", "labctl")
        seen = real.ask(flows)
        assert {what for flow, what in seen.items() if flow.expected == "pass"} == {"silence"}, "the policy stays drop"
        real.inside("core", "nft", "delete", "table", "inet", "labctl")
        seen = real.ask(flows)
        assert {what for flow, what in seen.items() if flow.expected == "deny"} == {"answered"}


def test_replies_pass_and_the_same_ports_backwards_do_not(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "hard.yaml"))
    there = next(f for f in plan.flows if (f.source, f.target, f.port) == ("web", "safe", 5432))
    source = plan.machine("web").interface("eth0").address
    assert source is not None
    back = replace(there, source="safe", target="web", address=str(source.ip), expected="deny")
    with built(plan, tmp_path) as real:
        assert real.ask([there, back]) == {there: "answered", back: "silence"}


@pytest.mark.parametrize("family", [4, 6])
def test_a_source_from_the_wrong_side_does_not_get_into_a_router(family: Literal[4, 6], tmp_path: Path) -> None:
    """A member of the office writes to the router's address there in the name of a machine beyond the router."""
    plan = build(load(OWN_LABS / "hard.yaml"))
    leg, web = plan.machine("core").interface("eth1").seat(family), plan.machine("web").interface("eth0").seat(family)
    pc = plan.machine("pc-1").interface("eth0").seat(family)
    assert leg is not None and web is not None and pc is not None
    with built(plan, tmp_path) as real:
        assert real.delivered("pc-1", str(pc.ip), "core", str(leg.ip))
        assert not real.delivered("pc-1", str(web.ip), "core", str(leg.ip))
        if family == 4:
            off = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done"
            real.inside("core", "sh", "-c", off)
        else:
            real.inside("core", "nft", "flush", "chain", "inet", "labctl", "antispoof")
        assert real.delivered("pc-1", str(web.ip), "core", str(leg.ip)), "only that check keeps it out"


def test_the_script_can_run_again_at_any_time(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "parallel.yaml"))
    with built(plan, tmp_path) as real:
        before = _settled(real)
        for machine in plan.machines:
            real.inside(machine.name, "sh", str(real.script(machine)))
        assert _settled(real) == before


def test_what_was_a_router_is_none_afterwards(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "parallel.yaml"))
    with built(plan, tmp_path) as real:
        r2 = plan.machine("r2")
        retired = replace(r2, router=False, forward=(), source_routes=())
        real.inside("r2", "sh", str(real.script(retired)))
        assert "labctl" not in real.inside("r2", "nft", "list", "tables")
        assert real.inside("r2", "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"


def test_rules_of_an_earlier_plan_go(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "parallel.yaml"))
    with built(plan, tmp_path) as real:
        r2 = plan.machine("r2")
        assert r2.source_routes, "otherwise this shows nothing"
        assert "lookup 10" in real.inside("r2", "ip", "rule")
        real.inside("r2", "sh", str(real.script(replace(r2, source_routes=()))))
        assert "lookup 10" not in real.inside("r2", "ip", "rule") + real.inside("r2", "ip", "-6", "rule")


def test_a_nic_is_found_by_its_mac_and_others_keep_out_of_the_way(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "parallel.yaml"))
    both = plan.machine("both")
    with built(plan, tmp_path) as real:
        # somebody's bridge has its port's MAC; a stranger has taken a planned name; the planned one has another
        real.inside("both", "ip", "link", "add", "lan7", "type", "bridge")
        real.inside("both", "ip", "link", "set", "eth0", "master", "lan7")
        real.inside("both", "ip", "link", "set", "eth1", "down", "name", "moved")
        real.inside("both", "ip", "link", "add", "eth1", "type", "bridge")
        real.inside("both", "sh", str(real.script(both)))
        links = real.inside("both", "ip", "-o", "link")
        for interface in both.interfaces:
            assert any(f" {interface.device}" in line and interface.mac in line for line in links.splitlines())
        assert " lan7:" in links and " xeth1:" in links


def test_a_missing_nic_is_named_and_a_missing_management_nic_is_none(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "parallel.yaml"))
    both = plan.machine("both")
    with built(plan, tmp_path) as real:
        script = real.script(both)
        real.inside("both", "ip", "link", "del", plan.management.device)
        real.inside("both", "sh", str(script))
        real.inside("both", "ip", "link", "del", "eth1")
        script.write_text(script.read_text().replace("tries=50", "tries=2"))
        with pytest.raises(AssertionError, match="these planned NICs are not there: eth1"):
            real.inside("both", "sh", str(script))


def test_the_management_nic_has_no_way_out_and_no_ipv6(tmp_path: Path) -> None:
    plan = build(load(OWN_LABS / "parallel.yaml"))
    with built(plan, tmp_path) as real:
        for machine in plan.machines:
            addresses = real.inside(machine.name, "ip", "-o", "addr", "show", "dev", "mgmt")
            assert str(plan.management.guest) in addresses
            assert "inet6" not in addresses
            assert "default" not in real.inside(machine.name, "ip", "route", "show", "table", "all", "dev", "mgmt")


def _settled(lab: Lab) -> dict[str, str]:
    """The state that stays: the kernel adds what follows from an IPv6 address (anycast routes) a moment later."""
    deadline = time.monotonic() + 30
    last: dict[str, str] = {}
    state = _state(lab)
    while last != state and time.monotonic() < deadline:
        time.sleep(1)
        last, state = state, _state(lab)
    return state


def _state(lab: Lab) -> dict[str, str]:
    wanted = (
        "ip -o -4 addr; ip -o -6 addr; ip route show table all | sort; ip -6 route show table all | sort;"
        "ip rule; ip -6 rule; nft list ruleset"
    )
    return {machine.name: lab.inside(machine.name, "sh", "-c", wanted) for machine in lab.plan.machines}
