"""What labctl renders is what VirtualBox holds: a lab brought up by plain Vagrant, read back, spoiled, kept, removed.

The machines run and have empty disks; in place of guests, Vagrant's requests are written down.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.errors import ProviderError
from labctl.providers.base import BootImage
from labctl.providers.vagrant import virtualbox_reading as reading
from labctl.providers.vagrant.virtualbox_observation import state
from tests.virtualbox.harness import VirtualBoxHost
from tests.virtualbox.lab import TWO_MACHINES, Lab, rendered

# The first test may have to build the tree.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.engines,
    pytest.mark.timeout(1200),
]

MACHINES = ("server", "sensor")


@pytest.fixture(scope="module")
def lab(virtualbox: VirtualBoxHost, empty_box: BootImage) -> Lab:
    """The lab after ``vagrant up`` of the file as it was rendered."""
    made = rendered(virtualbox, empty_box, TWO_MACHINES, setup_sh="#!/bin/sh\necho set up\n")
    made.vagrant("up", "--provider=virtualbox")
    return made


def planned_wires(lab: Lab, name: str) -> list[tuple[str, str, bool]]:
    """MAC, wire and whether the cable is in, adapter by adapter."""
    machine = lab.machine(name)
    return [
        (machine.management_mac, "management", True),
        *((interface.mac, interface.network, True) for interface in machine.interfaces),
    ]


@pytest.mark.parametrize("name", MACHINES)
def test_each_adapter_is_on_the_wire_that_the_plan_says(lab: Lab, name: str) -> None:
    assert [(nic.mac, nic.wire, nic.linked) for nic in lab.nics(name)] == planned_wires(lab, name)
    kinds = [(nic.slot, nic.kind) for nic in lab.details(name).nics]
    assert kinds == [(1, "nat"), *((slot, "intnet") for slot in range(2, len(kinds) + 1))]
    assert set(lab.manage.internal_networks()) == {network.wire for network in lab.plan.networks}


def test_only_a_sensor_sees_others_packets(lab: Lab) -> None:
    seen = {name: [nic.promiscuous for nic in lab.details(name).nics] for name in MACHINES}
    assert seen == {"server": ["deny", "deny"], "sensor": ["deny", "deny", "allow-vms"]}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_has_nothing_that_its_plan_does_not_give(lab: Lab, name: str) -> None:
    assert state(lab.details(name)) == "running"
    assert lab.drift(name) == ()


def test_the_hardware_is_what_was_asked_for(lab: Lab) -> None:
    for name in MACHINES:
        said = lab.host.run("VBoxManage", "showvminfo", lab.uuid(name), "--machinereadable")
        facts = reading.pairs(said)
        machine = lab.machine(name)
        assert (facts["memory"], facts["cpus"]) == ((str(machine.memory >> 20),), (str(machine.cpus),))
        assert facts["natnet1"] == (str(lab.plan.management.subnet),)


def test_one_loopback_port_leads_to_each_machine_and_no_other_port_is_open(lab: Lab) -> None:
    forwards = [lab.details(name).forwards for name in MACHINES]
    assert [[(f.protocol, f.host_ip, f.guest_port) for f in found] for found in forwards] == [
        [("tcp", "127.0.0.1", 22)]
    ] * len(MACHINES)
    planned = {found[0].host_port for found in forwards}
    assert len(planned) == len(MACHINES)
    assert listening(lab) == {("127.0.0.1", port) for port in planned}


def listening(lab: Lab) -> set[tuple[str, int]]:
    """Address and port of every listening TCP socket in the place."""
    said = lab.host.run("ss", "--no-header", "--listening", "--tcp", "--numeric")
    found = [line.split()[3].rpartition(":") for line in said.splitlines()]
    return {(address, int(port)) for address, _, port in found}


@pytest.mark.parametrize("name", MACHINES)
def test_a_guest_is_told_what_was_rendered_for_it_and_nothing_else(lab: Lab, name: str) -> None:
    scripts = [text for path, text in sorted(lab.files.items()) if path.startswith(f"provision/{name}/")]
    brought = [(lab.folder / "setup.sh").read_text()] if name == "server" else []
    assert sorted(lab.uploaded(name)) == sorted([*scripts, *brought])
    asked = [note["command"] for note in lab.told(name) if "command" in note]
    assert not [command for command in asked if "mount" in command or "vboxsf" in command]


def test_pulling_the_management_cable_is_seen_and_undone(lab: Lab) -> None:
    uuid = lab.uuid("server")
    lab.manage.set_link(uuid, 1, False)
    assert [nic.linked for nic in lab.nics("server")] == [False, True]
    lab.manage.set_link(uuid, 1, True)
    assert [nic.linked for nic in lab.nics("server")] == [True, True]


def test_a_machine_pauses_and_goes_on(lab: Lab) -> None:
    uuid = lab.uuid("server")
    for _again in range(2):
        lab.manage.pause(uuid)
        assert state(lab.details("server")) == "paused"
    for _again in range(2):
        lab.manage.resume(uuid)
        assert state(lab.details("server")) == "running"


def test_a_live_snapshot_brings_memory_and_settings_back(lab: Lab) -> None:
    uuid, manage = lab.uuid("server"), lab.manage
    kept = manage.snapshot_take(uuid, "live one", live=True)
    assert lab.details("server").state == "running"
    assert (kept.name, kept.current) == ("live one", True)
    manage.set_link(uuid, 2, False)
    with pytest.raises(ProviderError, match="snapshot failed"):
        manage.snapshot_restore(uuid, kept.uuid)  # while it runs
    manage.poweroff(uuid)
    manage.snapshot_restore(uuid, kept.uuid)
    assert lab.details("server").state == "saved"
    manage.start(uuid)
    assert lab.details("server").state == "running"
    assert all(nic.linked for nic in lab.nics("server"))
    manage.snapshot_delete(uuid, kept.uuid)
    assert manage.snapshots(uuid) == ()
    assert lab.drift("server") == ()


def test_a_paused_machine_is_kept_and_stays_paused(lab: Lab) -> None:
    uuid, manage = lab.uuid("server"), lab.manage
    manage.pause(uuid)
    kept = manage.snapshot_take(uuid, "barrier")
    assert lab.details("server").state == "paused"
    manage.snapshot_delete(uuid, kept.uuid)
    manage.resume(uuid)


def test_a_stopped_machine_is_kept_restored_and_freed_of_its_memory(lab: Lab) -> None:
    uuid, manage = lab.uuid("server"), lab.manage
    first = manage.snapshot_take(uuid, "with memory")
    manage.poweroff(uuid)
    manage.poweroff(uuid)
    second = manage.snapshot_take(uuid, "off")
    assert [(s.name, s.current) for s in manage.snapshots(uuid)] == [("with memory", False), ("off", True)]
    manage.snapshot_restore(uuid, first.uuid)
    assert lab.details("server").state == "saved"
    manage.discard(uuid)
    assert lab.details("server").state == "poweroff"
    manage.snapshot_restore(uuid, second.uuid)
    assert lab.details("server").state == "poweroff"
    manage.set_link(uuid, 2, False)
    assert [nic.linked for nic in lab.nics("server")] == [True, False]
    manage.set_link(uuid, 2, True)
    for kept in (second, first):
        manage.snapshot_delete(uuid, kept.uuid)
    manage.start(uuid)
    assert lab.details("server").state == "running"


Plant = tuple[list[str], list[str], str]
LIVE: dict[str, Plant] = {  # commands to plant and to undo (M is the machine), and what must be said
    "folder": (
        ["sharedfolder add M --name hole --hostpath /tmp --transient"],
        ["sharedfolder remove M --name hole --transient"],
        "the folder /tmp of this computer is shared with it as hole",
    ),
    "clipboard": (
        ["controlvm M clipboard mode bidirectional"],
        ["controlvm M clipboard mode disabled"],
        "the clipboard is shared with it (bidirectional)",
    ),
    "clipboard files": (
        ["controlvm M clipboard filetransfers on"],
        ["controlvm M clipboard filetransfers off"],
        "files pass through the clipboard",
    ),
    "drag and drop": (
        ["controlvm M draganddrop hosttoguest"],
        ["controlvm M draganddrop disabled"],
        "drag and drop is on (hosttoguest)",
    ),
    "screen": (
        ["controlvm M vrde on"],
        ["controlvm M vrde off"],
        "its screen is served to the network (VRDE)",
    ),
    "one more port": (
        ["controlvm M natpf1 hole,tcp,127.0.0.1,8080,,80"],
        ["controlvm M natpf1 delete hole"],
        "the forwarded port 127.0.0.1:8080 to tcp port 80 is not in the plan",
    ),
    "promiscuous": (
        ["controlvm M nicpromisc2 allow-all"],
        ["controlvm M nicpromisc2 deny"],
        "adapter 2 may see others' packets (allow-all), planned is deny",
    ),
    "not promiscuous": (
        ["controlvm M nicpromisc3 deny"],
        ["controlvm M nicpromisc3 allow-vms"],
        "adapter 3 may not see others' packets, planned is allow-vms",
    ),
}
AT_REST: dict[str, Plant] = {
    "names": (
        ["modifyvm M --nat-dns-proxy1 on"],
        ["modifyvm M --nat-dns-proxy1 off"],
        "the NAT of adapter 1 answers DNS for it",
    ),
    "resolver": (
        ["modifyvm M --nat-dns-host-resolver1 on"],
        ["modifyvm M --nat-dns-host-resolver1 off"],
        "the NAT of adapter 1 answers DNS for it with this computer's resolver",
    ),
    "domain": (
        ["modifyvm M --nat-dns-pass-domain1 on"],
        ["modifyvm M --nat-dns-pass-domain1 off"],
        "the NAT of adapter 1 tells it this computer's domain",
    ),
    "loopback": (
        ["modifyvm M --nat-localhostreachable1 on"],
        ["modifyvm M --nat-localhostreachable1 off"],
        "the NAT of adapter 1 lets it reach this computer's loopback",
    ),
    "tftp": (
        ["modifyvm M --nat-enable-tftp1 on"],
        ["modifyvm M --nat-enable-tftp1 off"],
        "the NAT of adapter 1 serves files to it by TFTP",
    ),
    "broadcasts": (
        ["modifyvm M --nat-forward-broadcast1 on"],
        ["modifyvm M --nat-forward-broadcast1 off"],
        "the NAT of adapter 1 passes its broadcasts on to this computer's network",
    ),
    "folder": (
        ["sharedfolder add M --name hole --hostpath /tmp"],
        ["sharedfolder remove M --name hole"],
        "the folder /tmp of this computer is shared with it as hole",
    ),
    "sound": (
        ["modifyvm M --audio-enabled on"],
        ["modifyvm M --audio-enabled off"],
        "it has this computer's audio",
    ),
    "usb": (
        ["modifyvm M --usb-xhci on"],
        ["modifyvm M --usb-xhci off"],
        "it has this computer's usb",
    ),
    "one more adapter": (
        ["modifyvm M --nic4 intnet --intnet4 elsewhere"],
        ["modifyvm M --nic4 none"],
        "adapter 4 (intnet elsewhere) is not in the plan",
    ),
}


def plant(lab: Lab, name: str, commands: list[str]) -> None:
    for command in commands:
        words = [lab.uuid(name) if word == "M" else word for word in command.split()]
        lab.host.run("VBoxManage", *words)


@pytest.mark.parametrize("what", LIVE)
def test_what_is_opened_in_a_running_machine_is_found(lab: Lab, what: str) -> None:
    spoil, mend, finding = LIVE[what]
    plant(lab, "sensor", spoil)
    assert lab.drift("sensor") == (finding,)
    plant(lab, "sensor", mend)
    assert lab.drift("sensor") == ()


def test_a_port_that_is_open_to_the_network_is_found(lab: Lab) -> None:
    """And is one: the same question as in the plan's own test now gets another answer."""
    plant(lab, "sensor", ["controlvm M natpf1 hole,tcp,,8080,,22"])
    assert lab.drift("sensor") == (
        "the forwarded port *:8080 to tcp port 22 does not stay on this computer's loopback",
        "the forwarded port 127.0.0.1:2200 to tcp port 22 is not in the plan",
    )
    assert ("0.0.0.0", 8080) in listening(lab)  # noqa: S104 - nobody binds anything here
    plant(lab, "sensor", ["controlvm M natpf1 delete hole"])
    assert lab.drift("sensor") == ()


