"""VMware and Hyper-V: the isolation rules in what is rendered for them, and refusals where they could only pretend."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.providers.vagrant import BACKENDS
from labctl.spec.load import load

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/golden/vagrant"
SHIPPED = sorted(path.parent.name for path in (ROOT / "labs").glob("*/lab.yaml"))
LISTENING = ["sensor"]
"""Shipped labs with a NIC that is to hear others."""
ENGINES = {backend.name: backend for backend in BACKENDS if backend.name in ("vmware_desktop", "hyperv")}


def plan_of(path: Path, provider: str, *, instance: str = "default", seal: bool = True) -> LabPlan:
    """The lab without its secrets, which are refused before anything else is looked at."""
    plan = build(load(path / "lab.yaml"), provider=provider, instance=instance)
    return replace(plan, seal=seal, machines=tuple(replace(machine, secrets=()) for machine in plan.machines))


def vagrantfile(plan: LabPlan) -> str:
    return ENGINES[plan.provider].render(plan, {})["Vagrantfile"]


def vmx(text: str) -> dict[str, dict[str, str]]:
    """Machine name to the keys of its .vmx file; those of all machines under an empty name."""
    parts = re.split(r"^  config\.vm\.define '([^']*)' do \|m\|$", text, flags=re.MULTILINE)
    sections = {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    return {name: dict(re.findall(r"vw\.vmx\['([^']*)'\] = '([^']*)'", section)) for name, section in sections.items()}


def test_labctl_does_not_drive_them_and_says_so() -> None:
    assert {name: backend.engine for name, backend in ENGINES.items()} == {"vmware_desktop": None, "hyperv": None}
    for backend in ENGINES.values():
        assert "untested" in backend.summary
    for lab, provider in (("dmz", "vmware_desktop"), ("alone", "hyperv")):
        header = vagrantfile(plan_of(GOLDEN / lab, provider)).partition("\n\n")[0]
        assert "# UNTESTED: labctl has never run a lab with this provider." in header


@pytest.mark.parametrize("lab", LISTENING)
def test_vmware_refuses_a_shipped_lab_with_a_nic_that_is_to_hear_others(lab: str) -> None:
    with pytest.raises(UsageError, match=r"is promiscuous on .*, which vmware_desktop"):
        vagrantfile(plan_of(ROOT / "labs" / lab, "vmware_desktop"))


@pytest.mark.parametrize("lab", [lab for lab in SHIPPED if lab not in LISTENING])
def test_every_nic_on_vmware_but_vagrants_own_is_on_the_lan_segment_of_its_network(lab: str) -> None:
    plan = plan_of(ROOT / "labs" / lab, "vmware_desktop")
    text = vagrantfile(plan)
    assert "'private_network'" not in text  # which is a host-only one there
    found = vmx(text)
    segments: dict[str, str] = {}
    for machine in plan.machines:
        keys = found[machine.name]
        assert keys["ethernet0.address"] == machine.management_mac.upper()
        assert "ethernet0.connectionType" not in keys
        for slot, interface in enumerate(machine.interfaces, 1):
            assert keys[f"ethernet{slot}.connectionType"] == "pvn"
            assert keys[f"ethernet{slot}.address"] == interface.mac.upper()
            assert keys[f"ethernet{slot}.noPromisc"] == "TRUE"
            segment = segments.setdefault(interface.network, keys[f"ethernet{slot}.pvnID"])
            assert segment == keys[f"ethernet{slot}.pvnID"]
            assert re.fullmatch(r"52( [0-9a-f]{2}){7}-[0-9a-f]{2}( [0-9a-f]{2}){7}", segment)
        assert f"ethernet{len(machine.interfaces) + 1}.present" not in keys
    assert len(set(segments.values())) == len(segments)


def test_instances_share_no_lan_segment() -> None:
    used = []
    for instance in ("default", "anna"):
        keys = vmx(vagrantfile(plan_of(GOLDEN / "dmz", "vmware_desktop", instance=instance)))
        used.append({value for nics in keys.values() for key, value in nics.items() if key.endswith("pvnID")})
    assert len(used[0]) == len(used[1]) == 3
    assert not used[0] & used[1]


def test_vmware_shares_nothing_of_the_host() -> None:
    text = vagrantfile(plan_of(GOLDEN / "dmz", "vmware_desktop"))
    common = vmx(text)[""]
    for tool in ("copy", "paste", "dnd", "hgfs"):
        assert common[f"isolation.tools.{tool}.disable"] == "TRUE"
    assert common["isolation.device.connectable.disable"] == "TRUE", "a guest could plug itself in again"
    assert "config.vm.synced_folder '.', '/vagrant', disabled: true" in text
    assert "vw.functional_hgfs = false" in text
    # VMware forwards ports of all addresses of the host
    forwards = re.findall(r"'forwarded_port', .*", text)
    assert forwards and all(forward.endswith(", disabled: true") for forward in forwards)


def test_each_machine_is_unplugged_before_the_next_one_starts() -> None:
    for lab, provider, unplug in (
        ("dmz", "vmware_desktop", "cable.(machine, 'disconnectNamedDevice')"),
        ("alone", "hyperv", "Hyper-V\\\\Disconnect-VMNetworkAdapter"),
    ):
        text = vagrantfile(plan_of(GOLDEN / lab, provider))
        seal = text.partition("config.trigger.after [:up, :reload, :resume, :snapshot_restore]")[2]
        assert unplug in seal.partition("  config.vm.provider")[0]
        assert "ENV['VAGRANT_NO_PARALLEL'] = 'yes'\n" in text


@pytest.mark.parametrize("provider", sorted(ENGINES))
def test_secrets_are_refused_because_the_file_is_all_there_is(provider: str) -> None:
    told = replace(build(load(ROOT / "labs/passwords/lab.yaml"), provider=provider), seal=True)
    with pytest.raises(UsageError, match=f"server is told secrets, which {provider} "):
        vagrantfile(told)


Change = Callable[[LabPlan], LabPlan]


def _network(**changes: object) -> Change:
    return lambda plan: replace(plan, networks=(replace(plan.networks[0], **changes), *plan.networks[1:]))  # type: ignore[arg-type]


def _crowded(plan: LabPlan) -> LabPlan:
    machine = plan.machine("fw")
    crowded = replace(machine, interfaces=(*machine.interfaces * 3, machine.interfaces[0]))
    return replace(plan, machines=tuple(crowded if m is machine else m for m in plan.machines))


def _promiscuous(plan: LabPlan) -> LabPlan:
    machine = plan.machine("web")
    sensor = replace(machine, interfaces=(replace(machine.interfaces[0], promiscuous=True),))
    return replace(plan, machines=tuple(sensor if m is machine else m for m in plan.machines))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda plan: replace(plan, seal=False),
            "not sealed, and vmware_desktop through Vagrant can hold sealed labs only",
        ),
        (_crowded, "fw has 10 interfaces; VMware has room for 9"),
        (_promiscuous, "web is promiscuous on dmz, which vmware_desktop"),
        (_network(peers=False), "network outside has peers: false, which vmware_desktop"),
        (_network(egress="nat", exit=IPv4Address("203.0.113.1")), "network outside has egress, which vmware_desktop"),
        (lambda plan: replace(plan, lab="x'y"), "cannot be a name"),
    ],
)
def test_what_vmware_cannot_hold_is_refused(change: Change, message: str) -> None:
    plan = plan_of(GOLDEN / "dmz", "vmware_desktop")
    assert vagrantfile(plan)
    with pytest.raises(UsageError, match=message):
        vagrantfile(change(plan))


def _windowed(plan: LabPlan) -> LabPlan:
    return replace(plan, machines=(replace(plan.machines[0], gui=True), *plan.machines[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: replace(plan, seal=False), "not sealed, and hyperv through Vagrant can hold sealed labs only"),
        (_windowed, r"desk has a window \(gui: true\), which hyperv"),
        (lambda plan: replace(plan, instance="../x"), "cannot be a name"),
    ],
)
def test_what_hyperv_cannot_hold_is_refused(change: Change, message: str) -> None:
    plan = plan_of(GOLDEN / "alone", "hyperv")
    assert vagrantfile(plan)
    with pytest.raises(UsageError, match=message):
        vagrantfile(change(plan))


@pytest.mark.parametrize("lab", SHIPPED)
def test_hyperv_refuses_every_shipped_lab_because_this_computer_would_be_on_their_networks(lab: str) -> None:
    with pytest.raises(UsageError, match=r" is on .*, which hyperv .* all NICs of a machine on one switch"):
        vagrantfile(plan_of(ROOT / "labs" / lab, "hyperv"))
