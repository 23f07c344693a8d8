"""A class whose idle instances are stopped: with real guests, a real login, and a memory to come back to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.command import Labctl
from tests.support.guests import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

LAB = """\
version: 1
name: alone
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks: {wire: {subnet: 10.9.0.0/28}}
machines: {one: {networks: {wire: 10.9.0.1}}}
"""
CLASS = "version: 1\nname: monday\nlab: lab\nroster: [s01, s02]\n"


@pytest.fixture(scope="module")
def course(labctl: Labctl) -> Path:
    folder = labctl.home / "course"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "lab.yaml").write_text(LAB)
    (folder / "class.yaml").write_text(CLASS + "limits: {idle: 1 min}\n")
    labctl.run("class", "up", folder, "--no-fresh")
    return folder


def sh(labctl: Labctl, course: Path, instance: str, script: str) -> str:
    return labctl.run("exec", "--instance", instance, course / "lab", "one", "--", "sh", "-c", script).strip()


def did(labctl: Labctl, course: Path) -> dict[str, str]:
    return {one["instance"]: one["did"] for one in labctl.json("class", "tidy", course)["instances"]}


def test_who_is_logged_in_stays_and_who_is_idle_comes_back_as_it_was(labctl: Labctl, course: Path) -> None:
    sh(labctl, course, "s01", "echo memory >/run/mine; sleep 86400 >/dev/null 2>&1 </dev/null & echo $! >/run/pid")
    session = ("ssh", "--instance", "s02", str(course / "lab"), "one", "echo", "in;", "sleep", "600")
    with labctl.start(*session) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in\n"
        try:
            seen: list[dict[str, str]] = []
            began = time.monotonic()
            until(lambda: seen.append(did(labctl, course)) or seen[-1]["s01"] == "stopped", seconds=400, every=5)
            assert time.monotonic() - began > 20  # it had just been used
            assert {one["s02"] for one in seen} == {"in use"}
        finally:
            process.terminate()
    status = labctl.json("class", "status", course)["instances"]
    assert [one["did"] for one in status] == ["down", "up"]
    done = labctl.json("class", "up", course, "--only", "s01")["instances"]
    assert [one["did"] for one in done] == ["as it was left"]
    assert sh(labctl, course, "s01", "cat /run/mine; test -d /proc/$(cat /run/pid) && echo runs") == "memory\nruns"
    assert labctl.json("snapshot", "list", course / "lab", "--instance", "s01")["checkpoints"] == []


def test_outside_its_hours_the_class_is_stopped_and_not_brought_up(labctl: Labctl, course: Path) -> None:
    far = time.strftime("%a", time.gmtime(time.time() + 3 * 86400)).lower()
    hours = f"hours: {{timezone: UTC, open: [{{days: [{far}], from: 08:00, to: 09:00}}]}}\n"
    (course / "class.yaml").write_text(CLASS + hours)
    labctl.run("class", "up", course, "--anyway", "--only", "s01", "--no-fresh")
    assert did(labctl, course) == {"s01": "idle", "s02": "stopped"}
    assert "monday is closed until" in labctl.complaint("class", "up", course)
    done = labctl.json("class", "up", course, "--anyway")["instances"]
    assert [one["did"] for one in done] == ["nothing had to change", "as it was left"]
