"""What topologies of other tools become: the exact lab files.

``LABCTL_WRITE_GOLDEN=1 pytest tests/golden/import`` writes the labs anew; read the difference before it is kept. The
Vagrantfiles here are for the tests that have Vagrant: tests/integration/lifecycle.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labctl.lifecycle.foreign.translate import translate
from labctl.plan.build import build
from labctl.spec.load import load

pytestmark = pytest.mark.golden

CASES = sorted(path for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name[0] in "kc")


def never(_: Path) -> bool:
    pytest.fail("a topology is no program")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_lab_is_the_one_that_was_agreed(case: Path) -> None:
    made = translate(case, None, consent=never)
    expected = case / "lab.yaml"
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        expected.write_text(made.text, encoding="utf-8")
    assert made.problems == ()
    assert made.text == expected.read_text(encoding="utf-8")
    assert build(load(expected)).machines


def test_there_are_cases_of_each_tool() -> None:
    assert {case.name.partition("-")[0] for case in CASES} == {"kypo", "containerlab"}
