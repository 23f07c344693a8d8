"""A declared way out leads to the internet and its names, and neither to the host nor to what is near it.

The internet is a second network namespace; the host is a namespace too.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support import surroundings as around
from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LAB = """\
version: 1
name: wayout
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  office: {subnet: 10.20.0.0/27, egress: nat, peers: false}
  closed: {subnet: 10.20.1.0/27}
machines:
  pc: {networks: [office]}
  box: {networks: [closed]}
"""
# Says for each ADDRESS:PORT whether a TCP connection comes about; a path that is closed stays silent.
CALL = """\
import socket, sys
for place in sys.argv[1:]:
    address, port = place.split(":")
    try:
        socket.create_connection((address, int(port)), 3).close()
        print("open")
    except OSError:
        print("closed")
"""


@pytest.fixture
def lab(labctl: Labctl) -> Path:
    folder = labctl.home / "wayout"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    return folder


def test_a_way_out_leads_out_and_nowhere_else(labctl: Labctl, lab: Path) -> None:
    labctl.run("up", lab)
    exits = {network["name"]: network for network in labctl.json("plan", lab)["networks"]}
    gateway, resolver = exits["office"]["exit"], exits["office"]["resolver"]
    assert gateway and resolver and exits["closed"]["exit"] is None

    def call(machine: str, *places: str) -> list[str]:
        return labctl.run("exec", lab, machine, "--", "python3", "-c", CALL, *places).split()

    outside = f"{around.WORLD}:{around.PORT}"
    assert call("pc", outside) == ["open"]
    assert call("box", outside) == ["closed"]
    assert labctl.run("exec", lab, "pc", "--", "getent", "hosts", "world.test").split()[0] == around.WORLD

    # the host has a listener on every address, which answers it itself
    listener = labctl.spawn("python3", "-m", "http.server", str(around.PORT))
    try:
        ssh = labctl.json("status", lab)["machines"][0]["ssh"].rpartition(":")[2]
        nobody = ".".join([*gateway.split(".")[:3], "30"]) if not gateway.endswith(".30") else "10.20.0.29"
        near = [f"{address}:{around.PORT}" for address in (around.HOST, around.LAN, around.NEIGHBOUR, gateway, nobody)]
        assert call("pc", *near, f"{gateway}:{ssh}", f"{resolver}:{around.PORT}") == ["closed"] * 7
    finally:
        listener.kill()
        listener.wait()

    # the verifier agrees, with its own canaries on the host and the world named by the user
    report = labctl.json("verify", lab, "--outside", outside)
    assert Counter(flow["verdict"] for flow in report["flows"]).keys() == {"PASS"}
    named = {(f["source"], f["source_device"]): f["expected"] for f in report["flows"] if f["target"] == "outside"}
    assert named["pc", "eth0"] == "pass" and named["box", "eth0"] == named["pc", "mgmt"] == "deny"

    # a way out that died is said and mended, without touching the machines
    before = {machine["name"]: machine["pid"] for machine in labctl.json("status", lab)["machines"]}
    (way,) = [p for p in labctl.processes() if any("+exit-" in word for word in p.cmdline())]
    os.kill(way.pid, signal.SIGKILL)
    psutil.wait_procs([way], 5)
    assert labctl.json("status", lab)["faults"] == ["the way out of office is gone"]
    assert call("pc", outside) == ["closed"]
    labctl.run("up", lab)
    assert {machine["name"]: machine["pid"] for machine in labctl.json("status", lab)["machines"]} == before
    assert call("pc", outside) == ["open"]

    # taken out of the spec, it is gone
    (lab / "lab.yaml").write_text(LAB.replace(", egress: nat", ""))
    labctl.run("up", lab)
    assert not [p for p in labctl.processes() if any("+exit-" in word for word in p.cmdline())]
    assert call("pc", outside) == ["closed"]
    labctl.run("destroy", lab, "--yes")
    assert labctl.processes() == []
