"""Real labs, driven by the command line as a user drives it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import LABCTL, Labctl


@pytest.fixture(scope="module")
def labctl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labctl]:
    """labctl for one test module; whatever the tests leave is destroyed at the end, and nothing may stay behind."""
    home = tmp_path_factory.mktemp("e2e")
    command = Labctl(home / "state", home)
    yield command
    for found in command.json("list"):
        subprocess.run(
            [*LABCTL, "destroy", found["lab"], "--instance", found["instance"], "--yes"],
            env=command.environment,
            cwd=home,
            capture_output=True,
            check=True,
            timeout=120,
        )
    assert command.processes() == []


@pytest.fixture
def shipped(labctl: Labctl, request: pytest.FixtureRequest) -> Any:
    """A function that copies a shipped lab into the test's home and gives its folder."""

    def copy(name: str) -> Path:
        source = Path(__file__).resolve().parents[2] / "labs" / name
        return Path(shutil.copytree(source, labctl.home / name, dirs_exist_ok=True))

    return copy
