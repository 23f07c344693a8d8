"""A class of three with real guests: one command for all of them, and no one's trouble is another's."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

LAB = """\
version: 1
name: pair
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
secrets: {flag: {kind: flag}}
networks:
  wire: {subnet: 10.9.0.0/28}
machines:
  one:
    networks: {wire: 10.9.0.1}
    secrets: [flag]
    provision: [{shell: "set -x; install -m 600 $LABCTL_SECRETS/flag /root/flag; cat $LABCTL_SECRETS/flag"}]
  two: {networks: {wire: 10.9.0.2}}
"""
CLASS = "version: 1\nname: monday\nlab: lab\nroster: students.csv\nlogin: {machines: [one]}\n"
STUDENTS = "id,name,key\ns01,Ada Lovelace,%s\ns02,Zoë O’Connor,\ns03,李小龙,\n"


@pytest.fixture(scope="module")
def course(labctl: Labctl) -> Path:
    folder = labctl.home / "course"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "lab.yaml").write_text(LAB)
    (folder / "class.yaml").write_text(CLASS)
    with labctl.spawn("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "ada")) as process:
        assert process.wait(60) == 0
    (folder / "students.csv").write_text(STUDENTS % (folder / "ada.pub").read_text().strip())
    labctl.run("class", "up", folder)
    return folder


def states(labctl: Labctl, course: Path) -> dict[str, str]:
    return {one["instance"]: one["did"] for one in labctl.json("class", "status", course)["instances"]}


def pids(labctl: Labctl, course: Path, instance: str) -> dict[str, int]:
    machines = labctl.json("status", course / "lab", "--instance", instance)["machines"]
    return {machine["name"]: machine["pid"] for machine in machines}


def write(labctl: Labctl, course: Path, instance: str) -> None:
    labctl.run("exec", "--instance", instance, course / "lab", "one", "--", "sh", "-c", "echo mine >/root/mine; sync")


def read(labctl: Labctl, course: Path, instance: str) -> str:
    command = "cat /root/mine 2>/dev/null || echo nothing"
    return labctl.run("exec", "--instance", instance, course / "lab", "one", "--", "sh", "-c", command).strip()


def test_everybody_has_an_instance_with_ports_of_its_own(labctl: Labctl, course: Path) -> None:
    found = labctl.json("class", "status", course)["instances"]
    assert [(one["instance"], one["did"]) for one in found] == [("s01", "up"), ("s02", "up"), ("s03", "up")]
    assert found[1]["students"] == [{"id": "s02", "name": "Zoë O’Connor"}]
    ports = [machine["ssh"] for one in found for machine in one["machines"]]
    assert len(set(ports)) == 6
    plan = labctl.json("class", "plan", course)
    assert (plan["starts"], [one["state"] for one in plan["instances"]]) == (0, ["up"] * 3)


def test_each_machine_has_its_instances_secret_and_no_log_has_it(labctl: Labctl, course: Path) -> None:
    answers = {one["instance"]: one["secrets"]["flag"] for one in labctl.json("class", "key", course)["instances"]}
    assert len(set(answers.values())) == 3
    for name, flag in answers.items():
        where = ("exec", "--instance", name, course / "lab", "one", "--", "sh", "-c")
        assert labctl.run(*where, "cat /root/flag; ! test -e /run/labctl-secrets") == flag
    log = (labctl.state / "pair/s01/engine/machines/one/provision.log").read_text()
    assert "+ cat /run/labctl-secrets/flag\n<flag>" in log
    texts = [p for p in labctl.state.rglob("*") if p.is_file() and (p.suffix in (".log", ".json") or "." not in p.name)]
    assert texts
    assert not [path for path in texts if answers["s01"] in path.read_text(errors="replace")]


@pytest.mark.slow
def test_a_machine_that_died_is_mended_and_nobody_else_is_touched(labctl: Labctl, course: Path) -> None:
    before = {name: pids(labctl, course, name) for name in ("s01", "s02", "s03")}
    victim = psutil.Process(before["s02"]["two"])
    victim.kill()
    victim.wait(30)
    assert states(labctl, course) == {"s01": "up", "s02": "1 of 2 running", "s03": "up"}
    done = labctl.json("class", "up", course)["instances"]
    assert [one["did"] for one in done] == ["nothing had to change", "mended", "nothing had to change"]
    after = {name: pids(labctl, course, name) for name in ("s01", "s02", "s03")}
    assert set(states(labctl, course).values()) == {"up"}
    assert (after["s01"], after["s03"]) == (before["s01"], before["s03"])
    assert after["s02"]["one"] == before["s02"]["one"]
    assert after["s02"]["two"] != before["s02"]["two"]


def test_a_students_key_opens_their_own_machine_and_no_neighbours(labctl: Labctl, course: Path) -> None:
    (course / "ada").chmod(0o600)

    def login(instance: str, machine: str) -> int:
        text = labctl.run("class", "ssh-config", course, "--only", instance)
        block = text.split(f"Host {instance}-{machine}\n")[1].split("\n\n")[0]
        port = block.split("  Port ")[1].split("\n")[0]
        hosts = block.split("UserKnownHostsFile ")[1].split("\n")[0]
        options = ["-oBatchMode=yes", "-oIdentitiesOnly=yes", f"-oUserKnownHostsFile={hosts}", "-oConnectTimeout=60"]
        argv = ["ssh", "-F", "none", *options, "-i", str(course / "ada"), "-p", port, "student@127.0.0.1", "true"]
        with labctl.spawn(*argv) as process:
            process.communicate(timeout=120)
        return process.returncode

    assert login("s01", "one") == 0
    assert login("s01", "two") == 255
    assert login("s02", "one") == 255


def test_what_one_student_resets_the_others_keep(labctl: Labctl, course: Path) -> None:
    for name in ("s01", "s02"):
        write(labctl, course, name)
    labctl.run("class", "reset", course, "--only", "s01")
    assert (read(labctl, course, "s01"), read(labctl, course, "s02")) == ("nothing", "mine")


def test_a_sample_of_the_class_is_verified(labctl: Labctl, course: Path) -> None:
    done = labctl.json("class", "verify", course, "--sample", "1", "--seed", "3", "--report", labctl.home / "reports")
    (one,) = done["instances"]
    assert one["verdict"] == "PASS"
    assert one["summary"]["PASS"] > 0
    assert (labctl.home / "reports" / one["instance"] / "report.html").exists()


def test_a_neighbour_who_is_destroyed_leaves_the_others_as_they_are(labctl: Labctl, course: Path) -> None:
    before = {name: pids(labctl, course, name) for name in ("s01", "s02")}
    labctl.run("class", "destroy", course, "--only", "s03", "--yes")
    assert states(labctl, course) == {"s01": "up", "s02": "up", "s03": "not made"}
    assert {name: pids(labctl, course, name) for name in ("s01", "s02")} == before
    assert read(labctl, course, "s02") == "mine"
    labctl.run("exec", "--instance", "s02", course / "lab", "one", "--", "ping", "-c1", "-W20", "10.9.0.2")


@pytest.mark.slow
def test_after_the_host_has_lost_all_machines_what_was_up_comes_back(labctl: Labctl, course: Path) -> None:
    """s03 has no instance, s01 was put down before: only s02 was up."""
    labctl.run("class", "down", course, "--only", "s01")
    for pid in pids(labctl, course, "s02").values():
        process = psutil.Process(pid)
        process.kill()
        process.wait(30)
    labctl.run("class", "up", course, "--was-up")
    assert states(labctl, course) == {"s01": "down", "s02": "up", "s03": "not made"}
    assert read(labctl, course, "s02") == "mine"
