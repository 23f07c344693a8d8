"""Labs and the plans they become, as texts.

``LABCTL_WRITE_GOLDEN=1 pytest tests/golden/plan`` writes the texts anew; read the difference before it is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.plan.firewall import render_nft
from labctl.plan.graph import dot, mermaid
from labctl.plan.guest import personality
from labctl.plan.guest_network import network_script
from labctl.plan.model import LabPlan, MachinePlan
from labctl.plan.show import to_json
from labctl.spec.load import load

pytestmark = pytest.mark.golden

HERE = Path(__file__).parent
LABS = sorted(HERE.glob("*.yaml"))


def check(path: Path, text: str) -> None:
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_addresses_routes_rules_and_flows_are_those_that_were_agreed(lab: Path) -> None:
    check(lab.with_suffix(".txt"), "\n".join([*_summary(build(load(lab))), ""]))


def test_the_complete_plan_of_the_dmz() -> None:
    check(HERE / "dmz.json", json.dumps(to_json(build(load(HERE / "dmz.yaml"))), indent=1) + "\n")


def test_the_pictures_of_the_dmz() -> None:
    plan = build(load(HERE / "dmz.yaml"))
    check(HERE / "dmz.mmd", mermaid(plan))
    check(HERE / "dmz.dot", dot(plan))


@pytest.mark.parametrize(("lab", "router"), [("dmz", "fw"), ("hard", "core")])
def test_what_a_router_is_told(lab: str, router: str) -> None:
    plan = build(load(HERE / f"{lab}.yaml"))
    check(HERE / f"{lab}-{router}.nft", render_nft(plan.machine(router)))
    check(HERE / f"{lab}-{router}.network.sh", network_script(plan, plan.machine(router)))


def test_what_a_machine_on_two_networks_is_told() -> None:
    plan = build(load(HERE / "parallel.yaml"))
    check(HERE / "parallel-both.network.sh", network_script(plan, plan.machine("both")))


def test_what_a_guest_with_accounts_is_told() -> None:
    plan = build(load(HERE / "dmz.yaml"))
    found = personality(
        plan, plan.machine("web"), authorized_keys=("ssh-ed25519 AAAA",), host_key=("private", "public")
    )
    check(HERE / "dmz-web.script.sh", found.script)


def _summary(plan: LabPlan) -> Iterator[str]:
    for network in plan.networks:
        subnets = " ".join(map(str, network.subnets())) or "bare"
        yield f"network {network.name}: {subnets} as {network.wire}{'' if network.peers else ', no peers'}"
    yield f"management: {plan.management.guest} by {plan.management.host}"
    yield "waves: " + " | ".join(" ".join(wave) for wave in plan.waves)
    for machine in plan.machines:
        yield from _machine(machine)
    yield ""
    for f in plan.flows:
        address, port = f.address or "?", f"/{f.port}" if f.port else ""
        verdict = "REJECT" if f.rejected else f.expected.upper()
        ends = f"{f.source}.{f.source_device} > {f.target}{f'.{f.target_device}' if f.target_device else ''} {address}"
        yield f"{verdict} {ends} {f.protocol}{port} v{f.family}: {f.why}"


def _machine(machine: MachinePlan) -> Iterator[str]:
    yield ""
    yield f"{machine.name}{' (router)' if machine.router else ''} {machine.uuid} {machine.management_mac}"
    for i in machine.interfaces:
        remarks = f"{' promiscuous' if i.promiscuous else ''}{' isolated' if i.isolated else ''}"
        yield f"  {i.device} on {i.network}: {i.address or '-'} {i.address6 or '-'} {i.mac}{remarks}"
    for kind, routes in (("route", machine.routes), ("source route", machine.source_routes)):
        yield from (f"  {kind} {r.target} via {r.gateway} dev {r.device}" for r in routes)
    for rule in machine.forward:
        sources, targets = " ".join(map(str, rule.sources)), " ".join(map(str, rule.targets))
        yield f"  {rule.action} {rule.in_device} {sources} > {rule.out_device} {targets} {rule.ports}"
    yield from (f"  host {address} {' '.join(names)}" for address, names in machine.hosts)
