"""A machine whose settings somebody has lost, in a place where no other machine keeps VirtualBox's service running."""

from __future__ import annotations

import shutil

import psutil
import pytest

from labctl.providers.base import BootImage
from tests.virtualbox.driven import add_box, driven, traces, vms
from tests.virtualbox.harness import VirtualBoxHost

# The first test may have to build the tree.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.engines,
    pytest.mark.timeout(1200),
]

ONE = "networks: {lan: {subnet: 10.97.0.0/24}}\nmachines: {one: {networks: [lan]}}\n"


def test_a_machine_whose_settings_are_lost_can_be_destroyed(virtualbox: VirtualBoxHost, empty_box: BootImage) -> None:
    """VirtualBox knows its UUID only, and none of its files: those are whoever's who lost the settings."""
    add_box(virtualbox, empty_box)
    lab = driven(virtualbox, "lost", ONE)
    lab.up()
    lab.poweroff("one")
    folder = lab.host.home / "VirtualBox VMs" / lab.full_name("one")
    for file in folder.glob("*.vbox*"):
        file.unlink()
    service = [p for p in psutil.Process(lab.host.pid).children(recursive=True) if p.name() == "VBoxSVC"]
    _gone, alive = psutil.wait_procs(service, timeout=30)  # it ends when nobody has asked it anything for a while
    assert alive == []
    assert "<inaccessible>" in vms(lab.host)
    lab.labctl("destroy", "--yes")
    assert "<inaccessible>" not in vms(lab.host)
    for disk in folder.glob("Snapshots/*"):
        lab.manage("closemedium", "disk", str(disk), "--delete")
    shutil.rmtree(folder)
    assert traces(virtualbox, "lost") == []
