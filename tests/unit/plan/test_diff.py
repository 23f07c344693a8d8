"""What an ``up`` has to do to turn one plan into another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from labctl.plan.build import build
from labctl.plan.diff import Action, compare
from labctl.plan.model import LabPlan, MachinePlan
from labctl.spec.model import DiskSpec, Ports, ShellStep, UserSpec, WinRMSpec
from tests.support.labs import plan_of, spec_of

pytestmark = pytest.mark.unit

TEXT = """
    networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}}
    machines:
      m: {networks: [a]}
      n: {networks: [b]}
      r: {router: true, networks: [a, b]}
"""


@pytest.fixture
def plan() -> LabPlan:
    return plan_of(TEXT)


def changed(plan: LabPlan, **changes: Any) -> LabPlan:
    """The plan with another machine ``m``."""
    return replace(plan, machines=tuple(replace(m, **changes) if m.name == "m" else m for m in plan.machines))


def test_nothing_becomes_something_and_something_nothing(plan: LabPlan) -> None:
    assert set(compare(None, plan).actions().values()) == {"create"}
    smaller = replace(plan, machines=plan.machines[1:])
    assert compare(plan, smaller).actions() == {"n": "keep", "r": "keep", "m": "remove"}
    assert compare(smaller, plan).actions() == {"m": "create", "n": "keep", "r": "keep"}


def test_equal_plans_need_nothing(plan: LabPlan) -> None:
    assert compare(plan, plan_of(TEXT)).empty
    assert not compare(None, plan).empty


@pytest.mark.parametrize(
    ("action", "changes"),
    [
        ("replace", {"image": "other"}),
        ("replace", {"packages": ("curl",)}),
        ("replace", {"disks": (DiskSpec("data", 1 << 30),)}),
        ("replace", {"uuid": "other"}),
        ("replace", {"os": "windows"}),
        ("restart", {"memory": 1 << 30}),
        ("restart", {"cpus": 2}),
        ("restart", {"gui": True}),
        ("restart", {"management_mac": "02:00:00:00:00:01"}),
        ("restart", {"management_address": IPv4Interface("10.0.0.9/24")}),
        ("restart", {"settings": {"qemu": {"machine": "pc"}}}),
        ("keep", {"settings": {"virtualbox": {"gui": True}}}),
        ("provision", {"steps": (ShellStep("true"),)}),
        ("provision", {"secrets": ("flag",)}),
        ("configure", {"router": True}),
        ("configure", {"routes": ()}),
        ("configure", {"source_routes": ("x",)}),
        ("configure", {"forward": ("x",)}),
        ("configure", {"hosts": (("10.0.0.1", ("x",)),)}),
        ("configure", {"users": (UserSpec("x"),)}),
        ("configure", {"winrm": WinRMSpec()}),
        ("configure", {"resolvers": (IPv4Address("10.0.0.254"),)}),
        ("keep", {"description": "other"}),
        ("keep", {"services": (Ports("tcp", 1, 1),)}),
        ("keep", {"depends_on": ("n",)}),
        ("replace", {"memory": 1 << 30, "image": "other", "users": (UserSpec("x"),)}),
    ],
)
def test_each_change_calls_for_the_mildest_action_that_brings_it_about(
    plan: LabPlan, action: Action, changes: dict[str, Any]
) -> None:
    diff = compare(plan, changed(plan, **changes))
    assert diff.actions() == {"m": action, "n": "keep", "r": "keep"}
    assert set(diff.changes[0].fields) == set(changes)


def test_the_cases_above_cover_every_field_of_a_machine() -> None:
    """A new field must be thought about."""
    known = {
        *("name", "entry", "uuid", "image", "os", "description", "memory", "cpus", "router", "gui", "interfaces"),
        *("management_mac", "routes", "source_routes", "forward", "services", "packages", "steps", "hosts", "users"),
        *("disks", "depends_on", "winrm", "settings", "resolvers", "secrets", "management_address"),
    }
    assert {field.name for field in fields(MachinePlan)} == known


def _nic(**changes: Any) -> Callable[[LabPlan], LabPlan]:
    def change(plan: LabPlan) -> LabPlan:
        interface = replace(plan.machine("m").interfaces[0], **changes)
        return changed(plan, interfaces=(interface,))

    return change


@pytest.mark.parametrize(
    ("action", "change"),
    [
        ("configure", _nic(address=None)),
        ("restart", _nic(mac="02:00:00:00:00:01")),
        ("restart", _nic(promiscuous=True)),
        ("restart", _nic(isolated=True)),
        ("restart", _nic(network="b")),
        ("restart", lambda plan: changed(plan, interfaces=())),
    ],
)
def test_a_nic_changes_by_a_restart_and_its_address_while_it_runs(
    plan: LabPlan, action: Action, change: Callable[[LabPlan], LabPlan]
) -> None:
    assert compare(plan, change(plan)).actions()["m"] == action


def test_what_concerns_the_whole_lab_restarts_whom_it_concerns(plan: LabPlan) -> None:
    wire = replace(plan, networks=(replace(plan.networks[0], egress="nat"), plan.networks[1]))
    assert compare(plan, wire).actions() == {"m": "restart", "n": "keep", "r": "restart"}
    assert set(compare(plan, replace(plan, settings={"qemu": {"x": 1}})).actions().values()) == {"restart"}
    assert compare(plan, replace(plan, settings={"libvirt": {"x": 1}})).empty
    management = replace(plan.management, dns=plan.management.host)
    assert set(compare(plan, replace(plan, management=management)).actions().values()) == {"restart"}


def test_a_new_rule_configures_its_routers_only() -> None:
    before = plan_of(TEXT)
    text = TEXT + "    policy: [{from: n, to: m, ports: tcp/80}]\n"
    after = build(spec_of(text), previous=before)
    assert compare(before, after).actions() == {"m": "keep", "n": "configure", "r": "configure"}
    assert next(c for c in compare(before, after).changes if c.machine == "n").fields == ("hosts",)
