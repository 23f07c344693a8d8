"""Rendered Vagrantfiles of every shipped lab, and those of labs that use every field with all files that they read.

Labs that are not sealed are sealed for engines that can hold no others.

``LABCTL_WRITE_GOLDEN=1 pytest tests/golden/vagrant`` writes them anew; read the difference before it is kept.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.plan.build import build
from labctl.providers.vagrant import BACKENDS
from labctl.spec.load import load

pytestmark = pytest.mark.golden

HERE = Path(__file__).parent
SHIPPED = HERE.parents[2] / "labs"
REFUSED = {("shipped/sensor", "libvirt"): "sensor is promiscuous on office"}
CASES = [
    *(
        (f"shipped/{lab.name}", engine)
        for lab in sorted(SHIPPED.iterdir())
        for engine in ("virtualbox", "libvirt")
        if (f"shipped/{lab.name}", engine) not in REFUSED
    ),
    ("alone", "hyperv"),
    ("apart", "libvirt"),
    ("dmz", "virtualbox"),
    ("dmz", "libvirt"),
    ("dmz", "vmware_desktop"),
    ("everything", "virtualbox"),
    ("plain", "libvirt"),
    ("plain", "vmware_desktop"),
]


def render(lab: str, provider: str) -> dict[str, str]:
    backend = next(backend for backend in BACKENDS if backend.name == provider)
    at_home = SHIPPED / Path(lab).name if lab.startswith("shipped/") else HERE / lab
    plan = build(load(at_home / "lab.yaml"), provider=provider)
    if provider in ("vmware_desktop", "hyperv"):
        plan = replace(plan, seal=True)
    return dict(backend.render(plan, {}))


@pytest.mark.parametrize(("lab", "provider"), CASES)
def test_the_rendered_files_are_those_that_were_reviewed(lab: str, provider: str) -> None:
    rendered = render(lab, provider)
    if lab.startswith("shipped/"):
        rendered = {name: text for name, text in rendered.items() if not name.startswith("provision/")}
    folder = HERE / lab / provider
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in rendered.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    reviewed = {p.relative_to(folder).as_posix(): p.read_bytes().decode() for p in folder.rglob("*") if p.is_file()}
    assert rendered.keys() == reviewed.keys()
    for name, text in rendered.items():
        assert text == reviewed[name], f"{name} has changed"


@pytest.mark.parametrize(("lab", "provider"), REFUSED)
def test_a_shipped_lab_that_an_engine_cannot_hold_is_refused_with_the_reason(lab: str, provider: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[lab, provider]):
        render(lab, provider)


def test_every_golden_has_its_case() -> None:
    there = {p.parent.relative_to(HERE) for p in HERE.rglob("Vagrantfile")}
    assert {(place.parent.as_posix(), place.name) for place in there} == set(CASES)
