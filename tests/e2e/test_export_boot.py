"""A lab that travels with a checkpoint: elsewhere it goes on from the very moment, with keys of its own."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.command import Labctl
from tests.support.guests import BOTH, LAB, Guests, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

BEFORE = dict.fromkeys(BOTH, "before before counting")
PROVISIONED = LAB.replace(
    "  one: {networks: {wire: 10.9.0.1}}",
    "  one: {networks: {wire: 10.9.0.1}, provision: [{shell: echo done >>/root/steps}]}",
)
SECRET = "what-came-later"  # not in any guest before


@dataclass(frozen=True)
class Exported:
    """A lab in a file, and what it had where it was made: each guest's SSH host key and the instance's public key."""

    file: Path
    host_keys: dict[str, str]
    key: str


@pytest.fixture(scope="module")
def exported(labctl: Labctl) -> Exported:
    """A lab that was marked, saved, changed, saved again, exported as of the first of the two, and destroyed."""
    lab = Guests.make(labctl, "carried", PROVISIONED)
    lab.up()
    lab.mark("before")
    lab.save("clean")
    lab.mark("after")
    for machine in BOTH:
        lab.sh(machine, f"echo {SECRET} >/root/secret; sync")
    lab.save("later")
    file = labctl.home / "carried.labz"
    said = labctl.json("export", lab.folder, "clean", "--output", file)
    assert (said["checkpoint"], said["machines"], said["cold"]) == ("clean", list(BOTH), [])
    assert lab.marks() == dict.fromkeys(BOTH, "after after counting"), "it goes on"
    found = Exported(file, host_keys(lab), public_key(lab))
    labctl.destroy_all()
    (lab.folder / "lab.yaml").unlink()
    return found


@pytest.fixture
def room(labctl: Labctl, tmp_path: Path) -> Iterator[Labctl]:
    """Another computer's labctl: nothing in its cache, its state or its folder."""
    (tmp_path / "room").mkdir()
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = replace(labctl, state=tmp_path / "state", home=tmp_path / "room", variables=variables)
    yield command
    command.destroy_all()
    assert command.processes() == []


def here(room: Labctl) -> Guests:
    return Guests(room, room.home / "carried")


def host_keys(lab: Guests) -> dict[str, str]:
    return {machine: lab.sh(machine, "cat /etc/ssh/ssh_host_ed25519_key.pub") for machine in BOTH}


def public_key(lab: Guests) -> str:
    return (lab.layout.key.with_suffix(".pub")).read_text().split()[1]


def test_a_lab_goes_on_elsewhere_from_the_moment_it_was_saved_at(exported: Exported, room: Labctl) -> None:
    lab = here(room)
    said = room.json("up", exported.file)
    assert said["arrived"] == "clean"
    assert {change["action"] for change in said["changes"]} == {"keep"}
    assert not (room.home.parent / "cache/labctl/templates").exists(), "nothing was booted"
    assert lab.marks() == BEFORE
    assert lab.sh("one", "cat /root/steps") == "done", "steps do not run a second time"
    assert lab.names() == lab.whole_ones() == ["clean"]
    assert lab.kept() == {machine: {lab.key("clean")} for machine in BOTH}

    lab.mark("broken")
    room.run("reset", lab.folder)
    assert lab.marks() == BEFORE
    lab.mark("broken again")
    lab.restore("clean")
    assert lab.marks() == BEFORE

    for machine, key in host_keys(lab).items():
        assert key != exported.host_keys[machine]
        keys = lab.sh(machine, "cat /root/.ssh/authorized_keys")
        assert public_key(lab) in keys
        assert exported.key not in keys
        assert room.run("ssh", lab.folder, machine, "--", "hostname").strip() == machine
    assert stat.S_IMODE(lab.layout.key.stat().st_mode) == 0o600
    assert room.json("verify", lab.folder)["summary"]["PASS"] > 0

    said = room.json("up", exported.file)
    assert said["arrived"] is None
    assert {change["action"] for change in said["changes"]} == {"keep"}
    room.run("down", lab.folder)
    assert room.json("up", exported.file)["started"] == list(BOTH)
    lab.restore("clean")
    assert lab.marks() == BEFORE
    room.run("destroy", lab.folder, "--yes")
    assert room.processes() == []
    assert [path.name for path in room.state.iterdir() if path.is_dir()] == [".locks"]


