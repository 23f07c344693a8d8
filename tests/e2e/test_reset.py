"""``labctl reset`` with real guests: what was done in them is gone, whatever state they were left in."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

import psutil
import pytest

from labctl.providers.clock import SET_CLOCK
from tests.support.command import Labctl
from tests.support.guests import until

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


def told(labctl: Labctl, lab: Path, seconds_ago: int) -> int:
    """What a guest's clock says against its hardware's, once it was told the time that was ``seconds_ago``; seconds."""
    script = f"""\
now=$(( $(cat /sys/class/rtc/rtc0/since_epoch) - {seconds_ago} )).5
{SET_CLOCK}echo $(( $(date +%s) - $(cat /sys/class/rtc/rtc0/since_epoch) ))"""
    return int(labctl.run("exec", lab, "one", "--", "sh", "-c", script))


def test_a_guest_that_is_told_the_time_late_believes_its_hardware_unless_that_is_hours_away(
    labctl: Labctl, lab: Path
) -> None:
    assert told(labctl, lab, 3 * 3600) == pytest.approx(-3 * 3600, abs=3)
    assert told(labctl, lab, 100) == pytest.approx(0, abs=3)


def talk(labctl: Labctl, lab: Path, megabytes: int, enough: float = math.inf) -> tuple[int, int]:
    """Let a guest say so much, and kill the command when it has read enough: its exit code, and the bytes it read."""
    read = 0
    with labctl.start("exec", lab, "one", "--", "sh", "-c", f"head -c {megabytes << 20} /dev/zero") as process:
        counters = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                read = counters.io_counters().read_chars
            if read > enough:
                process.kill()
            time.sleep(0.005)
    return process.returncode, read


def test_a_command_killed_while_its_guest_talks_leaves_the_way_to_the_guest_open(labctl: Labctl, lab: Path) -> None:
    """A kill -9 in the middle of an answer of megabytes: what is left of it in the pipes is nobody's answer."""
    code, usual = talk(labctl, lab, 0)
    assert code == 0
    code, _ = talk(labctl, lab, 8, enough=usual + (1 << 20))
    assert code == -9, "it ended before it was killed"
    assert labctl.run("exec", lab, "one", "--", "echo", "here") == "here\n"


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


def test_an_up_that_was_killed_while_it_kept_the_new_lab_keeps_it_the_next_time(labctl: Labctl) -> None:
    folder = labctl.home / "killed"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB.replace("again", "killed"))
    manifests = labctl.state / "killed" / "default" / "checkpoints"
    with labctl.start("up", folder) as process:
        until(lambda: any(manifests.glob("*.json")) or process.poll() is not None)
        process.kill()
    assert process.returncode == -9, "it ended before it was killed"
    assert labctl.json("status", folder)["state"] == "interrupted"
    labctl.run("up", folder)
    assert [one["name"] for one in labctl.json("snapshot", "list", folder)["checkpoints"]] == ["fresh"]
    soil(labctl, folder, "one")
    assert labctl.json("reset", folder)["witnesses"] == ["one", "two"]
    assert look(labctl, folder, "one") == ["provisioned", "active", "up"]
