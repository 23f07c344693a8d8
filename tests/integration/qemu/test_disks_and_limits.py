"""Disks, and a host that has too little of something: clear errors before or instead of half-made things."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.base import BootImage, Job
from labctl.providers.qemu import disks
from labctl.providers.qemu import record as records
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.provider import QemuProvider
from labctl.spec.model import DiskSpec
from tests.support import plans

pytestmark = pytest.mark.integration

IN_A_FULL_FOLDER = """
import sys
from pathlib import Path
from labctl.errors import HostError
from labctl.host.files import append, write_atomic
from labctl.host.runner import Runner
from labctl.providers.base import BootImage
from labctl.providers.qemu import disks, record
from labctl.providers.qemu.layout import Layout
from tests.support import plans
folder = Path(sys.argv[1])
layout = Layout.of(folder / "engine")
image = BootImage("i", "d", Path(sys.argv[2]))
try:
    disks.create(layout, plans.machine("web"), image, runner=Runner(log=folder / "log"))
except HostError as error:
    print(error.brief)
noted = record.read(layout, "web")
print("whole" if noted and noted.disk else "no disk")
"""


@pytest.fixture
def image(tmp_path: Path) -> BootImage:
    disk = tmp_path / "a, b.qcow2"
    Runner().run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"])
    return BootImage("i", "d", disk)


def a_plan(**changes: object) -> LabPlan:
    nic = plans.interface("web", "eth0", "lan", "10.1.0.1/24")
    return plans.lab([plans.network("lan")], [plans.machine("web", nic, **changes)])


def test_overlay_and_extra_disks(tmp_path: Path, image: BootImage) -> None:
    layout = Layout.of(tmp_path / "engine")
    machine = plans.machine("web", disks=(DiskSpec("data", 8 << 20),))
    record = disks.create(layout, machine, image, runner=Runner())
    assert record.disk == disks.key(machine, image) and records.read(layout, "web") == record
    shown = [
        json.loads(Runner().run(["qemu-img", "info", "--output=json", path]).stdout)
        for path in (layout.machine("web").overlay, layout.machine("web").disk("data"))
    ]
    assert shown[0]["full-backing-filename"] == str(image.disk) and shown[0]["backing-filename-format"] == "qcow2"
    assert [value["virtual-size"] for value in shown] == [64 << 20, 8 << 20]


def test_full_disk_is_named_and_leaves_no_half_disk(tmp_path: Path, image: BootImage, repository: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    script = f'mount -t tmpfs -o size=64k none \'{full}\' && exec "$0" -c "$1" \'{full}\' "$2"'
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(
        [*shell, sys.executable, IN_A_FULL_FOLDER, str(image.disk)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("the disk is full: cannot make")
    assert done.stdout.splitlines()[1] == "no disk"


def test_too_little_disk_is_refused_before_anything_is_made(
    tmp_path: Path, image: BootImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 1 << 20))
    refuse(tmp_path, a_plan(), image, "the disk is full")


@pytest.mark.parametrize(
    ("wires", "plan", "what"),
    [
        ("hub", replace(a_plan(), networks=(plans.network("lan", peers=False),)), "peers: false"),
        (
            "hub",
            plans.lab(
                [plans.network("lan")], [plans.machine("s", plans.interface("s", "eth0", "lan", promiscuous=True))]
            ),
            "promiscuous",
        ),
        ("hub", replace(a_plan(), networks=(plans.network("lan", egress="nat"),)), "egress: nat"),
    ],
)
def test_what_wires_cannot_hold_is_refused(
    tmp_path: Path, image: BootImage, wires: str, plan: LabPlan, what: str
) -> None:
    refuse(tmp_path, replace(plan, settings={"qemu": {"wires": wires}}), image, what)


def refuse(tmp_path: Path, plan: LabPlan, image: BootImage, words: str) -> None:
    """``up`` must fail with these words and leave no machine."""
    provider = QemuProvider(tmp_path / "engine")
    names = [machine.name for machine in plan.machines]
    try:
        with pytest.raises(HostError, match=words):
            provider.up(Job(plan, dict.fromkeys(names, "create"), dict.fromkeys(names, image), tmp_path))
        assert {status.state for status in provider.observe(plan).machines} == {"absent"}
    finally:
        provider.destroy()
