"""Public lab topologies of other tools, rewritten in labctl's language: each validates, plans, renders and draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.plan import graph, show
from labctl.plan.build import build
from labctl.plan.model import Flow, LabPlan
from labctl.providers.vagrant import render
from labctl.spec.load import check, load
from labctl.spec.model import PolicyRule, RuleEnd

pytestmark = pytest.mark.integration

TESTS = Path(__file__).resolve().parent.parent
TOPOLOGIES = sorted((TESTS / "topologies").glob("*.yaml"))
LABS = [*TOPOLOGIES, *sorted((TESTS / "labs").glob("hard*/lab.yaml"))]
# What Vagrant's VirtualBox provider cannot hold, and labctl refuses instead of pretending: a part of the message.
REFUSED = {
    "containerlab-bng01": "access has peers: false",
    "hard-peers": "lobby has peers: false",
    "honeynet-tpot": "honeypot has peers: false",
    "ludus-elastic": "the way out of servers stands at 10.2.20.253",
}


def _name(path: Path) -> str:
    return path.parent.name if path.name == "lab.yaml" else path.stem


@pytest.fixture(params=LABS, ids=_name, scope="module")
def lab(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def plan(lab: Path) -> LabPlan:
    return build(load(lab))


def test_there_are_enough_and_each_names_its_source() -> None:
    assert len(TOPOLOGIES) >= 30
    for path in TOPOLOGIES:
        head = path.read_text(encoding="utf-8").partition("version:")[0]
        assert "# Source: " in head, path.name
        assert "github.com/" in head, path.name


def test_it_validates(lab: Path) -> None:
    assert [problem.render() for problem in check(lab)] == []


@pytest.mark.parametrize("provider", ["qemu", "virtualbox"])
def test_it_plans_twice_to_the_same_bytes(lab: Path, provider: str) -> None:
    first, second = (json.dumps(show.to_json(build(load(lab), provider=provider))) for _ in range(2))
    assert first == second


def test_plans_do_not_depend_on_the_order_of_hashes() -> None:
    digest = (
        "import hashlib, json, sys\n"
        "from pathlib import Path\n"
        "from labctl.plan.build import build\n"
        "from labctl.plan.show import to_json\n"
        "from labctl.spec.load import load\n"
        "for lab in sys.argv[1:]:\n"
        "    print(lab, hashlib.sha256(json.dumps(to_json(build(load(Path(lab))))).encode()).hexdigest())\n"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", digest, *map(str, LABS)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == len(LABS)


def test_its_plan_comes_back_from_json(plan: LabPlan) -> None:
    assert show.from_json(json.loads(json.dumps(show.to_json(plan)))) == plan


def test_it_renders_a_vagrantfile(lab: Path) -> None:
    plan = build(load(lab), provider="virtualbox")
    refusal = REFUSED.get(_name(lab))
    if refusal is None:
        text = render.render_virtualbox(plan, {})["Vagrantfile"]
        assert all(machine.name in text for machine in plan.machines)
        return
    with pytest.raises(UsageError) as caught:
        render.render_virtualbox(plan, {})
    assert refusal in caught.value.brief
    assert caught.value.hint


def test_it_draws(plan: LabPlan) -> None:
    names = [machine.name for machine in plan.machines] + [network.name for network in plan.networks]
    for text in (graph.mermaid(plan), graph.dot(plan)):
        assert [name for name in names if name not in text] == []


def test_every_interface_on_a_subnet_has_an_address_in_it(lab: Path, plan: LabPlan) -> None:
    asked = {name: machine.interfaces for name, _, machine in load(lab).copies()}
    for machine in plan.machines:
        for interface, wanted in zip(machine.interfaces, asked[machine.name], strict=True):
            network = plan.network(interface.network)
            pairs = (
                (network.subnet, interface.address, wanted.address),
                (network.subnet6, interface.address6, wanted.address6),
            )
            for subnet, seat, wish in pairs:
                if subnet is None or wish is None:
                    assert seat is None
                    continue
                assert seat is not None
                assert seat.network == subnet
                assert seat.ip not in (subnet.network_address, subnet.broadcast_address)


def test_no_address_and_no_mac_is_there_twice(plan: LabPlan) -> None:
    addresses = [(i.network, address) for m in plan.machines for i in m.interfaces for address in i.addresses()]
    assert len(addresses) == len(set(addresses))
    macs = [mac for m in plan.machines for mac in (m.management_mac, *(i.mac for i in m.interfaces))]
    assert len(macs) == len(set(macs))


def test_the_policy_is_what_crosses_between_networks(lab: Path, plan: LabPlan) -> None:
    """Every passing flow has a rule, every flow with a rule passes, and every allowing rule lets something pass."""
    policy = load(lab).policy
    used: set[PolicyRule] = set()
    for flow in _crossing(plan):
        rule = _decider(plan, policy, flow)
        allowed = rule is not None and rule.action == "allow" and _routed(plan, flow)
        assert (flow.expected == "pass") == allowed, flow
        assert flow.rejected == (rule is not None and rule.action == "reject" and _routed(plan, flow)), flow
        if allowed and rule is not None:
            used.add(rule)
    assert [str(rule) for rule in policy if rule.action == "allow" and rule not in used] == []


def test_the_host_and_the_management_path_are_closed(plan: LabPlan) -> None:
    closed = [f for f in plan.flows if f.target in ("host", "management") or f.source_device == plan.management.device]
    assert {flow.source for flow in closed} == {machine.name for machine in plan.machines}
    assert {flow.expected for flow in closed} == {"deny"}


def _crossing(plan: LabPlan) -> list[Flow]:
    """The flows between machines on different networks."""
    networks = {(m.name, i.device): i.network for m in plan.machines for i in m.interfaces}
    ends = [
        (flow, networks.get((flow.source, flow.source_device)), networks.get((flow.target, flow.target_device)))
        for flow in plan.flows
    ]
    return [flow for flow, here, there in ends if here is not None and there is not None and here != there]


def _decider(plan: LabPlan, policy: tuple[PolicyRule, ...], flow: Flow) -> PolicyRule | None:
    """The first rule that means this flow."""
    for rule in policy:
        if (
            _means(plan, rule.source, flow.source, flow.source_device)
            and _means(plan, rule.target, flow.target, flow.target_device)
            and any(ports.covers(flow.protocol, flow.port or None) for ports in rule.ports)
        ):
            return rule
    return None


def _means(plan: LabPlan, end: RuleEnd, name: str, device: str) -> bool:
    machine = plan.machine(name)
    network = machine.interface(device).network
    return end.network in (None, network) and end.machine in (None, machine.name, machine.entry)


def _routed(plan: LabPlan, flow: Flow) -> bool:
    """Whether a chain of routers joins the two networks in the flow's family."""
    joined = {plan.machine(flow.source).interface(flow.source_device).network}
    legs = [
        {i.network for i in machine.interfaces if (i.address if flow.family == 4 else i.address6) is not None}
        for machine in plan.machines
        if machine.router
    ]
    for _ in legs:
        joined = joined.union(*(leg for leg in legs if leg & joined))
    return plan.machine(flow.target).interface(flow.target_device).network in joined
