"""Machines that start as copies of a guest that has booted once: what they share, and what they must not share."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from labctl.host.folders import cache_root
from tests.support.command import Labctl
from tests.support.inside import NOBODY_WAITS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LAB = """\
version: 1
name: copies
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  wire: {subnet: 10.9.0.0/28}
machines:
  one: {networks: {wire: 10.9.0.1}}
  two: {networks: {wire: 10.9.0.2}}
  disk:
    networks: {wire: 10.9.0.3}
    disks: {data: 16 MiB}
"""
# What is asked of a guest about itself, a line each.
IDENTITY = (
    "hostname; cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /proc/sys/kernel/random/uuid; "
    "head -c 16 /dev/urandom | od -An -tx1; cat /sys/class/net/mgmt/address /sys/class/net/eth0/address; "
    "cat /var/lib/systemd/random-seed | od -An -tx1"
)
# What those who waited in a copy have said at last, and how many of them wait still.
TOLD = "tail -n 1 /run/labctl/said; cat /proc/[0-9]*/comm | grep -c -x -e perl -e ip"
# labctl that is killed in the middle of what it tells a copy.
CUT_SHORT = """
import os, signal
from labctl.providers.agent import GuestAgent
real = GuestAgent.write_over
def half(self, path, content):
    real(self, path, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
GuestAgent.write_over = half
from labctl.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def copying(labctl: Labctl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labctl]:
    """labctl with a cache of its own, in which there are images and no templates."""
    cache = tmp_path_factory.mktemp("cache")
    labctl.run("image", "prepare", write_lab(labctl.home / "prepared"))
    (cache / "images").symlink_to(cache_root() / "images")
    command = replace(labctl, variables={"LABCTL_CACHE_DIR": str(cache)})
    yield command
    command.destroy_all()


def write_lab(folder: Path, text: str = LAB) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "lab.yaml").write_text(text)
    return folder


def templates(copying: Labctl) -> list[Path]:
    folder = Path(copying.variables["LABCTL_CACHE_DIR"]) / "templates"
    return sorted(path for path in folder.glob("*") if not path.name.startswith(".")) if folder.exists() else []


def builders() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any("labctl-template:" in word for word in process.info["cmdline"] or [])
    ]


def record(copying: Labctl, machine: str) -> Any:
    return json.loads((copying.state / "copies/default/engine/machines" / machine / "machine.json").read_text())


def wait_for_template(copying: Labctl) -> psutil.Process:
    deadline = time.monotonic() + 60
    cache = copying.variables["LABCTL_CACHE_DIR"]
    while True:
        for process in builders():
            if any(cache in word for word in process.cmdline()):
                return process
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_labctl_that_is_killed_takes_its_half_template_along(copying: Labctl) -> None:
    lab = write_lab(copying.home / "copies")
    with copying.start("up", lab) as killed:
        builder = wait_for_template(copying)
        time.sleep(2)
        killed.kill()
    psutil.wait_procs([builder], timeout=10)
    assert not builder.is_running()
    assert templates(copying) == []


def test_copies_share_nothing_that_must_differ(copying: Labctl) -> None:
    lab = copying.home / "copies"
    copying.run("up", lab)
    assert len(templates(copying)) == 1, "both have the same image and shape; the third has a disk of its own"
    assert [record(copying, name)["copied"] for name in ("one", "two", "disk")] == [True, True, False]
    one, two = (copying.run("exec", lab, name, "--", "sh", "-c", IDENTITY).splitlines() for name in ("one", "two"))
    assert len(one) == len(two) >= 7
    assert [a for a, b in zip(one, two, strict=True) if a == b] == []
    for name in ("one", "two"):
        assert copying.run("exec", lab, name, "--", "sh", "-c", f"{TOLD} || :") == "labctl: ended 0\n0\n"
        before, clock = time.time(), float(copying.run("exec", lab, name, "--", "date", "+%s.%N"))
        assert before - 3 < clock < time.time() + 3
    placed = ("cat", "/proc/sys/kernel/randomize_va_space")
    assert len({copying.run("exec", lab, name, "--", *placed) for name in ("one", "two", "disk")}) == 1


