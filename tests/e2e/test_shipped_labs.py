"""Each lab that ships comes up, is proven, and goes without a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", ["quickstart", "flat", "dmz"])
def test_a_shipped_lab_lives_a_whole_life(name: str, labctl: Labctl, shipped: Callable[[str], Path]) -> None:
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

    labctl.run("destroy", lab, "--yes")
    assert labctl.json("list") == []
    assert labctl.processes() == []
