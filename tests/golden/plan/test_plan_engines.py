"""One lab, the same expectations on every engine: only the management path is the engine's own.

A verdict could differ between engines only if what is expected did, so this is compared flow by flow, for the labs that
are shipped and for those that are hard to plan.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.plan.model import Flow, LabPlan
from labctl.providers import PROVIDERS
from labctl.spec.load import load

pytestmark = pytest.mark.golden

REPOSITORY = Path(__file__).resolve().parents[3]
SHIPPED = sorted((REPOSITORY / "labs").glob("*/lab.yaml"))
HARD = sorted((REPOSITORY / "tests/labs").glob("*/lab.yaml")) + sorted(Path(__file__).parent.glob("*.yaml"))
ENGINES = ("qemu", "virtualbox", "libvirt")


def name(path: Path) -> str:
    return path.parent.name if path.name == "lab.yaml" else path.stem


@pytest.fixture(params=[*SHIPPED, *HARD], ids=name)
def plans(request: pytest.FixtureRequest) -> dict[str, LabPlan]:
    """Engine to plan."""
    spec = load(request.param)
    return {engine: build(spec, provider=engine) for engine in ENGINES}


def of_the_lab(plan: LabPlan) -> list[Flow]:
    return [flow for flow in plan.flows if flow.source_device != plan.management.device]


def beside_it(plan: LabPlan) -> list[Flow]:
    return [flow for flow in plan.flows if flow.source_device == plan.management.device]


def addressed(plan: LabPlan, *families: int) -> set[str]:
    """Machines with an address on a network of the lab, of any family unless some are named."""
    return {
        machine.name
        for machine in plan.machines
        if any(a.version in (families or (4, 6)) for i in machine.interfaces for a in i.addresses())
    }


def test_all_engines_that_run_labs_are_compared() -> None:
    assert {name for name, backend in PROVIDERS.items() if backend.images is not None} == set(ENGINES)


def test_the_same_flows_are_expected_with_the_same_verdicts(plans: dict[str, LabPlan]) -> None:
    flows = {engine: of_the_lab(plan) for engine, plan in plans.items()}
    assert flows["virtualbox"] == flows["qemu"] == flows["libvirt"]
    seen = addressed(plans["qemu"])
    assert {flow.source for flow in flows["qemu"]} == seen
    assert {flow.target for flow in flows["qemu"]} == {"host", *(seen if len(seen) > 1 else ())}


def test_nothing_is_expected_to_pass_over_any_management_path(plans: dict[str, LabPlan]) -> None:
    machines = {machine.name for machine in plans["qemu"].machines}
    for plan in plans.values():
        flows = beside_it(plan)
        assert {flow.expected for flow in flows} == {"deny"}
        for machine in machines:
            targets = {flow.target for flow in flows if flow.source == machine}
            assert targets >= {"host", "management"}
            # a machine without an address on the lab's networks is reached on a shared management network only
            reached = machines if plan.management.shared else addressed(plan, 4)
            assert targets - {"host", "management"} == reached - {machine}


def test_all_else_of_a_plan_is_the_same_too(plans: dict[str, LabPlan]) -> None:
    def bare(plan: LabPlan) -> LabPlan:
        machines = tuple(replace(machine, management_address=None) for machine in plan.machines)
        like = plans["qemu"]
        return replace(plan, provider="", management=like.management, machines=machines, flows=())

    assert bare(plans["qemu"]) == bare(plans["virtualbox"]) == bare(plans["libvirt"])