def test_an_adapter_that_was_moved_shows_where_it_is(lab: Lab) -> None:
    before = planned_wires(lab, "sensor")
    plant(lab, "sensor", ["controlvm M nic3 nat"])
    assert [nic.wire for nic in lab.nics("sensor")] == ["management", "lan", "nat nat"]
    plant(lab, "sensor", ["controlvm M nic3 intnet two-somebody-elses"])
    assert [nic.wire for nic in lab.nics("sensor")] == ["management", "lan", "intnet two-somebody-elses"]
    plant(lab, "sensor", [f"controlvm M nic3 intnet {lab.plan.network('tap').wire}"])
    assert [(nic.mac, nic.wire, nic.linked) for nic in lab.nics("sensor")] == before


@pytest.fixture(scope="module")
def resting(lab: Lab) -> Lab:
    """The lab with the sensor stopped."""
    lab.manage.poweroff(lab.uuid("sensor"))
    return lab


@pytest.mark.parametrize("what", AT_REST)
def test_what_is_opened_in_a_stopped_machine_is_found(resting: Lab, what: str) -> None:
    spoil, mend, finding = AT_REST[what]
    plant(resting, "sensor", spoil)
    assert resting.drift("sensor") == (finding,)
    plant(resting, "sensor", mend)
    assert resting.drift("sensor") == ()


