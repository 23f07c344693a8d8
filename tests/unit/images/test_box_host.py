"""What a host is told that cannot make boxes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.images import host_tools

pytestmark = pytest.mark.unit


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host without programs and without GRUB; its folder of GRUB's parts."""
    monkeypatch.setattr(host_tools, "_SBIN", ())
    monkeypatch.setattr(host_tools, "GRUB", tmp_path / "grub")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "grub"


def test_a_host_without_the_tools_hears_all_remedies(bare_host: Path) -> None:
    with pytest.raises(HostError, match="cannot make Vagrant boxes") as caught:
        host_tools.require_for_boxes()
    packages = ["grub-common", "mtools", "e2fsprogs", "grub-pc-bin", "grub-efi-amd64-bin"]
    assert caught.value.hint.splitlines() == [f"sudo apt install {package}" for package in packages]


def test_grub_s_parts_are_looked_for_where_they_are_used(bare_host: Path) -> None:
    (bare_host / "i386-pc").mkdir(parents=True)
    (bare_host / "i386-pc/boot.img").touch()
    remedies = [lack.remedy for lack in host_tools.missing_for_boxes()]
    assert "sudo apt install grub-pc-bin" not in remedies
    assert "sudo apt install grub-efi-amd64-bin" in remedies
