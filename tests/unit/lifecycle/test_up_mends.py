"""``up`` of a lab whose machines all run as planned, where something beside them is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labctl.lifecycle import converge, locate
from labctl.plan.model import LabPlan
from labctl.providers.base import Job, Observed
from labctl.providers.fake.provider import FakeProvider

pytestmark = pytest.mark.unit

LAB = "version: 1\nname: worn\ndefaults: {image: debian-12}\nmachines: {a: {}}\n"


@pytest.mark.parametrize(
    "amiss", [{"wires": (("red", "a port is open"),)}, {"faults": ("a cable is out",)}, {"leftovers": ("a network",)}]
)
def test_the_provider_goes_over_it_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amiss: dict[str, Any]
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB)
    made: list[Job] = []
    observe, up = FakeProvider.observe, FakeProvider.up

    def worn(provider: FakeProvider, plan: LabPlan) -> Observed:
        found = observe(provider, plan)
        return found if len(made) > 1 else replace(found, **amiss)

    def mends(provider: FakeProvider, job: Job) -> None:
        made.append(job)
        up(provider, job)

    monkeypatch.setattr(FakeProvider, "observe", worn)
    monkeypatch.setattr(FakeProvider, "up", mends)
    converge.up(locate.draft(file, provider="fake"))
    assert not converge.up(locate.draft(file, provider="fake")).unchanged
    assert [dict(job.actions) for job in made] == [{"a": "create"}, {"a": "keep"}]
    assert converge.up(locate.draft(file, provider="fake")).unchanged
    assert len(made) == 2
