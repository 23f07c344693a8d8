"""What VBoxManage says and VirtualBox writes, read; and a machine beside its plan."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from labctl.errors import ProviderError
from labctl.plan.model import LabPlan
from labctl.providers.vagrant import virtualbox_observation as observation
from labctl.providers.vagrant import virtualbox_reading as reading
from labctl.providers.vagrant.virtualbox_model import Details, Forward, NatEngine, NatNetwork, Nic, Snapshot
from labctl.spec.model import WinRMSpec
from tests.support import plans

pytestmark = pytest.mark.unit

# As VirtualBox 7.2.22 prints it, shortened; the warning is Debian's.
SAID = """\
WARNING: The character device /dev/vboxdrv does not exist.
\t You will not be able to start VMs until this problem is fixed.
name="labctl.t.default.a"
UUID="0a841048-8000-4254-8fe0-6ac93b21f17a"
CfgFile="/home/u/VirtualBox VMs/labctl.t.default.a/labctl.t.default.a.vbox"
memory=64
VMState="running"
"IDE-0-0"="/home/u/a \\"b\\".vmdk"
natnet1="10.0.2.0/24"
macaddress1="02135BFAE844"
cableconnected1="on"
nic1="nat"
mtu="0"
sockSnd="64"
localhostReachable="0"
Forwarding(0)="ssh,tcp,127.0.0.1,2200,,22"
intnet2="t-default-lan"
macaddress2="02933072D0D0"
cableconnected2="off"
nic2="intnet"
generic3="UDPTunnel"
macaddress3="021C4E3236BE"
cableconnected3="on"
nic3="Generic"
macaddress4="021C4E3236BF"
cableconnected4="on"
nic4="null"
nic5="none"
audio="none"
audio_out="off"
clipboard="disabled"
clipboard_file_transfers="off"
draganddrop="disabled"
VideoMode="640,480,32"@0,0 1
vrde="off"
vrdeproperty[TCP/Address]=<not set>
usb="off"
ehci="off"
xhci="off"
VRDEClients==0
 rec_screen0
SnapshotName="one"
SnapshotUUID="5addee1d-1899-43a1-850a-6dcccb2641c0"
SnapshotName-1="two"
SnapshotUUID-1="70bf01fc-bb53-46f5-9a83-25865b9ac9de"
CurrentSnapshotName="two"
CurrentSnapshotUUID="70bf01fc-bb53-46f5-9a83-25865b9ac9de"
CurrentSnapshotNode="SnapshotName-1"
"""
WRITTEN = """\
<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
  <Machine uuid="{0a841048-8000-4254-8fe0-6ac93b21f17a}" name="x">
    <Snapshot uuid="{5addee1d-1899-43a1-850a-6dcccb2641c0}" name="one">
      <Hardware><Network><Adapter slot="0" promiscuousModePolicy="AllowAll"/></Network></Hardware>
    </Snapshot>
    <Hardware>
      <Network>
        <Adapter slot="0" enabled="true" MACAddress="02135BFAE844">
          <NAT network="10.0.2.0/24"><DNS pass-domain="false"/></NAT>
        </Adapter>
        <Adapter slot="1" enabled="true" promiscuousModePolicy="AllowNetwork"><InternalNetwork name="y"/></Adapter>
        <Adapter slot="2" promiscuousModePolicy="AllowAll"/>
        <Adapter slot="3"/>
      </Network>
    </Hardware>
  </Machine>
