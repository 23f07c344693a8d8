"""Labs with tasks: open in a fresh lab, which is as it should be all the same, all done after the teacher's script.

What the script does leaves the lab as its file says. Where it closes what the file lets pass, ``teacher/policy.yaml``
has the policy that the lab is held to afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clean import verified_over_and_over
from tests.support.command import Labctl
from tests.support.teacher import score_before_and_after

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LABS = Path(__file__).parents[2] / "labs"
WITH_TASKS = sorted(script.parent.parent.name for script in LABS.glob("*/teacher/solve.sh"))
OFTEN = "malware"
"""The one that is tried in every test run: it is sealed."""
CLEAN_RUNS = {OFTEN: 5}
"""How often one is verified, where it is not once; with those of the other shipped labs twenty in every test run."""


def _not_held(report: Mapping[str, list[dict[str, object]]]) -> list[dict[str, object]]:
    """What a report of ``verify`` is not sure to be as it should be."""
    return [one for kind in ("flows", "host_evidence", "checks") for one in report[kind] if one["verdict"] != "PASS"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == OFTEN else pytest.mark.slow) for name in WITH_TASKS]
)
def test_the_teachers_script_earns_every_point(
    name: str, labctl: Labctl, shipped: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> None:
    lab = shipped(name)
    replace(labctl, host=None).run("image", "prepare", lab)  # packages come from a mirror, which only this computer has
    labctl.run("up", lab)
    report = labctl.json("verify", lab)
    assert _not_held(report) == []
    verified_over_and_over(labctl, lab, record_property, runs=CLEAN_RUNS.get(name, 1))
    fresh, solved = score_before_and_after(labctl, lab)
    assert (fresh["earned"], {check["verdict"] for check in fresh["checks"]}) == (0, {"FAIL"})
    assert [check for check in solved["checks"] if check["verdict"] != "PASS"] == []
    assert solved["earned"] == solved["possible"] > 0
    mended = lab / "teacher/policy.yaml"
    if mended.exists():
        assert {flow["expected"] for flow in _not_held(labctl.json("verify", lab, "--no-checks", code=3))} == {"pass"}
        spec = lab / "lab.yaml"
        spec.write_text(re.sub(r"(?m)^policy:.*\n(  .*\n)*", lambda _: mended.read_text(), spec.read_text()))
        labctl.run("up", lab)
    assert _not_held(labctl.json("verify", lab)) == []
    labctl.run("destroy", lab, "--yes")
