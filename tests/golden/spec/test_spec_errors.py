"""Every message an author can see: one bad lab and one text each.

``LABCTL_WRITE_GOLDEN=1 pytest tests/golden/spec`` writes the texts anew; read the difference before it is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labctl.spec.load import check
from labctl.spec.problems import render_text

pytestmark = pytest.mark.golden

ERRORS = Path(__file__).parent / "errors"
CASES = sorted(ERRORS.glob("*.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_message_is_the_one_that_was_agreed(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ERRORS)
    text = render_text(check(Path(case.name))) + "\n"
    expected = case.with_suffix(".txt")
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        expected.write_text(text, encoding="utf-8")
    assert text.strip(), "this lab has no problem"
    assert text == expected.read_text(encoding="utf-8")


def test_no_text_is_left_without_its_lab() -> None:
    assert {path.stem for path in ERRORS.glob("*.txt")} == {case.stem for case in CASES}