def test_a_description_of_a_machine_cannot_pass_for_its_adapters(resting: Lab) -> None:
    uuid = resting.uuid("sensor")
    before = resting.details("sensor")
    for text in ('x"\nnic2="none"\nnic9="nat"\n\\', 'NIC 3: MAC: 020000000000\n\\\\"\n"\nUUID=0\n</Machine>'):
        resting.host.run("VBoxManage", "modifyvm", uuid, "--description", text)
        assert resting.details("sensor") == before
    resting.host.run("VBoxManage", "modifyvm", uuid, "--description", "")


def test_settings_that_cannot_be_read_are_no_good_settings(resting: Lab) -> None:
    file = resting.details("sensor").settings_file
    hidden = file.rename(file.with_name("hidden"))
    try:
        assert list(resting.drift("sensor")) == [
            f"what adapter {slot} may see and its NAT offers cannot be read" for slot in (1, 2, 3)
        ]
    finally:
        hidden.rename(file)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (lambda lab: lab.manage._change(lab.uuid("sensor"), "modifyvm", lab.uuid("sensor"), "--nic9", "nat"), "NIC"),
        (lambda lab: lab.manage.pause(lab.uuid("sensor")), "not currently running"),
        (lambda lab: lab.manage.snapshot_take(lab.uuid("sensor"), "--live"), "cannot name a snapshot"),
        (
            lambda lab: lab.manage.snapshot_restore(lab.uuid("sensor"), "0" * 8 + "-0000-0000-0000-" + "0" * 12),
            "any snapshots",
        ),
        (lambda lab: lab.manage.details("0" * 8 + "-0000-0000-0000-" + "0" * 12), "find"),
        (lambda lab: lab.manage.details("labctl.two.default.sensor"), "is no UUID"),
    ],
)
def test_an_order_that_was_not_carried_out_is_an_error(resting: Lab, order: Callable[[Lab], None], said: str) -> None:
    """The first ends with status 0."""
    with pytest.raises(ProviderError, match=said):
        order(resting)


