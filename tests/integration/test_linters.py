"""The linters are tests, so that one command tells all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent

LINTERS = {
    "ruff format": ["ruff", "format", "--check", "."],
    "ruff check": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
    "vulture": ["vulture"],
    "deptry": ["deptry", "labctl"],
}


@pytest.mark.parametrize("name", LINTERS)
def test_linter_is_content(name: str, repository: Path) -> None:
    program, *arguments = LINTERS[name]
    assert (BIN / program).exists(), f"{program} is missing: make setup installs it"
    done = subprocess.run([BIN / program, *arguments], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_layers_would_be_missed(repository: Path, tmp_path: Path) -> None:
    """The layer check is seen red: a copy of the package with one upward import must not pass."""
    import shutil

    shutil.copytree(repository / "labctl", tmp_path / "labctl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    with (tmp_path / "labctl" / "spec" / "model.py").open("a") as file:
        file.write("\nfrom labctl.plan import model as _upward\n")
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )
    assert done.returncode != 0
    assert "labctl.spec" in done.stdout
