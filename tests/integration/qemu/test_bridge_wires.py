"""What bridge wires carry and what they do not, frame by frame: the test sits where QEMU would, on the taps."""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.host.files import remove_tree
from labctl.host.folders import state_root
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.qemu import bridge, bridge_trial
from labctl.providers.qemu.bridge import BridgeWires
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.wires import port_of
from tests.support import plans

pytestmark = pytest.mark.integration

BROADCAST = "ff:ff:ff:ff:ff:ff"
MULTICAST = "01:00:5e:00:00:fb"
STRANGER = "52:54:00:00:00:99"
VNET_HEADER = bytes(10)


def plan() -> LabPlan:
    """a, b and c on ``lan``, with a sensor; x on ``dmz``; on ``pens`` p and q may talk to the router r only."""
    nics = {
        "a": [plans.interface("a", "eth0", "lan")],
        "b": [plans.interface("b", "eth0", "lan")],
        "c": [plans.interface("c", "eth0", "lan")],
        "sensor": [plans.interface("sensor", "eth0", "lan", promiscuous=True)],
        "x": [plans.interface("x", "eth0", "dmz")],
        "p": [plans.interface("p", "eth0", "pens", isolated=True)],
        "q": [plans.interface("q", "eth0", "pens", isolated=True)],
        "r": [plans.interface("r", "eth0", "pens")],
    }
    networks = [plans.network("lan"), plans.network("dmz"), plans.network("pens", peers=False)]
    return plans.lab(networks, [plans.machine(name, *interfaces) for name, interfaces in nics.items()])


class Plant:
    """Wires with somebody on every port."""

    def __init__(self, folder: Path, plan: LabPlan) -> None:
        self.plan = plan
        self.layout = Layout.of(folder)
        self.layout.prepare()
        self.wires = BridgeWires(self.layout, Runner(log=folder / "commands.log"))
        self.taps: dict[str, int] = {}

    def plug(self, *names: str) -> None:
        for name in names:
            (self.taps[name],) = self.wires.attach(self.plan, self.plan.machine(name)).fds
            os.set_blocking(self.taps[name], False)

    def helpers(self) -> int:
        """How many programs have made taps."""
        return (self.layout.workdir / "commands.log").read_text().count("netns_helper.py")

    def unplug(self, name: str) -> None:
        os.close(self.taps.pop(name))

    def mac(self, name: str) -> str:
        return self.plan.machine(name).interfaces[0].mac

    def send(self, source: str, target: str, *, forged: str | None = None) -> dict[str, int]:
        """Send a frame from a machine to a MAC; gives how many copies each other machine got."""
        text = os.urandom(16)
        addresses = bytes.fromhex((target + (forged or self.mac(source))).replace(":", ""))
        self.drain()
        os.write(self.taps[source], VNET_HEADER + addresses + b"\x88\xb5" + text + bytes(40))
        return {name: copies for name, frames in self.drain().items() if (copies := sum(text in f for f in frames))}

    def drain(self, seconds: float = 0.15) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {name: [] for name in self.taps}
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(list(self.taps.values()), [], [], left)
            for name, fd in self.taps.items():
                if fd in ready:
                    found[name].append(os.read(fd, 4096))
        return found


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    lack = bridge_trial.trial(Runner())
    assert lack == "", f"these tests need bridge wires: {lack}"
    found = Plant(tmp_path_factory.mktemp("wires") / "engine", plan())
    try:
        found.wires.prepare(found.plan)
        found.plug(*(machine.name for machine in found.plan.machines))
        yield found
    finally:
        found.wires.destroy()
        assert found.wires.leftovers() == ()
        remove_tree(found.layout.runtime)
        for fd in found.taps.values():
            os.close(fd)


def test_unicast_reaches_its_target_and_the_sensor_only(plant: Plant) -> None:
    assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}
    assert plant.send("b", plant.mac("a")) == {"a": 1, "sensor": 1}


def test_unicast_to_nobody_reaches_the_sensor_only(plant: Plant) -> None:
    assert plant.send("a", STRANGER) == {"sensor": 1}


@pytest.mark.parametrize("target", [BROADCAST, MULTICAST])
def test_what_is_for_everybody_reaches_everybody_on_the_network_once(plant: Plant, target: str) -> None:
    assert plant.send("a", target) == {"b": 1, "c": 1, "sensor": 1}


def test_frames_to_and_from_the_sensor_come_once(plant: Plant) -> None:
    assert plant.send("a", plant.mac("sensor")) == {"sensor": 1}
    assert plant.send("sensor", plant.mac("a")) == {"a": 1}