def test_every_call_is_in_the_log(lab: Lab) -> None:
    lab.manage.machines()
    assert (lab.host.home / "commands.log").read_text().splitlines()[-1].endswith(" VBoxManage list vms")


def test_a_shared_way_out_is_made_before_the_machine_and_read_back(lab: Lab) -> None:
    lab.host.run("VBoxManage", "natnetwork", "add", "--netname", "x", "--network", "10.77.0.0/24", "--dhcp", "off")
    (found,) = lab.manage.nat_networks()
    assert (found.name, found.subnet, found.dhcp, found.ipv6) == ("x", "10.77.0.0/24", False, False)
    lab.host.run("VBoxManage", "natnetwork", "remove", "--netname", "x")
    assert lab.manage.nat_networks() == ()


# The last tests: what they remove is gone for all others.


def test_a_machine_that_is_forgotten_leaves_nothing(resting: Lab) -> None:
    uuid, folder = resting.uuid("sensor"), resting.details("sensor").settings_file.parent
    resting.manage.snapshot_take(uuid, "kept")
    resting.manage.unregister(uuid)
    resting.manage.unregister(uuid)
    assert not folder.exists()
    assert resting.manage.internal_networks() == (resting.plan.network("lan").wire,)


def test_after_destroy_there_is_no_machine_no_disk_and_no_network(lab: Lab) -> None:
    lab.vagrant("destroy", "--force")
    assert [machine.name for machine in lab.manage.machines() if machine.name.startswith("labctl")] == []
    assert lab.manage.internal_networks() == ()
    assert "labctl" not in lab.host.run("VBoxManage", "list", "hdds")
    assert [path for path in Path(lab.host.home / "VirtualBox VMs").iterdir() if "labctl" in path.name] == []
