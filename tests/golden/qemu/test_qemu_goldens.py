"""What ``labctl render --provider qemu`` writes.

``LABCTL_WRITE_GOLDEN=1 pytest tests/golden/qemu`` writes the texts anew; read the difference before it is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.providers import PROVIDERS
from labctl.providers.base import BootImage
from labctl.spec.load import load

pytestmark = pytest.mark.golden

HERE = Path(__file__).parent
IMAGE = BootImage("debian-12", "d" * 64, Path("/images/disk"), Path("/images/kernel"), Path("/images/initrd"), "quiet")


@pytest.mark.parametrize("lab", sorted(HERE.glob("*.yaml")), ids=lambda lab: lab.stem)
def test_rendered_files(lab: Path) -> None:
    plan = build(load(lab))
    images = {machine.name: IMAGE for machine in plan.machines if machine.name != "ids"}  # that one is not built yet
    files = PROVIDERS["qemu"].render(plan, images)
    folder = lab.with_suffix("")
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert files == {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
