"""A class that goes home: one file for all, which comes up with a real guest and each student's own flag."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LAB = """\
version: 1
name: travels
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
secrets: {flag: {kind: flag, points: 5}}
networks: {wire: {subnet: 10.9.0.0/28}}
machines:
  one:
    networks: {wire: 10.9.0.1}
    secrets: [flag]
    provision: [{shell: "set -x; install -m 600 $LABCTL_SECRETS/flag /root/flag; cat $LABCTL_SECRETS/flag"}]
"""


def test_a_student_at_home_has_the_flag_that_the_teacher_knows_and_no_file_that_tells_it(
    labctl: Labctl, tmp_path: Path
) -> None:
    course = labctl.home / "course"
    (course / "lab/teacher").mkdir(parents=True)
    (course / "lab/lab.yaml").write_text(LAB)
    (course / "lab/teacher/solve.sh").write_text("cat /root/flag\n")
    (course / "class.yaml").write_text("version: 1\nname: monday\nlab: lab\nroster: [s01, s02]\n")
    file = labctl.home / "monday.labz"
    labctl.run("bundle", "--class", course, "--output", file)
    labctl.run("class", "handout", course, "--bundle", file, "--output", course / "sheets")
    flags = {one["instance"]: one["secrets"]["flag"] for one in labctl.json("class", "key", course)["instances"]}
    token = re.search(r"([a-z2-7]{4}-){5}[a-z2-7]{4}", (course / "sheets/s02.html").read_text())
    assert token is not None

    room = tmp_path / "room"
    room.mkdir()
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    student = replace(labctl, home=room, state=tmp_path / "state", variables=cache)
    course.rename(labctl.home / "gone")
    try:
        student.run("up", file, "--no-fresh", "--token", token[0])
        assert not (room / "travels/teacher").exists()
        assert student.run("exec", room / "travels", "one", "--", "cat", "/root/flag") == flags["s02"]
        assert "not known here" in student.complaint("secrets", "travels", code=2)
        texts = [
            p for folder in (room, student.state) for p in folder.rglob("*") if p.is_file() and p.suffix != ".qcow2"
        ]
        assert any("<flag>" in path.read_text(errors="replace") for path in texts), "the log of the step was read"
        for value in (flags["s02"], token[0], token[0].replace("-", "")[:20]):
            assert not [path for path in texts if value in path.read_text(errors="replace")]
        assert student.run("submit", "travels", flags["s02"]) == "Right: flag, 5 points.\n"
        assert student.run("submit", "travels", flags["s01"], code=1) == "Wrong.\n"
        assert student.run("score", "travels").splitlines()[-1] == "5 of 5 points"
        changes = student.json("up", file)["changes"]
        assert {change["action"] for change in changes} == {"keep"}
    finally:
        student.destroy_all()
