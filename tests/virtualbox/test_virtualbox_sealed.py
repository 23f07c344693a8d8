"""Sealed labs and plain Vagrant: what it makes of one that is handed over sealed, at the first start and later.

And what labctl says and does where plain Vagrant opens a machine of a lab that labctl has sealed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import psutil
import pytest

from labctl.errors import ExitCode
from labctl.providers.base import BootImage
from tests.virtualbox.driven import Driven, driven, traces
from tests.virtualbox.harness import VirtualBoxHost
from tests.virtualbox.lab import Lab, rendered

# The first test may have to build the tree.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.engines,
    pytest.mark.timeout(1200),
]

SPEC = """\
version: 1
name: shut
seal: true
defaults: {image: debian-12, memory: 64 MiB}
networks:
  outside: {subnet: 203.0.113.0/24, egress: nat}
machines:
  one:
    networks: {outside: auto}
    disks: {data: 100 MiB}
"""


@pytest.fixture(scope="module")
def lab(virtualbox: VirtualBoxHost, empty_box: BootImage) -> Lab:
    made = rendered(virtualbox, empty_box, SPEC)
    made.vagrant("up", "--provider=virtualbox")
    return made


def as_planned(lab: Lab) -> None:
    """The management cable is out, the way out is there, nothing else is open."""
    assert [(nic.wire, nic.linked) for nic in lab.nics("one")] == [("management", False), ("outside", True)]
    assert lab.drift("one") == ()
    network = lab.plan.network("outside")
    (found,) = lab.manage.nat_networks()
    assert (found.name, found.subnet, found.dhcp, found.ipv6) == (network.wire, str(network.subnet), False, False)


def test_it_ends_sealed(lab: Lab) -> None:
    assert lab.details("one").state == "running"
    as_planned(lab)


def test_an_extra_disk_is_there(lab: Lab) -> None:
    said = lab.host.run("VBoxManage", "list", "hdds")
    assert said.count("/labctl.shut.default.one/data.vdi\n") == 1
    assert "100 MBytes" in said


def test_it_is_opened_for_vagrant_and_sealed_again(lab: Lab) -> None:
    lab.vagrant("reload")
    as_planned(lab)


def test_a_snapshot_of_an_open_moment_is_sealed_when_it_is_restored(lab: Lab) -> None:
    lab.manage.set_link(lab.uuid("one"), 1, True)
    lab.vagrant("snapshot", "save", "one", "open")
    lab.manage.set_link(lab.uuid("one"), 1, False)
    lab.vagrant("snapshot", "restore", "one", "open")
    as_planned(lab)
    lab.vagrant("snapshot", "delete", "one", "open")


def server_ends(lab: Lab) -> None:
    """Wait until VirtualBox's server has gone, as it does where nobody asks it for anything and no machine runs."""
    deadline = time.monotonic() + 60
    while any(process.name() == "VBoxSVC" for process in psutil.Process(lab.host.pid).children(recursive=True)):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_the_loopback_stays_closed_when_virtualbox_has_forgotten_that_it_is(lab: Lab) -> None:
    """Its server reads settings that it has written itself otherwise than it meant them; seen with 7.2.22."""
    lab.vagrant("snapshot", "save", "one", "kept")
    lab.vagrant("snapshot", "restore", "one", "kept", "--no-start")
    server_ends(lab)
    lab.vagrant("up")  # goes on with the memory that was saved
    as_planned(lab)
    uuid = lab.uuid("one")
    lab.manage.poweroff(uuid)
    (kept,) = lab.manage.snapshots(uuid)
    lab.manage.snapshot_restore(uuid, kept.uuid)
    server_ends(lab)
    lab.manage.start(uuid)
    as_planned(lab)
    lab.vagrant("snapshot", "delete", "one", "kept")


def test_the_way_out_goes_with_the_last_machine(lab: Lab) -> None:
    lab.vagrant("destroy", "--force")
    assert lab.manage.nat_networks() == ()
    assert "data.vdi" not in lab.host.run("VBoxManage", "list", "hdds")


@pytest.fixture
def sealed(place: VirtualBoxHost, here: None) -> Iterator[Driven]:
    """A lab that was open when plain Vagrant took a snapshot called ``early``, and that labctl has sealed since."""
    made = driven(place, "again", "networks: {lan: {subnet: 10.95.0.0/24}}\nmachines: {one: {networks: [lan]}}\n")
    made.up()
    plain_vagrant(made, "snapshot", "save", "one", "early")
    made.labctl("seal")
    made.snapshot("save", "mine")
    assert management_cable(made) is False and made.findings() == ()
    yield made
    made.labctl("destroy", "--yes")
    assert traces(place, "again") == []


def plain_vagrant(lab: Driven, *words: str) -> None:
    lab.host.run("vagrant", *words, cwd=lab.running().folder.engine / "project")


def management_cable(lab: Driven) -> bool:
    return lab.adapters("one")[1].connected


@pytest.mark.slow
def test_a_snapshot_from_before_opens_a_machine_and_labctl_says_so_and_closes_it(sealed: Driven) -> None:
    for closing in ("up", "seal", "restore"):
        plain_vagrant(sealed, "snapshot", "restore", "one", "early", "--no-provision")
        assert management_cable(sealed) is True
        report = json.loads(sealed.labctl("verify", "--quiet", "--json", code=ExitCode.FAIL))
        found = [
            (finding["kind"], finding["machine"]) for finding in report["host_evidence"] if finding["verdict"] == "FAIL"
        ]
        assert found == [("unsealed", "one")]
        assert sealed.json("status")["faults"] == ["one is open in a sealed lab"]
        if closing == "restore":
            sealed.snapshot("restore", "mine")
        else:
            sealed.labctl(closing)
        assert management_cable(sealed) is False, closing
        assert sealed.findings() == ()
        assert sealed.json("status")["state"] == "up, sealed"
