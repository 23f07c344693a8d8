"""Labs with tasks: open in a fresh lab, which is as it should be all the same, all done after the teacher's script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clean import verified_over_and_over
from tests.support.command import Labctl
from tests.support.teacher import score_before_and_after

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


LABS = Path(__file__).parents[2] / "labs"
WITH_TASKS = sorted(script.parent.parent.name for script in LABS.glob("*/teacher/solve.sh"))


@pytest.mark.parametrize("name", WITH_TASKS)
def test_the_teachers_script_earns_every_point(
    name: str, labctl: Labctl, shipped: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> None:
    lab = shipped(name)
    replace(labctl, host=None).run("image", "prepare", lab)  # packages come from a mirror, which only this computer has
    labctl.run("up", lab)
    report = labctl.json("verify", lab)
    assert {found["verdict"] for found in (*report["flows"], *report["checks"])} == {"PASS"}
    verified_over_and_over(labctl, lab, record_property)
    fresh, solved = score_before_and_after(labctl, lab)
    assert (fresh["earned"], {check["verdict"] for check in fresh["checks"]}) == (0, {"FAIL"})
    assert solved["earned"] == solved["possible"] > 0, solved
    labctl.run("destroy", lab, "--yes")
