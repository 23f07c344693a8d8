"""The management path of engines that put all guests on one network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.errors import UsageError
from labctl.plan.flows import expected_flows
from labctl.plan.model import LabPlan
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit

TEXT = """
    networks: {a: {subnet: SUBNET}}
    machines: {m: {count: 3, networks: [a]}, n: {networks: [a]}}
"""


def shared(subnet: str = "192.168.7.0/24", **options: object) -> LabPlan:
    return plan_of(TEXT.replace("SUBNET", subnet), provider="libvirt", **options)


def test_its_subnet_is_apart_from_the_labs_and_from_other_instances() -> None:
    plan = shared()
    subnet = plan.management.subnet
    assert plan.management.shared and not plan_of(TEXT.replace("SUBNET", "192.168.7.0/24")).management.shared
    assert not shared(str(subnet)).management.subnet.overlaps(subnet)
    assert not shared(instance="anna").management.subnet.overlaps(subnet)
    with pytest.raises(UsageError, match="no room"):
        shared("10.0.0.0/8")


def test_every_guest_has_an_address_of_its_own_and_keeps_it() -> None:
    plan = shared()
    addresses = {machine.name: machine.management_address for machine in plan.machines}
    assert len(set(addresses.values())) == 4 and None not in addresses.values()
    for address in addresses.values():
        assert address is not None and address.network == plan.management.subnet
        assert address.ip != plan.management.host
    more = plan_of(
        TEXT.replace("SUBNET", "192.168.7.0/24").replace("machines: {", "machines: {first: {networks: [a]}, "),
        provider="libvirt",
        previous=plan,
    )
    assert {name: more.machine(name).management_address for name in addresses} == addresses


def test_guests_are_closed_to_each_other_there() -> None:
    plan = shared()
    asked = {
        (f.source, f.target, f.address): f.expected
        for f in plan.flows
        if f.source_device == "mgmt" and f.target in addresses_of(plan)
    }
    assert set(asked.values()) == {"deny"} and len(asked) == 12
    assert {address for _, _, address in asked} == set(addresses_of(plan).values())
    assert {f.address for f in plan.flows if f.target == "management"} == {str(plan.management.host)}
    assert expected_flows(replace(plan, flows=())) == plan.flows


def addresses_of(plan: LabPlan) -> dict[str, str]:
    return {m.name: str(m.management_address.ip) for m in plan.machines if m.management_address is not None}