@pytest.mark.slow
def test_what_came_after_the_checkpoint_is_not_in_the_file(exported: Exported, room: Labctl) -> None:
    search = f"zcat {exported.file} | grep -aclF {SECRET}"
    assert subprocess.run(["sh", "-c", search], capture_output=True, text=True, check=False).stdout in ("", "0\n")
    listed = subprocess.run(["tar", "tzf", str(exported.file)], capture_output=True, text=True, check=True).stdout
    assert "id_ed25519" not in listed
    assert len([name for name in listed.split() if name.startswith("checkpoint/")]) == len(BOTH)


@pytest.mark.slow
def test_it_boots_from_its_disks_where_its_memory_is_left_out(exported: Exported, room: Labctl) -> None:
    lab = here(room)
    room.run("up", exported.file, "--cold")
    seen = {machine: lab.sh(machine, "cat /root/disk; [ ! -e /run/memory ] && echo booted") for machine in BOTH}
    assert seen == dict.fromkeys(BOTH, "before\nbooted")
    assert lab.names() == ["clean"]
    lab.mark("broken")
    room.run("reset", lab.folder)
    assert {machine: lab.sh(machine, "cat /root/disk") for machine in BOTH} == dict.fromkeys(BOTH, "before")


@pytest.mark.slow
def test_two_instances_of_it_are_two(exported: Exported, room: Labctl) -> None:
    room.run("up", exported.file)
    room.run("up", exported.file, "--instance", "second")
    look = "cat /run/memory /sys/class/net/eth0/address /etc/machine-id; head -c 16 /dev/urandom | md5sum"
    seen = {
        name: room.run("exec", "--instance", name, here(room).folder, "one", "--", "sh", "-c", look).split()
        for name in ("default", "second")
    }
    for first, second in list(zip(seen["default"], seen["second"], strict=True))[1:4]:
        assert first != second
    assert {words[0] for words in seen.values()} == {"before"}
    assert room.run("exec", "--instance", "second", here(room).folder, "one", "--", "ping", "-c1", "-W9", "10.9.0.2")


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "after"), [("unpacked", "destroy"), ("saved", "up")])
def test_killed_on_its_way_it_begins_anew_or_is_gone(exported: Exported, room: Labctl, moment: str, after: str) -> None:
    lab = here(room)
    folder = room.state / "carried/default"
    overlay, checkpoints = folder / "engine/machines/two/disk.qcow2", folder / "checkpoints"
    with room.start("up", exported.file) as process:
        until(lambda: process.poll() is not None or (overlay if moment == "unpacked" else checkpoints).exists())
        process.kill()
    assert process.returncode == -9, "it was too quick"
    assert lab.state() == "interrupted"
    if after == "up":
        assert "labctl up with that file" in room.complaint("up", lab.folder)
        room.run("up", exported.file)
        assert lab.marks() == BEFORE
        assert lab.names() == ["clean"]
    else:
        room.run("destroy", lab.folder, "--yes")
        assert room.processes() == []
        assert room.json("list") == []


@pytest.mark.slow
def test_an_instance_in_the_way_is_left_alone(exported: Exported, room: Labctl) -> None:
    room.run("unbundle", exported.file)
    lab = here(room)
    lab.up()
    lab.mark("mine")
    said = room.complaint("up", exported.file, code=2)
    assert "exists already, without the checkpoint of this file" in said
    assert lab.marks() == dict.fromkeys(BOTH, "mine mine counting")
    assert json.loads((room.state / "carried/default/record.json").read_text())["phase"] == "up"
