"""Days that go wrong: killed, interrupted, doubled, full, dead - and `up` or `destroy` puts it right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LAB = """\
version: 1
name: NAME
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  wire: {subnet: 10.9.0.0/28}
machines:
  one: {networks: {wire: 10.9.0.1}}
  two:
    networks: {wire: 10.9.0.2}
    provision:
      - shell: echo begun >>/root/steps
      - shell: echo finished >>/root/steps
"""


def write_lab(home: Path, name: str, text: str = LAB) -> Path:
    folder = home / name
    folder.mkdir()
    (folder / "lab.yaml").write_text(text.replace("NAME", name))
    return folder


def machines(labctl: Labctl) -> list[psutil.Process]:
    return [process for process in labctl.processes() if "qemu-system" in process.name()]


def wait_for_a_machine(labctl: Labctl) -> None:
    """Until a machine of an ``up`` has a process, which is long before it is configured."""
    deadline = time.monotonic() + 60
    while not machines(labctl):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _out, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


def test_kill_at_any_moment_of_up_then_up_again(labctl: Labctl) -> None:
    lab = write_lab(labctl.home, "killed")
    moments = random.Random(20260)
    for moment in sorted(moments.uniform(0.2, 5) for _ in range(6)):
        process = labctl.start("up", lab)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            stop(process, signal.SIGKILL)
        assert len(machines(labctl)) <= 2
    labctl.run("up", lab)
    assert labctl.json("status", lab)["state"] == "up"
    assert len(machines(labctl)) == 2
    assert labctl.run("exec", lab, "two", "--", "tail", "-n1", "/root/steps") == "finished\n"
    assert {change["action"] for change in labctl.json("up", lab)["changes"]} == {"keep"}
    labctl.run("destroy", lab, "--yes")
    assert labctl.processes() == []


def test_a_dead_machine_is_seen_and_mended_and_an_interrupted_up_goes_on(labctl: Labctl) -> None:
    lab = write_lab(labctl.home, "mended")
    process = labctl.start("up", lab)
    wait_for_a_machine(labctl)
    began = time.monotonic()
    code, words = stop(process, signal.SIGINT)
    assert code == 130
    assert time.monotonic() - began < 10
    assert "labctl destroy" in words
    assert labctl.json("status", lab)["state"] == "interrupted"
    labctl.run("up", lab)

    pids = {machine["name"]: machine["pid"] for machine in labctl.json("status", lab)["machines"]}
    os.kill(pids["one"], signal.SIGKILL)
    states = {machine["name"]: machine["state"] for machine in labctl.json("status", lab)["machines"]}
    assert states == {"one": "dead", "two": "running"}
    labctl.run("up", lab)
    after = {machine["name"]: machine["pid"] for machine in labctl.json("status", lab)["machines"]}
    assert after["two"] == pids["two"]
    assert after["one"] not in (None, pids["one"])
    labctl.run("exec", lab, "one", "--", "ping", "-c1", "-W3", "10.9.0.2")
    labctl.run("destroy", lab, "--yes")


def test_of_two_ups_at_once_one_works_and_the_other_explains(labctl: Labctl) -> None:
    lab = write_lab(labctl.home, "doubled")
    first = labctl.start("up", lab)
    wait_for_a_machine(labctl)
    first.send_signal(signal.SIGSTOP)  # or it would be done before the second has begun
    second = labctl.start("up", lab)
    _out, words = second.communicate(timeout=30)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 6
    assert f"process {first.pid}" in words.decode()
    stop(first, signal.SIGTERM)
    assert first.returncode == 130
    labctl.run("destroy", lab, "--yes")
    assert labctl.processes() == []


@pytest.fixture
def tiny_disk(labctl: Labctl, tmp_path: Path) -> Path:
    """A file system with room for almost nothing, on the host where labctl runs."""
    assert labctl.host is not None
    folder = tmp_path / "tiny"
    folder.mkdir()
    labctl.host.run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder))
    return folder


def test_a_full_disk_is_said_plainly_and_loses_nothing(labctl: Labctl, tiny_disk: Path) -> None:
    lab = write_lab(labctl.home, "full", LAB.partition("  two:")[0])
    poor = Labctl(tiny_disk / "state", labctl.home, labctl.host)
    with poor.start("up", lab) as process:
        _out, words = process.communicate(timeout=120)
    assert process.returncode == 1, words.decode()
    assert "disk" in words.decode()
    assert "Traceback" not in words.decode()
    assert labctl.host is not None
    labctl.host.run("mount", "-o", "remount,size=2g", str(tiny_disk))
    poor.run("up", lab)
    assert poor.json("status", lab)["state"] == "up"
    # and what is stopped starts again
    poor.run("exec", lab, "one", "--", "touch", "/root/kept")
    poor.run("down", lab)
    assert {machine["state"] for machine in poor.json("status", lab)["machines"]} == {"stopped"}
    poor.run("up", lab)
    poor.run("exec", lab, "one", "--", "test", "-e", "/root/kept")
    poor.run("destroy", lab, "--yes")
    assert poor.processes() == []
