"""An installed wheel finds what ships beside the package in a checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def run(*argv: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(a) for a in argv], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_wheel_in_a_fresh_environment_plans_and_renders_from_another_folder(repository: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ".", cwd=repository)
    (wheel,) = (tmp_path / "dist").glob("labctl_vm-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    run(tmp_path / "env/bin/pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)
    labctl = tmp_path / "env/bin/labctl"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    assert '"$schema"' in run(labctl, "schema", cwd=elsewhere)
    run(labctl, "init", "mine", "--template", "dmz", cwd=elsewhere)
    assert '"lab": "mine"' in run(labctl, "plan", "mine", "--json", "--provider", "qemu", cwd=elsewhere)
    run(labctl, "render", "mine", "--provider", "virtualbox", "-o", "out", cwd=elsewhere)
    assert "Vagrant.configure('2')" in (elsewhere / "out/Vagrantfile").read_text()
    assert (elsewhere / "out/files/index.html").read_bytes() == (repository / "labs/dmz/files/index.html").read_bytes()
