"""What the engine reports against the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.providers.base import MachineStatus, Observed, ObservedNic
from labctl.verify.drift import as_planned, compare, unplugged
from labctl.verify.model import Verdict
from tests.support import plans

pytestmark = pytest.mark.unit

PLAN = plans.lab(
    [plans.network("red"), plans.network("blue")],
    [
        plans.machine("a", plans.interface("a", "eth0", "red", "10.1.0.1/24")),
        plans.machine("b", plans.interface("b", "eth0", "blue", "10.1.0.2/24")),
    ],
)
A, B = PLAN.machines
NICS = tuple(
    nic
    for m in PLAN.machines
    for nic in (
        ObservedNic(m.name, m.interfaces[0].mac.upper(), m.interfaces[0].network),
        ObservedNic(m.name, m.management_mac, "management"),
    )
)
CLEAN = Observed((MachineStatus("a", "running"), MachineStatus("b", "running")), NICS)


def kinds(observed: Observed) -> list[tuple[str, str, Verdict]]:
    return [(finding.kind, finding.machine, finding.verdict) for finding in compare(PLAN, observed)]


def test_no_difference() -> None:
    assert kinds(CLEAN) == []
    assert as_planned(PLAN, CLEAN) == {("a", "eth0"), ("a", "mgmt"), ("b", "eth0"), ("b", "mgmt")}


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        (replace(NICS[0], wire="blue"), "wrong-wire"),
        (replace(NICS[0], wire="management"), "wrong-wire"),
        (replace(NICS[0], linked=False), "unlinked"),
        (None, "missing-nic"),
    ],
)
def test_a_nic_that_is_not_as_planned(changed: ObservedNic | None, kind: str) -> None:
    observed = replace(CLEAN, nics=((changed,) if changed else ()) + NICS[1:])
    assert kinds(observed) == [(kind, "a", Verdict.FAIL)]
    assert ("a", "eth0") not in as_planned(PLAN, observed)
    assert ("b", "eth0") in as_planned(PLAN, observed)


def test_a_wrong_mac_is_a_missing_and_an_extra_nic() -> None:
    observed = replace(CLEAN, nics=(replace(NICS[0], mac="52:54:00:ff:ff:ff"), *NICS[1:]))
    assert [kind for kind, _, _ in kinds(observed)] == ["missing-nic", "extra-nic"]


def test_nics_nobody_planned() -> None:
    for machine in ("a", "stranger"):
        observed = replace(CLEAN, nics=(*NICS, ObservedNic(machine, "52:54:00:ff:ff:ff", "blue")))
        assert kinds(observed) == [("extra-nic", machine, Verdict.FAIL)]


def test_a_sealed_machine_has_no_management_nic() -> None:
    assert kinds(replace(CLEAN, nics=(NICS[0], *NICS[2:]))) == []
    assert kinds(replace(CLEAN, nics=(NICS[0], replace(NICS[1], linked=False), *NICS[2:]))) == []


def test_a_management_nic_on_a_wire_of_the_lab() -> None:
    assert kinds(replace(CLEAN, nics=(NICS[0], replace(NICS[1], wire="red"), *NICS[2:]))) == [
        ("wrong-wire", "a", Verdict.FAIL)
    ]


def test_a_machine_that_does_not_run_has_no_nics_to_compare() -> None:
    for statuses in ((MachineStatus("b", "running"),), (MachineStatus("a", "dead"), MachineStatus("b", "running"))):
        observed = replace(CLEAN, machines=statuses, nics=NICS[2:])
        assert kinds(observed) == [("not-running", "a", Verdict.INCONCLUSIVE)]


def test_leftovers() -> None:
    assert kinds(replace(CLEAN, leftovers=("qemu 4711",))) == [("leftover", "", Verdict.FAIL)]


def test_what_is_broken_beside_machines_decides_nothing() -> None:
    assert kinds(replace(CLEAN, faults=("the way out of red is gone",))) == [("not-running", "", Verdict.INCONCLUSIVE)]


def test_what_an_engine_lets_through_is_a_failure() -> None:
    assert kinds(replace(CLEAN, openings=(("a", "a shared folder"),))) == [("opening", "a", Verdict.FAIL)]


def test_what_a_wire_lets_through_is_a_failure() -> None:
    assert kinds(replace(CLEAN, wires=(("red", "the host has an address"),))) == [("open-wire", "", Verdict.FAIL)]


def test_nics_that_a_busy_engine_does_not_tell_are_not_missing() -> None:
    observed = replace(CLEAN, nics=NICS[2:], unseen=(("a", "QEMU does not answer"),))
    assert kinds(observed) == [("unobserved", "a", Verdict.INCONCLUSIVE)]
    assert ("a", "eth0") not in as_planned(PLAN, observed)


def test_a_sealed_lab_has_no_management_nic_joined() -> None:
    pulled = tuple(replace(nic, linked=nic.wire != "management") for nic in NICS)
    assert unplugged(PLAN, CLEAN) == frozenset()
    assert unplugged(PLAN, replace(CLEAN, nics=pulled)) == {("a", "mgmt"), ("b", "mgmt")}
    assert compare(PLAN, replace(CLEAN, nics=pulled), sealed=True) == ()
    half = replace(CLEAN, nics=(*pulled[:3], NICS[3]))
    assert [(f.kind, f.machine, f.verdict) for f in compare(PLAN, half, sealed=True)] == [
        ("unsealed", "b", Verdict.FAIL)
    ]


def test_a_management_nic_that_is_open_to_more_is_no_planned_wire() -> None:
    wide = replace(NICS[1], wire="management (answers names)", linked=False)
    assert kinds(replace(CLEAN, nics=(NICS[0], wide, *NICS[2:]))) == [("wrong-wire", "a", Verdict.FAIL)]
    assert ("a", "mgmt") in unplugged(PLAN, replace(CLEAN, nics=(wide,)))
