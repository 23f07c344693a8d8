"""What is decided where the source leaves something open or contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import UsageError
from labctl.lifecycle.foreign import containerlab, kypo, vagrant
from labctl.lifecycle.foreign.draft import Draft, Machine
from labctl.lifecycle.foreign.settle import rules, settle
from labctl.lifecycle.foreign.vagrant_provision import Provisioning

pytestmark = pytest.mark.unit


def vagrant_draft(folder: Path, *machines: Mapping[str, Any]) -> tuple[Draft, Provisioning]:
    draft = Draft("lab", "Vagrantfile")
    provisioning = Provisioning(draft, folder)
    named = [{"name": f"m{index}", "box": "debian/bookworm64", **entry} for index, entry in enumerate(machines)]
    vagrant.fill(draft, {"machines": named}, provisioning)
    settle(draft)
    return draft, provisioning


def private(**options: Any) -> dict[str, Any]:
    return {"networks": [["private_network", options]]}


def shell(**config: Any) -> dict[str, Any]:
    return {"provisioners": [{"type": "shell", "config": config}]}


def wires(draft: Draft) -> list[list[str]]:
    return [[seat.network.name for seat in machine.seats] for machine in draft.machines]


def test_machines_meet_where_vagrant_would_join_them(tmp_path: Path) -> None:
    draft, _ = vagrant_draft(
        tmp_path,
        private(ip="10.0.0.5"),
        private(ip="10.0.0.6", netmask="255.255.255.0"),
        private(ip="10.0.0.7", virtualbox__intnet="lan"),
        private(virtualbox__intnet="lan"),
        private(virtualbox__intnet=True),
        private(type="dhcp"),
        private(type="dhcp"),
        private(libvirt__network_name="lan"),
        private(libvirt__tunnel_port=1, libvirt__tunnel_local_port=2),
        private(libvirt__tunnel_port=2, libvirt__tunnel_local_port=1),
    )
    names = [name for (name,) in wires(draft)]
    assert names == ["private", "private", "lan", "lan", "intnet", "private-2", "private-2", "lan", "tunnel", "tunnel"]
    subnets = {network.name: str(network.subnet) for network in draft.networks}
    assert subnets == {
        "private": "10.0.0.0/24",
        "lan": "10.0.0.0/24",
        "intnet": "None",
        "private-2": "192.168.56.0/24",
        "tunnel": "None",
    }


def test_a_subnet_that_is_made_up_is_one_that_nobody_has(tmp_path: Path) -> None:
    draft, _ = vagrant_draft(tmp_path, private(ip="192.168.56.9"), private(type="dhcp"), private(ip="10.200.0.1"))
    assert [str(network.subnet) for network in draft.networks] == ["192.168.56.0/24", "10.200.1.0/24", "10.200.0.0/24"]


def test_a_nic_that_sees_everything_is_the_one_of_that_number(tmp_path: Path) -> None:
    command = ["modifyvm", "", "--nicpromisc3", "allow-vms", "--nicpromisc2", "deny"]
    two = [["private_network", {"ip": "10.0.0.5"}], ["private_network", {"ip": "10.0.1.5"}]]
    draft, _ = vagrant_draft(tmp_path, {"networks": two, "settings": {"customizations": [["pre-boot", command]]}})
    assert [seat.promiscuous for seat in draft.machines[0].seats] == [False, True]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("\n    a\n      b\n", "\na\n  b\n"),
        ("    cat <<EOF\n    x\n    EOF\n", "    cat <<EOF\n    x\n    EOF\n"),
        ("    echo 'a\n    b'\n", "    echo 'a\n    b'\n"),
        ("  a\n   \n  b", "a\n \nb"),
    ],
)
def test_a_shell_text_loses_the_vagrantfiles_indentation_only(tmp_path: Path, text: str, step: str) -> None:
    draft, _ = vagrant_draft(tmp_path, shell(inline=text))
    assert draft.machines[0].steps == [{"shell": step}]


def test_arguments_and_variables_come_before_the_text_in_quotes(tmp_path: Path) -> None:
    draft, _ = vagrant_draft(tmp_path, shell(inline="x", args=["a b", "$(id)"], env={"K": "v'; id", "a=b": "x"}))
    assert draft.machines[0].steps == [{"shell": "export K='v'\"'\"'; id'\nset -- 'a b' '$(id)'\nx"}]
    assert any('the variable "a=b"' in note for note in draft.machines[0].notes)


def test_a_script_is_one_of_the_sources_folder(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    (tmp_path / "outside.sh").write_text("secret")
    (lab / "link.sh").symlink_to("../outside.sh")
    (lab / "run.sh").write_text("#!/bin/sh\n")
    paths = [
        "run.sh",
        "./run.sh",
        str(lab / "run.sh"),
        "link.sh",
        "../outside.sh",
        str(tmp_path / "outside.sh"),
        "gone",
    ]
    draft, provisioning = vagrant_draft(lab, *(shell(path=path) for path in paths))
    assert [machine.steps for machine in draft.machines] == [[{"script": "run.sh"}]] * 3 + [[]] * 4
    assert provisioning.files == {"run.sh"}
    assert all("not carried over: provisioner shell" in " ".join(m.notes) for m in draft.machines[3:])


def test_windows_is_told_or_read_from_the_name_of_the_box(tmp_path: Path) -> None:
    draft, _ = vagrant_draft(
        tmp_path,
        {"communicator": "winrm"},
        {"guest": "windows"},
        {"box": "rapid7/metasploitable3-win2k8"},
        {"box": "gusztavvargadr/windows-10", "guest": "linux"},
        {"box": "darwin/window-manager"},
    )
    assert [machine.windows for machine in draft.machines] == [True, True, True, False, False]


def routed(*cidrs: str) -> Draft:
    """One router on networks of these subnets, and a host on each."""
    names = [f"n{index}" for index in range(len(cidrs))]
    draft = Draft("lab", "topology")
    kypo.fill(
        draft,
        {
            "hosts": [{"name": f"h{name}"} for name in names],
            "routers": [{"name": "r"}],
            "networks": [{"name": name, "cidr": cidr} for name, cidr in zip(names, cidrs, strict=True)],
            "net_mappings": [{"host": f"h{name}", "network": name} for name in names],
            "router_mappings": [{"router": "r", "network": name} for name in names],
        },
    )
    settle(draft)
    return draft


def test_routers_of_kypo_let_all_networks_talk() -> None:
    draft = routed("10.0.0.0/24", "10.0.1.0/24")
    assert list(rules(draft)) == [("n0", "n1"), ("n1", "n0")]
    assert [machine.router for machine in draft.machines] == [False, False, True]


def test_a_router_of_kypo_with_one_network_gets_the_wan_that_the_platform_has() -> None:
    draft = routed("10.0.0.0/24")
    assert [(network.name, str(network.subnet)) for network in draft.networks][1:] == [("wan", "100.100.100.0/24")]
    assert list(rules(draft)) == [("n0", "wan"), ("wan", "n0")]


def test_of_two_subnets_that_overlap_behind_a_router_the_first_stays() -> None:
    draft = routed("10.0.0.0/16", "10.0.5.0/24", "10.9.0.0/24")
    assert [str(network.subnet) for network in draft.networks] == ["10.0.0.0/16", "None", "10.9.0.0/24"]
    assert "overlaps n0's" in draft.networks[1].notes[-1]


def test_more_rules_than_a_lab_can_have_are_not_written() -> None:
    draft = routed(*(f"10.{index}.0.0/24" for index in range(16)))
    assert len(list(rules(draft))) == 16 * 15
    many = routed(*(f"10.{index}.0.0/24" for index in range(16)))
    for index in range(16, 40):
        network = many.network(f"n{index}")
        network.give(f"10.{index}.0.0/24")
        many.machines[-1].sit(network)
    assert list(rules(many)) == []
    assert "needs 1560 rules" in many.notes[-1]


def test_members_without_an_address_give_way_where_a_subnet_is_full() -> None:
    draft = Draft("lab", "test")
    network = draft.network("tiny")
    network.give("10.0.0.0/30")
    members = [draft.machine(f"m{index}") for index in range(4)]
    for member in members[:3]:
        member.sit(network)
    members[3].sit(network, "10.0.0.2")
    settle(draft)
    assert [member.seats[0].silent for member in members] == [False, True, True, False]


def test_links_of_containerlab_are_seats_in_the_order_of_their_names() -> None:
    nodes = {name: {"kind": "linux"} for name in "abc"}
    links = [{"endpoints": ["a:eth10", "b:eth1"]}, {"endpoints": ["a:eth2", "c:eth1"]}]
    draft = Draft("lab", "test")
    containerlab.fill(draft, {"topology": {"nodes": nodes, "links": links}})
    assert wires(draft) == [["a-c", "a-b"], ["a-b"], ["a-c"]]


def test_kinds_groups_and_defaults_of_containerlab_are_inherited() -> None:
    topology = {
        "defaults": {"kind": "linux", "memory": "128mb", "cpu": 1},
        "kinds": {"linux": {"memory": "256mb"}},
        "groups": {"big": {"memory": "1gb"}},
        "nodes": {"a": {}, "b": {"group": "big"}, "c": {"group": "big", "memory": "2gb"}, "d": None},
    }
    draft = Draft("lab", "test")
    containerlab.fill(draft, {"topology": topology})
    assert [(machine.memory or 0) >> 20 for machine in draft.machines] == [256, 1024, 2048, 256]
    assert {machine.cpus for machine in draft.machines} == {1}


def test_more_than_a_lab_can_hold_is_refused_at_once() -> None:
    draft = Draft("lab", "topology")
    with pytest.raises(UsageError, match="more than 500 machines"):
        kypo.fill(draft, {"hosts": [{"name": "same"}] * 501})
    with pytest.raises(UsageError, match="more than 200 networks"):
        kypo.fill(Draft("lab", "topology"), {"hosts": [{"name": "a"}], "networks": [{"name": "n"}] * 201})


def test_disks_have_names_of_their_own() -> None:
    machine = Machine("m")
    for _ in range(17):
        machine.has_disk("Data_Disk with a long name", 1 << 30)
    assert list(machine.disks)[:3] == ["data-disk-with-a-lon", "disk-2", "disk-3"]
    assert len(machine.disks) == 16
    assert "not carried over: the disk" in machine.notes[0]
