"""Each lab that ships comes up, is proven time and again, and goes without a trace."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clean import verified_over_and_over
from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


# What makes a check of each lab fail, and an expression that selects it.
SPOILT = {
    "quickstart": (["attacker", "--", "ip", "route", "add", "default", "dev", "eth0"], "way_out and attacker"),
    "flat": (["fileserver", "--", "sed", "-i", "/desk/d", "/etc/hosts"], "desk_by_name"),
    "dmz": (["web", "--", "sh", "-c", "echo defaced >/var/www/html/index.html"], "sees_the_shop"),
}
# How often each is verified; with a sealed one twenty times in every test run.
CLEAN_RUNS = {"quickstart": 12, "dmz": 3, "flat": 1}


def checked_in_all_conditions(labctl: Labctl, lab: Path) -> None:
    """Checks also run sealed, over the guest agent, and under plain pytest; a machine that is gone is no FAIL."""
    labctl.run("seal", lab)
    way_out = ["--only-checks", "-k", "way_out and victim"]
    assert [check["verdict"] for check in labctl.json("verify", lab, *way_out)["checks"]] == ["PASS"]
    with labctl.spawn(sys.executable, "-m", "pytest", str(lab / "checks"), "-k", "way_out and victim") as process:
        said, _ = process.communicate(timeout=280)
    assert "1 passed" in said.decode()
    labctl.run("down", lab, "--machine", "victim")
    assert [check["verdict"] for check in labctl.json("verify", lab, *way_out, code=4)["checks"]] == ["INCONCLUSIVE"]


@pytest.mark.parametrize("name", ["dmz", "quickstart", pytest.param("flat", marks=pytest.mark.slow)])
def test_a_shipped_lab_lives_a_whole_life(
    name: str, labctl: Labctl, shipped: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> None:
    lab = shipped(name)
    replace(labctl, host=None).run("image", "prepare", lab)  # packages come from a mirror, which only this computer has
    first = labctl.json("up", lab, "--provider", "qemu")
    assert {change["action"] for change in first["changes"]} == {"create"}

    before = {machine["name"]: machine["pid"] for machine in labctl.json("status", lab)["machines"]}
    second = labctl.json("up", lab)
    assert {change["action"] for change in second["changes"]} == {"keep"}
    assert {machine["name"]: machine["pid"] for machine in labctl.json("status", lab)["machines"]} == before

    report = labctl.json("verify", lab)
    assert Counter(flow["verdict"] for flow in report["flows"]).keys() == {"PASS"}
    expected = {flow["expected"] for flow in report["flows"]}
    assert expected == ({"deny"} if name == "quickstart" else {"pass", "deny"})
    assert [check for check in report["checks"] if check["verdict"] != "PASS"] == []
    assert len(report["checks"]) > 3
    assert {check["points"] for check in report["checks"]} == {None, 5}
    verified_over_and_over(labctl, lab, record_property, runs=CLEAN_RUNS[name])
    command, expression = SPOILT[name]
    labctl.run("exec", lab, *command)
    spoilt = labctl.json("verify", lab, "--only-checks", "-k", expression, code=3)
    assert {check["verdict"] for check in spoilt["checks"]} == {"FAIL"}
    if name == "quickstart":
        checked_in_all_conditions(labctl, lab)

    labctl.run("destroy", lab, "--yes")
    assert labctl.json("list") == []
    assert labctl.processes() == []
