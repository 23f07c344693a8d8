"""Real labs, driven by the command line as a user drives it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.command import Labctl
from tests.support.libvirt import libvirtd
from tests.support.surroundings import surroundings


@pytest.fixture(scope="module")
def labctl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labctl]:
    """labctl for one test module, on a host of its own from which no packet gets further than a second namespace.

    Whatever the tests leave is destroyed at the end, and nothing may stay behind.
    """
    images.debian()  # packages come from a mirror, which only this computer has
    home = tmp_path_factory.mktemp("e2e")
    with surroundings(home) as host:
        command = Labctl(home / "state", home, host)
        yield command
        command.destroy_all()
    assert command.processes() == []


@pytest.fixture
def libvirt_host(labctl: Labctl, tmp_path: Path) -> Iterator[Labctl]:
    """labctl on a host with libvirt, and with a Vagrant that shares nothing with the user's."""
    assert labctl.host is not None
    with libvirtd(labctl.host, tmp_path / "libvirt"):
        command = replace(labctl, variables={"VAGRANT_HOME": str(tmp_path / "vagrant")})
        yield command
        command.destroy_all()  # while there is a daemon to ask


@pytest.fixture
def shipped(labctl: Labctl, request: pytest.FixtureRequest) -> Any:
    """A function that copies a shipped lab into the test's home and gives its folder."""

    def copy(name: str) -> Path:
        source = Path(__file__).resolve().parents[2] / "labs" / name
        return Path(shutil.copytree(source, labctl.home / name, dirs_exist_ok=True))

    return copy
