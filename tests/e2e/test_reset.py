"""``labctl reset`` with real guests: what was done in them is gone, whatever state they were left in."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LAB = """\
version: 1
name: again
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  wire: {subnet: 10.9.0.0/28}
machines:
  one:
    networks: {wire: 10.9.0.1}
    provision: [{shell: echo provisioned >/root/made}]
  two: {networks: {wire: 10.9.0.2}}
"""
# On disk, in memory, and in what runs.
SOIL = "echo x >/root/made; echo x >/root/new; echo x >/run/new; sync; systemctl stop ssh; ip link set eth0 down"
LOOK = "cat /root/made; ls /root/new /run/new; systemctl is-active ssh; cat /sys/class/net/eth0/operstate"


@pytest.fixture(scope="module")
def lab(labctl: Labctl) -> Path:
    folder = labctl.home / "again"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    labctl.run("up", folder)
    return folder


def look(labctl: Labctl, lab: Path, machine: str) -> list[str]:
    return labctl.run("exec", lab, machine, "--", "sh", "-c", f"{{ {LOOK}; }} 2>/dev/null; true").splitlines()


def soil(labctl: Labctl, lab: Path, machine: str) -> None:
    labctl.run("exec", lab, machine, "--", "sh", "-c", SOIL)
    assert look(labctl, lab, machine) == ["x", "/root/new", "/run/new", "inactive", "down"]


def test_a_lab_is_as_it_was_after_its_first_up(labctl: Labctl, lab: Path) -> None:
    before = {name: look(labctl, lab, name) for name in ("one", "two")}
    assert before == {"one": ["provisioned", "active", "up"], "two": ["active", "up"]}
    soil(labctl, lab, "one")
    soil(labctl, lab, "two")
    assert labctl.json("reset", lab)["witnesses"] == ["one", "two"]
    assert {name: look(labctl, lab, name) for name in ("one", "two")} == before
    assert labctl.json("verify", lab)["summary"].get("FAIL", 0) == 0


def test_a_lab_with_a_machine_that_died_and_one_that_is_off_comes_back(labctl: Labctl, lab: Path) -> None:
    soil(labctl, lab, "one")
    pids = {machine["name"]: machine["pid"] for machine in labctl.json("status", lab)["machines"]}
    psutil.Process(pids["one"]).kill()
    labctl.run("down", lab, "--machine", "two")
    labctl.run("reset", lab)
    assert look(labctl, lab, "one") == ["provisioned", "active", "up"]
    assert look(labctl, lab, "two") == ["active", "up"]


def test_what_a_user_did_is_kept_by_up_until_reset(labctl: Labctl, lab: Path) -> None:
    """A change of one machine leaves the other as it is, and is carried out again after the way back."""
    labctl.run("exec", lab, "two", "--", "sh", "-c", "echo mine >/root/mine")
    (lab / "lab.yaml").write_text(LAB.replace("provisioned", "changed"))
    labctl.run("up", lab)
    assert labctl.run("exec", lab, "two", "--", "cat", "/root/mine") == "mine\n"
    assert look(labctl, lab, "one")[0] == "changed"
    assert "has changed since" in labctl.json("reset", lab)["behind"]
    assert look(labctl, lab, "one")[0] == "provisioned"
    labctl.run("exec", lab, "two", "--", "cat", "/root/mine", code=1)
    labctl.run("up", lab)
    assert look(labctl, lab, "one")[0] == "changed"


def test_a_sealed_lab_is_reset_and_stays_sealed(labctl: Labctl, lab: Path) -> None:
    labctl.run("seal", lab)
    labctl.run("exec", lab, "two", "--", "sh", "-c", "echo mine >/root/mine")
    labctl.run("reset", lab)
    labctl.run("exec", lab, "two", "--", "cat", "/root/mine", code=1)
    assert labctl.json("status", lab)["sealed"] is True
    labctl.run("unseal", lab)
