"""Every valid example and the model it becomes, in full.

``LABCTL_WRITE_GOLDEN=1 pytest tests/golden/spec`` writes the texts anew; read the difference before it is kept.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from pprint import pformat

import pytest

from labctl.spec.load import load

pytestmark = pytest.mark.golden

VALID = Path(__file__).parent / "valid"


@pytest.mark.parametrize("case", sorted(VALID.glob("*.yaml")), ids=lambda case: case.stem)
def test_the_model_is_the_one_that_was_agreed(case: Path) -> None:
    spec = load(case)
    assert spec.file == case
    text = pformat(replace(spec, file=Path(case.name)), width=120, sort_dicts=False) + "\n"
    expected = case.with_suffix(".txt")
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")
