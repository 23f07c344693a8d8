"""A real guest that has lost its python3 is probed with what is left: bash, ping and setpriv, as Debian has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Labctl
from tests.support.inside import NOBODY_WAITS

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

LAB = """\
version: 1
name: snakeless
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  lan: {subnet: 10.20.0.0/27}
  dmz: {subnet: 10.20.1.0/27}
machines:
  fw: {router: true, networks: {lan: 10.20.0.1, dmz: 10.20.1.1}}
  pc: {networks: [lan]}
  web: {networks: [dmz]}
"""


@pytest.fixture
def lab(labctl: Labctl) -> Path:
    folder = labctl.home / "snakeless"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    return folder


def verdicts(report: Any, verdict: str) -> set[tuple[Any, ...]]:
    return {
        (f["source"], f["source_device"], f["target"], f["protocol"], f["port"])
        for f in report["flows"]
        if f["verdict"] == verdict
    }


def test_a_guest_without_python_is_probed_with_what_it_has(labctl: Labctl, lab: Path) -> None:
    labctl.run("up", lab)
    labctl.run("exec", lab, "pc", "--", "sh", "-c", f"{NOBODY_WAITS}; chmod a-x $(readlink -f /usr/bin/python3)")
    report = labctl.json("verify", lab, code=4)
    assert not verdicts(report, "FAIL")
    for flow in report["flows"]:
        mine = "pc" in (flow["source"], flow["target"])
        if flow["verdict"] != "PASS":
            assert mine, flow
        if flow["protocol"] == "frame" and mine:
            assert flow["verdict"] == "INCONCLUSIVE"
            assert "it has no python3" in flow["evidence"]["details"]
    passed = verdicts(report, "PASS")
    assert ("pc", "eth0", "fw", "tcp", 9) in passed, "it reaches whom it may"
    assert ("pc", "eth0", "web", "tcp", 22) in passed and ("pc", "mgmt", "web", "tcp", 9) in passed
    assert ("pc", "mgmt", "management", "udp", 69) in passed

    labctl.run("exec", lab, "fw", "--", "nft", "insert rule inet labctl forward tcp dport 22 accept")
    leaking = labctl.json("verify", lab, code=3)
    assert ("pc", "eth0", "web", "tcp", 22) in verdicts(leaking, "FAIL")
    labctl.run("destroy", lab, "--yes")