def test_networks_do_not_meet(plant: Plant) -> None:
    assert plant.send("a", plant.mac("x")) == {"sensor": 1}
    assert plant.send("x", BROADCAST) == {}


def test_members_without_peers_reach_routers_only(plant: Plant) -> None:
    assert plant.send("p", plant.mac("q")) == {}
    assert plant.send("p", BROADCAST) == {"r": 1}
    assert plant.send("p", plant.mac("r")) == {"r": 1}
    assert plant.send("r", plant.mac("p")) == {"p": 1}
    assert plant.send("r", BROADCAST) == {"p": 1, "q": 1}


def test_forged_sources_go_nowhere(plant: Plant) -> None:
    """A guest cannot take another's place on the switch, nor reach a peer under a router's address."""
    assert plant.send("c", plant.mac("b"), forged=plant.mac("a")) == {}
    assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}
    assert plant.send("b", plant.mac("a")) == {"a": 1, "sensor": 1}
    assert plant.send("p", plant.mac("q"), forged=plant.mac("r")) == {}


def test_the_host_is_silent_and_has_nothing_there(plant: Plant) -> None:
    plant.drain()
    assert not any(plant.drain(1.0).values())
    shown = Runner().run([*_namespace(plant), "ip", "-brief", "address"]).text
    assert {line.split()[0]: line.split()[2:] for line in shown.splitlines()} == {
        line.split()[0]: [] for line in shown.splitlines()
    }
    routes = [
        Runner().run([*_namespace(plant), "ip", family, "route", "show", "table", "all"]).text
        for family in ("-4", "-6")
    ]
    assert routes == ["", ""]


def test_taps_are_seen_on_their_networks(plant: Plant) -> None:
    ports = plant.wires.ports(plant.plan)
    assert ports == {port_of(m.name, "eth0"): m.interfaces[0].network for m in plant.plan.machines}


def test_a_machine_that_comes_back_is_joined_again(plant: Plant) -> None:
    for name in ("b", "sensor"):
        plant.unplug(name)
    assert plant.send("a", plant.mac("b")) == {}
    plant.plug("b", "sensor")
    assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}
    assert plant.send("b", BROADCAST) == {"a": 1, "c": 1, "sensor": 1}


def test_two_processes_cannot_hold_one_port(plant: Plant) -> None:
    with pytest.raises(Exception, match="wires could not be made"):
        plant.wires.attach(plant.plan, plant.plan.machine("a"))
    assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}


@pytest.mark.parametrize(("most", "calls"), [(250, 1), (3, 3)])
def test_machines_that_start_together_are_plugged_in_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, calls: int
) -> None:
    """By as few programs as can carry the taps, and what nobody asks for is gone afterwards."""
    monkeypatch.setattr(bridge, "_MOST_TAPS", most)
    found = Plant(tmp_path / "engine", plan())
    try:
        found.wires.prepare(found.plan)
        before = found.helpers()
        with found.wires.starting(found.plan.machines):
            found.plug("a", "b", "c", "sensor", "p", "q", "r")
            assert found.helpers() - before == 2 * calls, "the second gives the sensor its copies"
            assert len(found.wires.ports(found.plan)) == 8
        assert found.send("a", found.mac("b")) == {"b": 1, "sensor": 1}
        assert found.send("p", found.mac("q")) == {}
        assert port_of("x", "eth0") not in found.wires.ports(found.plan)
        found.plug("x")
        assert found.send("a", BROADCAST) == {"b": 1, "c": 1, "sensor": 1}
    finally:
        found.wires.destroy()
        for name in list(found.taps):
            found.unplug(name)
        remove_tree(found.layout.runtime)


def test_one_that_cannot_be_plugged_in_keeps_no_other_from_it(tmp_path: Path) -> None:
    found = Plant(tmp_path / "engine", plan())
    try:
        found.wires.prepare(found.plan)
        found.plug("b")
        with found.wires.starting(found.plan.machines):
            found.plug("a", "sensor")
            with pytest.raises(HostError, match="wires could not be made"):
                found.wires.attach(found.plan, found.plan.machine("b"))
        assert found.send("a", found.mac("b")) == {"b": 1, "sensor": 1}
    finally:
        found.wires.destroy()
        for name in list(found.taps):
            found.unplug(name)
        remove_tree(found.layout.runtime)


