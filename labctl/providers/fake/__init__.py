"""An engine that keeps its machines as notes in a file: for rehearsals, and for tests of everything above engines."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.plan.model import LabPlan
from labctl.providers.base import Backend, BootImage, Lack, Provider


def _probe() -> tuple[Lack, ...]:
    return ()


def _render(plan: LabPlan, _images: Mapping[str, BootImage]) -> Mapping[str, str]:
    return {"machines.txt": "".join(f"{machine.name}\n" for machine in plan.machines)}


def _load() -> type[Provider]:
    from labctl.providers.fake.provider import FakeProvider  # see Backend.load

    return FakeProvider


BACKEND = Backend("fake", "notes instead of machines, for rehearsals and tests", _probe, _render, _load)
