"""The shipped lab with a firewall on a real VirtualBox, from ``labctl up`` to the last trace.

Its file is taken as it is but for the images: all five machines start from the box with the empty disk. Nobody answers
in them, so what Vagrant would tell guests is written down, and nothing here says anything of the traffic in the lab.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import ExitCode
from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.spec.load import load
from tests.virtualbox.driven import BOX, Adapter, Driven, masters, traces, vms
from tests.virtualbox.harness import VirtualBoxHost

# The first test may have to build the tree.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("here"),
]

SHIPPED = Path(__file__).parents[2] / "labs/dmz"
MACHINES = ("attacker", "fw", "web", "office-1", "office-2")


@pytest.fixture(scope="module")
def lab(place: VirtualBoxHost) -> Driven:
    """The lab after ``labctl up``."""
    folder = place.home / "labs/dmz"
    shutil.copytree(SHIPPED, folder)
    file = folder / "lab.yaml"
    text, images = re.subn(r"^( +image:) \S+$", rf"\1 {BOX}", file.read_text(), flags=re.MULTILINE)
    assert images == 3
    file.write_text(text)
    made = Driven(place, folder, "dmz")
    assert made.up() == dict.fromkeys(MACHINES, "create")
    return made


@pytest.fixture(scope="module")
def shipped() -> LabPlan:
    """The plan of the lab's own file."""
    return build(load(SHIPPED / "lab.yaml"), provider="virtualbox")


def adapters(lab: Driven) -> dict[str, dict[int, Adapter]]:
    return {name: lab.adapters(name) for name in MACHINES}


def planned(lab: Driven, *, sealed: bool = False) -> dict[str, dict[int, Adapter]]:
    """What ``adapters`` must give. sealed: the cable of each machine's first adapter, and no other, is out."""
    found = {name: lab.planned(name) for name in MACHINES}
    if sealed:
        for slots in found.values():
            slots[1] = replace(slots[1], connected=False)
    return found


def test_the_plan_is_that_of_the_shipped_file(lab: Driven, shipped: LabPlan) -> None:
    """Wires, addresses, rules and expected flows: only the images are others."""
    machines = tuple(replace(machine, image=shipped.machine(machine.name).image) for machine in lab.plan.machines)
    assert replace(lab.plan, machines=machines) == shipped


def test_every_adapter_is_where_the_plan_says(lab: Driven, shipped: LabPlan) -> None:
    assert adapters(lab) == planned(lab)
    wires = {network.name: network.wire for network in shipped.networks}
    seats = {
        ("attacker", 2): "outside",
        ("fw", 2): "outside",
        ("fw", 3): "dmz",
        ("fw", 4): "lan",
        ("web", 2): "dmz",
        ("office-1", 2): "lan",
        ("office-2", 2): "lan",
    }
    found = {
        (name, slot): adapter.attachment
        for name in MACHINES
        for slot, adapter in lab.adapters(name).items()
        if slot > 1
    }
    assert found == {seat: f"Internal Network '{wires[network]}'" for seat, network in seats.items()}
    listed = lab.manage("list", "intnets")
    assert sorted(re.findall(r"^Name: +(.*)$", listed, re.MULTILINE)) == sorted(wires.values())
    assert "Name:" not in lab.manage("list", "natnets")


def test_hardware_and_ports_are_those_of_the_plan(lab: Driven, shipped: LabPlan) -> None:
    for machine in shipped.machines:
        assert lab.fact(machine.name, "Memory size") == "256MB"
        assert lab.fact(machine.name, "Number of CPUs") == "1"
        assert f'natnet1="{shipped.management.subnet}"' in lab.shown(machine.name, "--machinereadable")
    rules = {name: lab.rules(name) for name in MACHINES}
    for found in rules.values():
        assert [(rule.protocol, rule.host_ip, rule.guest_port) for rule in found] == [("tcp", "127.0.0.1", 22)]
    assert len({rule.host_port for found in rules.values() for rule in found}) == len(MACHINES)