def test_copies_are_verified_by_a_program_that_waits_in_them(copying: Labctl) -> None:
    """And by one that is started where it was killed; the machine that has booted has none."""
    lab = copying.home / "copies"
    report = copying.json("verify", lab)
    assert (report["summary"]["FAIL"], report["summary"]["INCONCLUSIVE"]) == (0, 0)
    questions, waits = "ls /run/labctl-verify | grep -c question || :", "grep -lx labctl-verify /proc/[0-9]*/comm || :"
    asked = {name: copying.run("exec", lab, name, "--", "sh", "-c", questions).strip() for name in ("one", "disk")}
    assert asked == {"one": "1", "disk": "0"}
    assert copying.run("exec", lab, "one", "--", "sh", "-c", waits).count("comm") == 1
    copying.run("exec", lab, "one", "--", "sh", "-c", NOBODY_WAITS)
    again = copying.json("verify", lab)
    assert again["summary"] == report["summary"]
    assert copying.run("exec", lab, "one", "--", "sh", "-c", waits) == ""


def test_a_copy_that_was_told_half_of_it_is_told_again(copying: Labctl) -> None:
    lab = write_lab(copying.home / "half", LAB.replace("copies", "half").partition("  disk")[0])
    with copying.spawn(sys.executable, "-c", CUT_SHORT, "up", str(lab)) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    assert copying.json("status", lab)["state"] == "interrupted"
    copying.run("up", lab)
    for name in ("one", "two"):
        assert copying.run("exec", lab, name, "--", "hostname") == f"{name}\n"
    assert copying.json("verify", lab)["summary"]["PASS"] > 0
    copying.run("destroy", lab, "--yes")


def test_machines_that_nobody_speaks_to_sleep(copying: Labctl) -> None:
    """An agent that looked ten times a second whether somebody has come would wake two hundred times meanwhile."""
    lab = copying.home / "copies"
    look = "grep ^vol /proc/$(pidof qemu-ga)/status | tr -dc 0-9"

    def woken() -> int:
        return int(copying.run("exec", lab, "one", "--", "sh", "-c", look))

    before = woken()
    time.sleep(20)
    assert woken() - before < 100


def test_a_copy_is_a_machine_like_any_other_afterwards(copying: Labctl) -> None:
    """Its disk is its own, a boot brings its own hardware addresses, and the template is not needed any more."""
    lab = copying.home / "copies"
    before = copying.run("exec", lab, "one", "--", "sh", "-c", "echo kept >/root/kept; cat /sys/class/net/eth0/address")
    for template in templates(copying):
        for path in template.iterdir():
            path.unlink()
        template.rmdir()
    copying.run("down", lab, "--machine", "one")
    copying.run("up", lab)
    assert record(copying, "one")["copied"] is False
    after = copying.run("exec", lab, "one", "--", "cat", "/sys/class/net/eth0/address", "/root/kept")
    assert after == before + "kept\n"
    assert templates(copying) == [], "nothing had to be made anew"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["ram", "state"])
def test_a_template_that_is_damaged_is_given_up_and_the_machine_boots(copying: Labctl, what: str) -> None:
    lab = write_lab(copying.home / f"damaged-{what}", LAB.replace("copies", f"damaged-{what}").partition("  two")[0])
    if not templates(copying):
        copying.run("up", lab)
        copying.run("destroy", lab, "--yes")
    (template,) = templates(copying)
    with (template / what).open("r+b") as file:
        file.truncate(1 << 16)
    copying.run("up", lab)
    assert templates(copying) == []
    assert copying.run("exec", lab, "one", "--", "hostname") == "one\n"
    copying.run("destroy", lab, "--yes")
