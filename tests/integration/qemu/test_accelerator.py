"""An accelerator is trusted only after it ran a guest. The stand-ins behave as broken and working ones do."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.providers.qemu import accelerator as module
from labctl.providers.qemu.accelerator import accelerator

pytestmark = pytest.mark.integration

RUNS_A_SECTOR = 'case "$*" in *isa-debug-exit*) exit 33;; esac'


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH but for a shell, on a host that has a device to open."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin{os.pathsep}/usr/bin")
    monkeypatch.setattr(module, "_absent", lambda _: "")
    monkeypatch.setattr(module, "_SECTOR_SECONDS", 0.5)
    monkeypatch.setattr(module, "_KERNEL_SECONDS", 0.5)
    return folder / module.BINARY


def behave(qemu: Path, script: str) -> None:
    """Make a stand-in for QEMU that counts its calls."""
    qemu.write_text(f"#!/bin/sh\necho x >>{qemu}.calls\n{script}\n")
    qemu.chmod(qemu.stat().st_mode | stat.S_IXUSR)


def calls(qemu: Path) -> int:
    log = Path(f"{qemu}.calls")
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_hanging_at_a_boot_sector_is_noticed_in_time(qemu: Path) -> None:
    behave(qemu, "sleep 60")
    started = time.monotonic()
    found = accelerator()
    assert time.monotonic() - started < 5
    assert found.name == "tcg" and "boot sector within" in found.reason


def test_not_starting_gives_its_words(qemu: Path) -> None:
    behave(qemu, "echo 'failed to initialize kvm' >&2; exit 1")
    assert "failed to initialize kvm" in accelerator().reason


def test_hanging_at_an_ordinary_kernel_is_noticed(qemu: Path, tmp_path: Path) -> None:
    behave(qemu, f"{RUNS_A_SECTOR}\nsleep 60")
    found = accelerator(tmp_path / "kernel")
    assert found.name == "tcg" and "hangs an ordinary Linux kernel" in found.reason


def test_working_one_is_used_and_remembered(qemu: Path, tmp_path: Path) -> None:
    behave(qemu, f"{RUNS_A_SECTOR}\nexit 0")
    assert accelerator(tmp_path / "kernel").name != "tcg"
    assert calls(qemu) == 2
    assert accelerator(tmp_path / "kernel").name != "tcg"
    assert calls(qemu) == 2


def test_answer_without_a_kernel_is_preliminary(qemu: Path, tmp_path: Path) -> None:
    behave(qemu, f"{RUNS_A_SECTOR}\nsleep 60")
    assert not accelerator().kernel and accelerator().name != "tcg"
    assert accelerator(tmp_path / "kernel").name == "tcg"
    assert accelerator().name == "tcg"


def test_another_qemu_is_tried_anew(qemu: Path) -> None:
    behave(qemu, "exit 1")
    assert accelerator().name == "tcg"
    behave(qemu, f"{RUNS_A_SECTOR}\nexit 0 # an update")
    assert accelerator().name != "tcg"


@pytest.mark.parametrize("note", ["", "{", "[]", '{"key": 1}', '{"key": "", "accelerator": {"x": 1}}'])
def test_damaged_note_costs_a_trial(qemu: Path, note: str) -> None:
    behave(qemu, "exit 1")
    accelerator()
    path = Path(os.environ["LABCTL_STATE_DIR"]) / "accelerator.json"
    key = json.loads(path.read_text())["key"]
    path.write_text(note.replace('"key": ""', f'"key": {json.dumps(key)}'))
    assert accelerator().name == "tcg"
    assert calls(qemu) == 2


def test_missing_qemu_is_a_host_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="not installed"):
        accelerator()


def test_this_host_is_answered_within_seconds() -> None:
    started = time.monotonic()
    first = accelerator()
    assert time.monotonic() - started < 12
    started = time.monotonic()
    assert accelerator() == first
    assert time.monotonic() - started < 0.1
    assert first.reason