def test_the_web_server_was_told_to_become_one(lab: Driven) -> None:
    notes = {
        name: [json.loads(line) for line in (lab.host.guest_notes / f"{name}.jsonl").read_text().splitlines()]
        for name in MACHINES
    }
    uploads = {
        name: [base64.b64decode(note["content"]).decode() for note in told if note.get("content")]
        for name, told in notes.items()
    }
    page = (SHIPPED / "files/index.html").read_text()
    assert {name for name, told in uploads.items() if page in told} == {"web"}
    assert {name for name, told in uploads.items() if "systemctl enable --now nginx" in "".join(told)} == {"web"}
    assert {name for name, told in uploads.items() if "nginx-light" in "".join(told)} == {"web"}
    assert {name for name, told in uploads.items() if "chain forward" in "".join(told)} == {"fw"}


def test_the_hosts_side_finds_nothing_and_no_flow_counts_as_proven(lab: Driven) -> None:
    """Nobody answers in the machines: that something is silent is no proof."""
    assert lab.states() == dict.fromkeys(MACHINES, "running")
    report = json.loads(lab.labctl("verify", "--quiet", "--json", code=ExitCode.INCONCLUSIVE))
    assert {finding["verdict"] for finding in report["host_evidence"]} <= {"PASS"}
    assert {flow["verdict"] for flow in report["flows"]} == {"INCONCLUSIVE"}
    ends = {(flow.source, flow.target) for flow in lab.plan.flows if flow.target != "host"}
    assert {(flow["source"], flow["target"]) for flow in report["flows"]} == ends  # the place has no address of its own


def test_a_checkpoint_of_the_running_lab_brings_all_of_it_back(lab: Driven) -> None:
    saved = json.loads(lab.snapshot("save", "clean", "--json"))
    assert saved["machines"] == dict.fromkeys(MACHINES, "running")
    assert lab.states() == dict.fromkeys(MACHINES, "running")
    before = {name: lab.fact(name, "UUID") for name in MACHINES}
    since = {name: lab.started(name) for name in MACHINES}
    # one has another wire, one has no plug, one does not run any more
    lab.manage("controlvm", lab.full_name("web"), "nic2", "intnet", lab.plan.network("lan").wire)
    lab.manage("controlvm", lab.full_name("fw"), "setlinkstate4", "off")
    lab.poweroff("office-1")
    assert adapters(lab) != planned(lab)
    lab.snapshot("restore", "clean")
    assert lab.states() == dict.fromkeys(MACHINES, "running")
    assert {name: lab.fact(name, "UUID") for name in MACHINES} == before
    assert not {name for name in MACHINES if lab.started(name) == since[name]}, "some were not put back"
    assert adapters(lab) == planned(lab)
    assert lab.findings() == ()


def test_a_sealed_lab_has_every_management_cable_out_and_no_other(lab: Driven) -> None:
    lab.labctl("seal")
    assert adapters(lab) == planned(lab, sealed=True)
    assert lab.findings() == ()
    assert lab.json("status")["state"] == "up, sealed"
    # saved while the lab was open, down and up in between: sealed it stays
    lab.snapshot("restore", "clean")
    assert adapters(lab) == planned(lab, sealed=True)
    lab.labctl("down")
    assert lab.states() == dict.fromkeys(MACHINES, "stopped")
    lab.up()
    assert adapters(lab) == planned(lab, sealed=True)
    assert lab.findings() == ()
    lab.labctl("unseal")
    assert adapters(lab) == planned(lab)
    assert lab.findings() == ()


def test_destroy_leaves_nothing_of_it(lab: Driven) -> None:
    lab.snapshot("save", "last")
    lab.labctl("destroy", "--yes")
    assert traces(lab.host, "dmz") == []
    assert lab.manage("list", "runningvms").count('"') == 0
    assert vms(lab.host) == masters(lab.host) and len(vms(lab.host)) == 1
