"""The score: each leak of the catalogue, planted for real, turns what it must and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.leaks.catalogue import LEAKS, Leak
from tests.leaks.lab import Lab, Outcome
from tests.support import score

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

_SLOW = pytest.mark.slow
_WIRES = ["bridge", pytest.param("hub", marks=_SLOW)]
_PLANTED = [
    pytest.param(kind, leak, id=f"{kind}-{leak.name}", marks=[] if leak.often and kind == "bridge" else [_SLOW])
    for kind in ("bridge", "hub")
    for leak in LEAKS
    if kind in leak.wires
]


@pytest.mark.parametrize("wires", _WIRES)
def test_a_clean_lab_is_clean(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    _clean(lab.verify(), record_property)


@pytest.mark.parametrize(("wires", "leak"), _PLANTED)
def test_a_leak_turns_its_cells_and_no_others(
    lab: Lab, leak: Leak, record_property: Callable[[str, object], None]
) -> None:
    found = False
    try:
        leak.plant(lab)
        outcome = lab.verify()
        chance = outcome.wanted(leak.chance)
        assert outcome.cells("FAIL") - chance == outcome.wanted(leak.fails) - chance, outcome.findings
        assert outcome.cells("INCONCLUSIVE") == outcome.wanted(leak.unsure), outcome.findings
        assert outcome.evidence() == leak.evidence, outcome.findings
        found = True
    finally:
        record_property(score.LEAK, found)
        leak.remove(lab)


@pytest.mark.parametrize("wires", _WIRES)
def test_a_lab_is_clean_when_its_leaks_are_gone(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    _clean(lab.verify(), record_property)


def _clean(outcome: Outcome, record_property: Callable[[str, object], None]) -> None:
    record_property(score.CLEAN, outcome.code == 0)
    assert not outcome.cells("FAIL"), outcome.findings
    assert not outcome.cells("INCONCLUSIVE"), outcome.findings
    assert not outcome.evidence(), outcome.findings