</VirtualBox>
"""
CLOSED = NatEngine(*[False] * len(dataclasses.fields(NatEngine)))
SSH = Forward("ssh", "tcp", "127.0.0.1", 2222, "", 22)


def details(said: str = SAID, written: str = WRITTEN) -> Details:
    return reading.details(reading.pairs(said), reading.settings(written))


def test_a_machine_is_read_from_both() -> None:
    found = details()
    assert (found.name, found.uuid, found.state) == (
        "labctl.t.default.a",
        "0a841048-8000-4254-8fe0-6ac93b21f17a",
        "running",
    )
    assert found.nics == (
        Nic(1, "nat", "10.0.2.0/24", "02:13:5b:fa:e8:44", True, "deny", CLOSED),
        Nic(2, "intnet", "t-default-lan", "02:93:30:72:d0:d0", False, "allow-vms", None),
        Nic(3, "generic", "UDPTunnel", "02:1c:4e:32:36:be", True, "allow-all", None),
        Nic(4, "null", "", "02:1c:4e:32:36:bf", True, "deny", None),
    )
    assert found.forwards == (Forward("ssh", "tcp", "127.0.0.1", 2200, "", 22),)
    assert (found.clipboard, found.clipboard_files, found.drag_and_drop) == ("disabled", False, "disabled")
    assert (found.screen_served, found.host_devices, found.shared_folders) == (False, (), ())
    assert found.snapshots == (
        Snapshot("one", "5addee1d-1899-43a1-850a-6dcccb2641c0", False),
        Snapshot("two", "70bf01fc-bb53-46f5-9a83-25865b9ac9de", True),
    )


def test_without_its_settings_file_the_rest_is_unknown() -> None:
    found = reading.details(reading.pairs(SAID), None)
    assert {(nic.promiscuous, nic.nat) for nic in found.nics} == {(None, None)}


def test_quotes_and_line_breaks_belong_to_a_text() -> None:
    text = 'description="x\\"\nnic2=\\"none\\"\nnic9=\\"nat\\"\\\\"\n'
    assert reading.pairs(text) == {"description": ('x"\nnic2="none"\nnic9="nat"\\',)}
    assert details(SAID + text) == details()


@pytest.mark.parametrize(
    "text",
    [
        'nic2="none"\n',
        'VMState="poweroff"\n',
        'UUID="00000000-0000-0000-0000-000000000000"\n',
        'Forwarding(1)="a,tcp,127.0.0.1,x,,22"\n',
        'Forwarding(1)="a,b,tcp,127.0.0.1,1,,22"\n',
        'nic6="nat"\n',
        'nic6="nat"\nmacaddress6="02"\ncableconnected6="on"\n',
        'nic6="nat"\nmacaddress6="021C4E3236BF"\ncableconnected6="perhaps"\n',
    ],
)
def test_what_contradicts_itself_or_is_incomplete_is_an_error(text: str) -> None:
    with pytest.raises(ProviderError, match="cannot read"):
        details(SAID + text)


@pytest.mark.parametrize("key", ["name", "UUID", "CfgFile", "VMState", "clipboard", "draganddrop", "audio", "usb"])
def test_what_is_judged_must_be_there(key: str) -> None:
    lines = [line for line in SAID.splitlines(keepends=True) if not line.startswith(f"{key}=")]
    with pytest.raises(ProviderError, match="cannot read") as error:
        details("".join(lines))
    assert error.value.details == f"{key} is missing"


def test_a_network_of_another_kind_is_shown_by_its_kind() -> None:
    said = SAID.replace('nic3="Generic"', 'nic3="cloudnetwork"')
    assert [(nic.kind, nic.network) for nic in details(said).nics][2] == ("other", "cloudnetwork")


@pytest.mark.parametrize(
    ("said", "written", "reachable"),
    [
        ('localhostReachable="0"\n', "", False),
        ('localhostReachable="0"\n', ' localhost-reachable="true"', False),
        ('localhostReachable="1"\n', "", True),
        ('localhostReachable="1"\n', ' localhost-reachable="false"', True),
        ("", "", True),
        ("", ' localhost-reachable="false"', False),
        ('localhostReachable="0"\nlocalhostReachable="0"\n', "", True),  # of one that is no NAT as far as is known
    ],
)
def test_the_loopback_is_open_unless_virtualbox_says_or_writes_that_it_is_not(
    said: str, written: str, reachable: bool
) -> None:
    found = details(
        SAID.replace('localhostReachable="0"\n', said),
        WRITTEN.replace('<NAT network="10.0.2.0/24">', f'<NAT network="10.0.2.0/24"{written}>'),
    )
    nat = found.nics[0].nat
    assert nat is not None and nat.localhost_reachable is reachable


def test_every_offer_of_a_nat_is_read() -> None:
    nat = '<NAT localhost-reachable="true" forward-broadcast="true" enable-tftp="true">'
    dns = '<DNS use-proxy="true" use-host-resolver="true"/>'
    written = WRITTEN.replace('<NAT network="10.0.2.0/24">', nat).replace('<DNS pass-domain="false"/>', dns)
    found = reading.settings(written)
    assert found is not None and found[1].nat == NatEngine(*[True] * len(dataclasses.fields(NatEngine)))


@pytest.mark.parametrize(
    "written",
    [
        "",
        "<VirtualBox",
        '<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux"/>',
        '<!DOCTYPE x [<!ENTITY a "b">]>' + WRITTEN.partition("?>")[2],
        WRITTEN.replace('version="1.19-linux"', 'version="?"'),
        WRITTEN.replace('slot="3"', 'slot="x"'),
        WRITTEN.replace('"AllowNetwork"', '"AllowEverything"'),
    ],
)
def test_settings_of_another_form_are_not_read(written: str) -> None:
    assert reading.settings(written) is None


def test_machines_are_listed_with_any_name() -> None:
    said = SAID.partition("name=")[0] + (
        '"a "b" {x}" {0a841048-8000-4254-8fe0-6ac93b21f17a}\n<x>\n'
        '"<inaccessible>" {70bf01fc-bb53-46f5-9a83-25865b9ac9de}\n'
    )
    assert [machine.name for machine in reading.registered(said)] == ['a "b" {x}', "<inaccessible>"]
    with pytest.raises(ProviderError, match="cannot read"):
        reading.registered('"a" {0a841048}\n')


def test_networks_are_listed() -> None:
    nat = "Name:         {}\nNetwork:      10.77.0.0/24\nGateway:      10.77.0.1\nDHCP Server:  {}\nIPv6:         No\n"
    said = SAID.partition("name=")[0] + nat.format("x", "No") + "loopback mappings (ipv4)\n\n" + nat.format("y", "Yes")
    assert reading.nat_networks(said) == (
        NatNetwork("x", "10.77.0.0/24", False, False),
        NatNetwork("y", "10.77.0.0/24", True, False),
    )
    with pytest.raises(ProviderError, match="cannot read"):
        reading.nat_networks(nat.format("x", "Perhaps"))
    assert reading.internal_networks("Name:        a\nName:        b: c\n\n") == ("a", "b: c")


def lab(**changes: Any) -> LabPlan:
    """A machine ``a`` on ``lan`` and, as a sensor, on ``tap``; ``out`` has a way out."""
    on = [plans.interface("a", "eth0", "lan"), plans.interface("a", "eth1", "tap", promiscuous=True)]
    networks = [plans.network("lan"), plans.network("tap"), plans.network("out", egress="nat")]
    return plans.lab(networks, [plans.machine("a", *on, **changes)])


def as_planned(plan: LabPlan) -> Details:
    machine = plan.machines[0]
    nics = [Nic(1, "nat", "10.0.2.0/24", machine.management_mac, True, "deny", CLOSED)]
    for slot, interface in enumerate(machine.interfaces, start=2):
        policy: Any = "allow-vms" if interface.promiscuous else "deny"
        nics.append(Nic(slot, "intnet", plan.network(interface.network).wire, interface.mac, True, policy, None))
    return replace(details(), nics=tuple(nics), forwards=(SSH,))


def drift(found: Details, **changes: Any) -> list[str]:
    return [text.removeprefix("a: ") for text in observation.drift(lab(**changes).machines[0], found)]


def wires(found: Details) -> list[str]:
    plan = lab()
    return [nic.wire for nic in observation.nics(plan, plan.machines[0], found)]


def with_nic(found: Details, slot: int, **changes: Any) -> Details:
    return replace(found, nics=tuple(replace(nic, **changes) if nic.slot == slot else nic for nic in found.nics))


def test_a_machine_as_planned_has_no_drift_and_the_labs_wires() -> None:
    found = as_planned(lab())
    assert drift(found) == []
    assert wires(found) == ["management", "lan", "tap"]


@pytest.mark.parametrize(
    ("slot", "changes", "wire"),
    [
        (1, {"kind": "intnet", "network": "t-default-lan"}, "lan"),
        (1, {"kind": "bridged", "network": "eth0"}, "bridged eth0"),
        (2, {"kind": "nat", "network": "nat"}, "nat nat"),
        (2, {"network": "lan"}, "intnet lan"),
        (2, {"network": ""}, "intnet"),
        (2, {"kind": "hostonly"}, "hostonly t-default-lan"),
        (2, {"kind": "natnetwork"}, "natnetwork t-default-lan"),
        (2, {"kind": "natnetwork", "network": "t-default-out"}, "out"),
        (2, {"network": "t-default-out"}, "intnet t-default-out"),
        (2, {"kind": "other", "network": "cloudnetwork"}, "other cloudnetwork"),
    ],
)
def test_a_wire_has_the_labs_name_only_where_it_is_the_labs(slot: int, changes: dict[str, Any], wire: str) -> None:
    assert wires(with_nic(as_planned(lab()), slot, **changes))[slot - 1] == wire


@pytest.mark.parametrize(("name", "says"), observation._NAT_OFFERS.items())
def test_every_offer_of_the_nat_is_drift(name: str, says: str) -> None:
    found = with_nic(as_planned(lab()), 1, nat=replace(CLOSED, **{name: True}))
    assert drift(found) == [f"the NAT of adapter 1 {says}"]


def test_each_field_of_the_nat_has_its_words() -> None:
    assert list(observation._NAT_OFFERS) == [field.name for field in dataclasses.fields(NatEngine)]


def test_the_nat_of_another_adapter_is_judged_too() -> None:
    found = with_nic(as_planned(lab()), 2, kind="nat", nat=replace(CLOSED, localhost_reachable=True))
    assert drift(found) == ["the NAT of adapter 2 lets it reach this computer's loopback"]


@pytest.mark.parametrize(
    ("os", "forwards", "count"),
    [
        ("linux", [], 0),
        ("linux", [(22, "127.0.0.1", "tcp")], 0),
        ("linux", [(22, "127.0.0.1", "tcp"), (22, "127.0.0.1", "tcp")], 1),
        ("linux", [(22, "127.0.0.1", "udp")], 1),
        ("linux", [(22, "", "tcp")], 1),
        ("linux", [(22, "0.0.0.0", "tcp")], 1),  # noqa: S104 - nobody binds anything here
        ("linux", [(22, "192.168.0.7", "tcp")], 1),
        ("linux", [(80, "", "tcp")], 2),
        ("linux", [(5985, "127.0.0.1", "tcp")], 1),
        ("windows", [(port, "127.0.0.1", "tcp") for port in (22, 5985, 5986, 15986)], 0),
        ("windows", [(port, "127.0.0.1", "tcp") for port in (5985, 5985, 3389)], 2),
    ],
)
def test_only_the_ports_that_vagrant_logs_in_by_are_forwarded_and_from_loopback(
    os: str, forwards: list[tuple[int, str, str]], count: int
) -> None:
    made = tuple(Forward("x", protocol, host, 2200 + n, "", port) for n, (port, host, protocol) in enumerate(forwards))
    found = replace(as_planned(lab()), forwards=made)
    assert len(drift(found, os=os, winrm=WinRMSpec(port=15986) if os == "windows" else None)) == count


@pytest.mark.parametrize(
    ("word", "state"),
    [("running", "running"), ("starting", "running"), ("paused", "paused"), ("saved", "stopped"), ("aborted", "dead")],
)
def test_states_are_said_in_labctls_words(word: str, state: str) -> None:
    assert observation.state(replace(details(), state=word)) == state
