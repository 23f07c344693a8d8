"""A lab that is handed over sealed and has a way out: what plain Vagrant makes of it, at the first start and later."""

from __future__ import annotations

import pytest

from labctl.providers.base import BootImage
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


def test_the_way_out_goes_with_the_last_machine(lab: Lab) -> None:
    lab.vagrant("destroy", "--force")
    assert lab.manage.nat_networks() == ()
    assert "data.vdi" not in lab.host.run("VBoxManage", "list", "hdds")
