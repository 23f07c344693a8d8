"""QEMU's command line: nothing from a spec can become an option, and nothing is left to defaults."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.plan.model import LabPlan
from labctl.providers.base import BootImage
from labctl.providers.qemu.argv import Seat, machine_argv, option
from labctl.providers.qemu.layout import MachineFiles
from labctl.spec.model import DiskSpec
from tests.support import plans

pytestmark = pytest.mark.unit

IMAGE = BootImage("debian-12", "d" * 64, Path("/i/disk"), Path("/i/kernel"), Path("/i/initrd"), "console=ttyS0 quiet")


def a_plan(**changes: object) -> LabPlan:
    nic = plans.interface("web", "eth0", "lan", "10.1.0.1/24")
    return plans.lab([plans.network("lan")], [plans.machine("web", nic, **changes)])


def argv(plan: LabPlan, image: BootImage = IMAGE, *, accelerator: str = "tcg", folder: str = "/s/web") -> list[str]:
    files = MachineFiles(Path(folder), Path("/r/web"))
    seat = Seat(accelerator, 22022, files, {"eth0": "tap,id=net-eth0,fd=5,vhost=off"}, "labctl-0011:web")
    return list(machine_argv(plan, plan.machines[0], image, seat))


def value(words: list[str], name: str, having: str = "") -> str:
    """The value of the one option of this name that contains ``having``."""
    (found,) = [after for word, after in itertools.pairwise(words) if word == name and having in after]
    return found


def test_commas_in_values_are_doubled() -> None:
    assert option("socket", path="a,server=off") == "socket,path=a,,server=off"
    assert option("x", a_b=1, c__d=2) == "x,a-b=1,c.d=2"


@pytest.mark.parametrize("folder", ["/s/we,readonly=on", "/s/#{x} $(y) 'z'\"", "/s/new\nline"])
def test_hostile_folders_stay_values(folder: str) -> None:
    words = argv(a_plan(), folder=folder)
    assert value(words, "-pidfile") == f"{folder}/qemu.pid"
    assert value(words, "-blockdev").endswith(f"file.filename={folder.replace(',', ',,')}/disk.qcow2")
    assert len(words) == len(argv(a_plan()))


def test_command_line_of_an_image_is_one_word() -> None:
    words = argv(a_plan(), replace(IMAGE, cmdline="quiet -append x, y"))
    assert value(words, "-append") == "quiet -append x, y nowatchdog"


def test_management_is_closed_but_for_one_port_of_the_loopback() -> None:
    parts = value(argv(a_plan()), "-netdev", "user").split(",")
    assert {"restrict=on", "ipv6=off", "hostfwd=tcp:127.0.0.1:22022-10.0.2.15:22"} <= set(parts)
    assert not [
        part
        for part in parts
        if part.split("=")[0] in ("tftp", "smb", "guestfwd", "hostname", "domainname", "bootfile")
    ]
    assert sum(part.startswith("hostfwd=") for part in parts) == 1


def test_nothing_is_left_to_defaults() -> None:
    words = argv(a_plan())
    assert {"-nodefaults", "-no-user-config"} <= set(words)
    assert value(words, "-sandbox").startswith("on,")
    assert value(words, "-display") == "none"
    assert value(words, "-name") == "labctl-0011:web"
    assert all("romfile=" in word for word in words if word.startswith("virtio-net-pci"))


def test_disks_have_short_node_names_and_their_own_serials() -> None:
    disks = (DiskSpec("a-name-that-is-longer-than-a-node-name-may-be", 1 << 20), DiskSpec("b", 1 << 20))
    words = argv(a_plan(disks=disks))
    nodes = [part for word in words for part in word.split(",") if part.startswith("node-name=")]
    assert nodes == ["node-name=disk0", "node-name=disk1", "node-name=disk2"]
    assert value(words, "-device", "drive=disk2").endswith("serial=b")


def test_image_with_a_boot_loader_boots_itself() -> None:
    words = argv(a_plan(), replace(IMAGE, kernel=None, initrd=None))
    assert "-kernel" not in words and "-append" not in words


def test_emulation_is_limited_and_acceleration_gets_the_real_processor() -> None:
    assert "tb-size=" in value(argv(a_plan()), "-accel")
    assert value(argv(a_plan(), accelerator="kvm"), "-accel") == "kvm"
    assert value(argv(a_plan(), accelerator="kvm"), "-cpu") == "host"


def test_memory_is_rounded_up_to_whole_mebibytes() -> None:
    assert value(argv(a_plan(memory=(128 << 20) + 1)), "-m") == "size=129M"