class Trial:
    """Asks whether there can be bridge wires, and counts the programs that this takes."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "trial.log"

    def ask(self) -> tuple[str, int]:
        self.log.write_text("")
        return bridge_trial.lack(Runner(log=self.log)), len(self.log.read_text().splitlines())


def test_that_there_can_be_bridges_is_found_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(tmp_path)
    assert trial.ask() == ("", 2)
    assert trial.ask() == ("", 0)
    monkeypatch.setattr(bridge_trial, "boot_id", lambda: "another boot")
    assert trial.ask() == ("", 2)


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"key": null}'])
def test_a_damaged_note_of_bridges_costs_a_trial(tmp_path: Path, note: str) -> None:
    trial = Trial(tmp_path)
    trial.ask()
    (state_root() / "bridges.json").write_text(note)
    assert trial.ask() == ("", 2)


def test_wires_that_cannot_be_made_after_all_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``ip`` that fails comes in between; it stands where the other one stood, so its place does not tell."""
    trial = Trial(tmp_path)
    program = tmp_path / "ip"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ip")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert trial.ask() == ("", 2)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert trial.ask() == ("", 0)
    found = Plant(tmp_path / "engine", plan())
    try:
        with pytest.raises(HostError, match="wires could not be made"):
            found.wires.prepare(found.plan)
    finally:
        found.wires.destroy()
        remove_tree(found.layout.runtime)
    lack, programs = trial.ask()
    assert lack != "" and programs == 2
    assert trial.ask()[1] == 2, "that there can be none is not noted"


def test_prepare_again_changes_nothing_and_removes_what_is_not_planned(plant: Plant) -> None:
    plant.wires.prepare(plant.plan)
    assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}
    more = replace(plant.plan, networks=(*plant.plan.networks, plans.network("extra")))
    plant.wires.prepare(more)
    assert "br" + plans.network("extra").key in _bridges(plant)
    plant.wires.prepare(plant.plan)
    assert "br" + plans.network("extra").key not in _bridges(plant)


def test_what_somebody_plugged_in_is_seen_and_removed(plant: Plant) -> None:
    """As a cable between two wires: broadcasts cross it."""
    lan, dmz = (bridge.bridge_of(network) for network in plant.plan.networks[:2])
    Runner().run([*_namespace(plant), "ip", "link", "add", "one", "master", lan, "type", "veth", "peer", "two"])
    Runner().run([*_namespace(plant), "ip", "link", "set", "two", "master", dmz])
    for device in ("one", "two"):
        Runner().run([*_namespace(plant), "ip", "link", "set", device, "up"])
    assert plant.send("x", BROADCAST) == {"a": 1, "b": 1, "c": 1, "sensor": 1}
    found = plant.wires.ports(plant.plan)
    assert {name: found.pop(name) for name in ("one", "two")} == {"one": "lan", "two": "dmz"}
    plant.wires.prepare(plant.plan)
    assert plant.wires.ports(plant.plan) == found
    assert plant.send("x", BROADCAST) == {}
    assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}


def test_an_instance_has_a_namespace_of_its_own(plant: Plant, tmp_path: Path) -> None:
    other = Plant(tmp_path / "engine", plan())
    try:
        other.wires.prepare(other.plan)
        other.plug("b")
        plant.drain()
        assert plant.send("a", BROADCAST) == {"b": 1, "c": 1, "sensor": 1}
        assert not any(other.drain().values())
    finally:
        other.wires.destroy()
        other.unplug("b")
        remove_tree(other.layout.runtime)
    assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}


def test_wires_need_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user namespace around the network's gives its owner the rights inside and nowhere else."""
    monkeypatch.setattr(bridge_trial, "needs_user_namespace", lambda: True)
    assert bridge_trial.trial(Runner()) == ""
    plant = Plant(tmp_path / "engine", plan())
    try:
        plant.wires.prepare(plant.plan)
        plant.plug("a", "b", "c", "sensor", "p", "q", "r")
        assert plant.send("a", plant.mac("b")) == {"b": 1, "sensor": 1}
        assert plant.send("p", BROADCAST) == {"r": 1}
        assert plant.wires._namespace().user  # type: ignore[union-attr]
    finally:
        plant.wires.destroy()
        remove_tree(plant.layout.runtime)
        for name in list(plant.taps):
            plant.unplug(name)


def _namespace(plant: Plant) -> list[str | int]:
    found = plant.wires._namespace()
    assert found is not None
    return found.enter()


def _bridges(plant: Plant) -> str:
    return Runner().run([*_namespace(plant), "ip", "-brief", "link", "show", "type", "bridge"]).text
