"""What hub wires carry, datagram by datagram: the test sits where QEMU would, on the machines' ends."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labctl.host.files import remove_tree
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.qemu.hub import HubWires, hub_of
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.qmp import monitor
from tests.support import plans

pytestmark = pytest.mark.integration


def plan() -> LabPlan:
    machines = [
        plans.machine("a", plans.interface("a", "eth0", "lan"), plans.interface("a", "eth1", "dmz")),
        plans.machine("b", plans.interface("b", "eth0", "lan")),
        plans.machine("x", plans.interface("x", "eth0", "dmz")),
    ]
    return plans.lab([plans.network("lan"), plans.network("dmz")], machines)


class Plant:
    """Hubs with somebody on every port, named ``machine.device``."""

    def __init__(self, folder: Path) -> None:
        self.plan = plan()
        self.layout = Layout.of(folder)
        self.layout.prepare()
        self.wires = HubWires(self.layout, Runner())
        self.ends: dict[str, tuple[socket.socket, str]] = {}

    def plug(self) -> None:
        for machine in self.plan.machines:
            for device, netdev in self.wires.attach(self.plan, machine).netdevs.items():
                values = dict(word.partition("=")[::2] for word in netdev.split(","))
                end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                end.bind(values["local.path"])
                self.ends[f"{machine.name}.{device}"] = (end, values["remote.path"])

    def send(self, source: str) -> set[str]:
        """Send a frame; gives who got it."""
        text = os.urandom(64)
        end, hub = self.ends[source]
        end.sendto(text, hub)
        got = set()
        deadline = time.monotonic() + 0.3
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([e for e, _ in self.ends.values()], [], [], left)
            got |= {name for name, (e, _) in self.ends.items() if e in ready and e.recv(4096) == text}
        return got


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    found = Plant(tmp_path_factory.mktemp("hub") / "engine")
    try:
        found.wires.prepare(found.plan)
        found.plug()
        yield found
    finally:
        found.wires.destroy()
        assert found.wires.leftovers() == ()
        remove_tree(found.layout.runtime)
        for end, _ in found.ends.values():
            end.close()


def test_a_hub_joins_its_network_and_no_other(plant: Plant) -> None:
    assert plant.send("a.eth0") == {"b.eth0"}
    assert plant.send("x.eth0") == {"a.eth1"}


def test_ports_are_seen_on_their_networks(plant: Plant) -> None:
    assert sorted(plant.wires.ports(plant.plan).values()) == ["dmz", "dmz", "lan", "lan"]


def test_a_new_plan_moves_ports_while_others_stay(plant: Plant) -> None:
    moved = plans.machine("x", plans.interface("x", "eth0", "lan"))
    plant.wires.prepare(replace(plant.plan, machines=(*plant.plan.machines[:2], moved)))
    assert plant.send("a.eth0") == {"b.eth0", "x.eth0"}
    plant.wires.prepare(plant.plan)
    assert plant.send("a.eth0") == {"b.eth0"}


def test_what_somebody_plugged_into_a_hub_is_told(plant: Plant) -> None:
    """User-mode networking on one hub, and a cable between two."""
    assert plant.wires.openings(plant.plan) == ()
    lan, dmz = (hub_of(network.key) for network in plant.plan.networks)
    _tell(plant, "netdev_add", type="user", id="way")
    _tell(plant, "netdev_add", type="hubport", id="hub-way", hubid=lan, netdev="way")
    ((network, what),) = plant.wires.openings(plant.plan)
    assert network == "lan"
    assert "type=user" in what
    for name in ("hub-way", "way"):
        _tell(plant, "netdev_del", id=name)
    _tell(plant, "netdev_add", type="hubport", id="one", hubid=lan)
    _tell(plant, "netdev_add", type="hubport", id="two", hubid=dmz, netdev="one")
    assert sorted(network for network, _ in plant.wires.openings(plant.plan)) == ["dmz", "lan"]
    for name in ("two", "one"):
        _tell(plant, "netdev_del", id=name)
    assert plant.wires.openings(plant.plan) == ()


def test_a_hub_that_died_is_made_again(plant: Plant) -> None:
    next(plant.wires._hub.processes())[0].stop(grace=0)
    assert plant.wires.ports(plant.plan) == {}
    plant.wires.prepare(plant.plan)
    assert plant.send("a.eth0") == {"b.eth0"}
    assert len(list(plant.wires._hub.processes())) == 1


def test_the_folder_of_the_ends_is_private(plant: Plant) -> None:
    folder = Path(plant.ends["a.eth0"][1]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(len(hub.encode()) < 104 for _, hub in plant.ends.values())


def _tell(plant: Plant, command: str, **arguments: Any) -> None:
    with monitor(plant.wires._hub.socket) as session:
        session.execute(command, **arguments)
