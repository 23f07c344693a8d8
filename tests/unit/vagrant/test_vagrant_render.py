"""The isolation rules in every rendered Vagrantfile, and refusals where an engine could only pretend."""

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
from labctl.providers.base import BootImage
from labctl.providers.vagrant import networks, render
from labctl.spec.load import load

pytestmark = pytest.mark.unit

LABS = Path(__file__).resolve().parents[2] / "golden/vagrant"


def plan_of(lab: str, instance: str = "default", provider: str = "virtualbox") -> LabPlan:
    return build(load(LABS / lab / "lab.yaml"), instance=instance, provider=provider)


@pytest.fixture(scope="module")
def everything() -> LabPlan:
    return plan_of("everything")


@pytest.fixture(scope="module")
def dmz() -> LabPlan:
    return plan_of("dmz")


def blocks(vagrantfile: str) -> dict[str, str]:
    """Machine name to its part of a Vagrantfile."""
    parts = re.split(r"^  config\.vm\.define '([^']*)' do \|m\|$", vagrantfile, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_nothing_of_the_host_is_shared(everything: LabPlan) -> None:
    common = render.render_virtualbox(everything, {})["Vagrantfile"].split("config.vm.define")[0]
    for rule in (
        "config.vm.synced_folder '.', '/vagrant', disabled: true",
        "config.ssh.forward_agent = false",
        "'--clipboard-mode', 'disabled'",
        "'--drag-and-drop', 'disabled'",
        "'--audio-enabled', 'off'",
        "'--usb-xhci', 'off'",
        "'--nat-dns-proxy1', 'off', '--nat-dns-host-resolver1', 'off'",
        "'--nat-localhostreachable1', 'off'",
        "'--nic-promisc1', 'deny'",
        "vb.auto_nat_dns_proxy = false",
    ):
        assert rule in common


def test_every_nic_is_on_its_planned_wire_with_a_policy_and_a_mac(everything: LabPlan) -> None:
    found = blocks(render.render_virtualbox(everything, {})["Vagrantfile"])
    for machine in everything.machines:
        text = found[machine.name]
        assert f"'--mac-address1', '{machine.management_mac.replace(':', '').upper()}'" in text
        for slot, interface in enumerate(machine.interfaces, 2):
            wire = everything.network(interface.network).wire
            mac = interface.mac.replace(":", "").upper()
            assert f"auto_config: false, mac: '{mac}', virtualbox__intnet: '{wire}', adapter: {slot}" in text
            assert f"'--nic-promisc{slot}', '{'allow-vms' if interface.promiscuous else 'deny'}'" in text
        assert len(re.findall(r"m\.vm\.network 'private_network'", text)) == len(machine.interfaces)


def test_libvirt_networks_have_no_way_out_no_host_and_no_dhcp() -> None:
    dmz = plan_of("dmz", provider="libvirt")
    files = render.render_libvirt(dmz, {})
    lines = [line for line in files["Vagrantfile"].splitlines() if "'private_network'" in line]
    assert len(lines) == sum(len(machine.interfaces) for machine in dmz.machines)
    for line in lines:
        assert "libvirt__forward_mode: 'veryisolated', libvirt__dhcp_enabled: false" in line
    assert "lv.management_network_mode = 'none'" in files["Vagrantfile"]
    assert "<port isolated='yes'/>" in files["management-network.xml"]
    assert "<forward" not in files["management-network.xml"]


def test_machines_stand_in_the_order_of_their_dependencies(dmz: LabPlan) -> None:
    order = list(blocks(render.render_virtualbox(dmz, {})["Vagrantfile"]))
    assert order == [name for wave in dmz.waves for name in wave]
    for machine in dmz.machines:
        assert all(order.index(needed) < order.index(machine.name) for needed in machine.depends_on)


NAMES = re.compile(r"(?:intnet: |network_(?:name|address)(?:: | = )|vb\.name = |mac: |uuid = )('[^']*')")


def test_instances_share_no_name() -> None:
    names = []
    for instance in ("default", "anna"):
        text = render.render_virtualbox(plan_of("dmz", instance), {})["Vagrantfile"]
        text += render.render_libvirt(plan_of("dmz", instance, "libvirt"), {})["Vagrantfile"]
        names.append(set(NAMES.findall(text)))
    assert len(names[0]) == len(names[1]) > 10
    assert not names[0] & names[1]


def test_the_lab_ends_sealed_where_the_spec_says_so(everything: LabPlan) -> None:
    sealed = render.render_virtualbox(everything, {})["Vagrantfile"]
    opened = render.render_virtualbox(replace(everything, seal=False), {})["Vagrantfile"]
    assert "'setlinkstate1', 'off'" in sealed
    assert "setlinkstate" not in opened
    plain = plan_of("plain", provider="libvirt")
    sealed = render.render_libvirt(replace(plain, seal=True), {})["Vagrantfile"]
    assert "cable.(machine, 'down') if machine.state.id == :running && !ENV['LABCTL_WAVES']" in sealed
    assert "cable" not in render.render_libvirt(plain, {})["Vagrantfile"]


Change = Callable[[LabPlan], LabPlan]


def _crowded(plan: LabPlan) -> LabPlan:
    machine = plan.machine("fw")
    crowded = replace(machine, interfaces=machine.interfaces * 3)
    return replace(plan, machines=tuple(crowded if m is machine else m for m in plan.machines))


def _network(**changes: object) -> Change:
    return lambda plan: replace(plan, networks=(replace(plan.networks[0], **changes), *plan.networks[1:]))  # type: ignore[arg-type]


def _promiscuous(plan: LabPlan) -> LabPlan:
    machine = plan.machine("web")
    sensor = replace(machine, interfaces=(replace(machine.interfaces[0], promiscuous=True),))
    return replace(plan, machines=tuple(sensor if m is machine else m for m in plan.machines))


def _told_on_windows(plan: LabPlan) -> LabPlan:
    return replace(plan, machines=tuple(replace(m, secrets=("flag",), os="windows") for m in plan.machines))


@pytest.mark.parametrize(
    ("change", "engines", "message"),
    [
        (_told_on_windows, ("virtualbox", "libvirt"), "is told secrets"),
        (_crowded, ("virtualbox",), "has 9 interfaces"),
        (_network(peers=False), ("virtualbox",), "peers: false"),
        (_network(egress="nat", exit=IPv4Address("203.0.113.254")), ("virtualbox", "libvirt"), "way out|egress"),
        (_promiscuous, ("libvirt",), "promiscuous"),
        (lambda plan: replace(plan, settings={"libvirt": {"uri": "qemu:///session"}}), ("libvirt",), "session"),
        (lambda plan: replace(plan, lab="x'y"), ("virtualbox", "libvirt"), "cannot be a name"),
        (lambda plan: replace(plan, instance="../x"), ("virtualbox", "libvirt"), "cannot be a name"),
        (_network(name="a\nb"), ("virtualbox", "libvirt"), "cannot be a name"),
    ],
)
def test_what_an_engine_cannot_hold_is_refused(change: Change, engines: tuple[str, ...], message: str) -> None:
    functions = {"virtualbox": render.render_virtualbox, "libvirt": render.render_libvirt}
    for engine, function in functions.items():
        plan = change(plan_of("dmz", provider=engine))
        if engine in engines:
            with pytest.raises(UsageError, match=message):
                function(plan, {})
        else:
            assert function(plan, {})["Vagrantfile"]


def test_a_name_that_leaves_the_folder_is_refused(dmz: LabPlan) -> None:
    evil = replace(dmz, machines=(replace(dmz.machines[0], name="../../x"),), waves=(("../../x",),))
    with pytest.raises(UsageError, match="cannot be a name"):
        render.render_virtualbox(evil, {})


def test_a_box_is_named_after_its_content_where_that_is_known(dmz: LabPlan) -> None:
    machine = dmz.machine("web")
    digest = "ab" * 32
    assert render.box(machine, None) == render.Box("labctl/debian-12")
    assert render.box(replace(machine, image="debian/bookworm64"), None) == render.Box("debian/bookworm64")
    made = BootImage("debian-12", digest, Path("/cache/web.box"), user="vagrant")
    assert render.box(machine, made) == render.Box("labctl/debian-12-abababababab", "file:///cache/web.box", digest)
    text = blocks(render.render_virtualbox(dmz, {"web": made})["Vagrantfile"])["web"]
    assert f"m.vm.box_download_checksum = '{digest}'" in text
    assert "m.ssh.username = 'vagrant'" in text


def test_each_guest_has_its_own_address_on_the_management_network_of_libvirt() -> None:
    plan = plan_of("dmz", provider="libvirt")
    xml = networks.management(plan).xml
    for machine in plan.machines:
        assert machine.management_address is not None
        assert f"<host mac='{machine.management_mac}' ip='{machine.management_address.ip}'/>" in xml
    with pytest.raises(ValueError, match="not made for libvirt"):
        networks.management(plan_of("dmz"))


def test_the_host_is_closed_to_every_bridge_of_libvirt() -> None:
    """Having no address on a bridge does not close it: Linux takes packets for any of its addresses on any device."""
    plan = plan_of("dmz", provider="libvirt")
    text = networks.host_filter(plan)
    bridges = {f'"lb{network.key}"' for network in plan.networks}
    every = bridges | {f'"lab{plan.lab_key}"'}
    closed = [set(found.split(", ")) for found in re.findall(r"iifname \{ (.*) \} drop", text)]
    assert closed == [every, bridges]  # input, ARP
    # nothing crosses from one device to another, and what stays on one is let be
    for way, back in (("iifname", "oifname"), ("oifname", "iifname")):
        assert set(re.findall(rf"{way} (\S+) {back} != (\S+) drop", text)) == {(name, name) for name in every}
    for network in plan.networks:
        assert f"<bridge name='lb{network.key}'" in networks.wire(network)
