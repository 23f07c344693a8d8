"""Images made by mmdebstrap for real: what is in them, and what bad days leave behind."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from labctl.errors import HostError, ImageError
from labctl.images import Image, list_images, resolve
from labctl.images.leftovers import PREFIX
from labctl.images.store import Store

pytestmark = pytest.mark.integration

SMALL = "hello"  # a package of 50 kB that pulls in nothing


@pytest.fixture
def raw(tmp_path: Path) -> Any:
    """A function that gives an image's disk as a raw file, for debugfs."""

    def convert(image: Image) -> Path:
        target = tmp_path / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image.disk, target], check=True)
        return target

    return convert


def _debugfs(disk: Path, command: str) -> str:
    done = subprocess.run(["debugfs", "-R", command, disk], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_root_file_system_is_sound_and_holds_nothing_that_must_differ(debian: Image, raw: Any) -> None:
    disk = raw(debian)
    subprocess.run(["e2fsck", "-fn", disk], check=True, capture_output=True)
    assert "ssh_host" not in _debugfs(disk, "ls /etc/ssh")
    assert _debugfs(disk, "cat /etc/machine-id") == ""
    assert _debugfs(disk, "cat /etc/resolv.conf") == ""
    passwords = dict(line.split(":")[:2] for line in _debugfs(disk, "cat /etc/shadow").splitlines())
    assert passwords["root"] in ("*", "!")
    assert "99mmdebstrap" not in _debugfs(disk, "ls /etc/apt/apt.conf.d")
    assert "@" not in _debugfs(disk, "cat /etc/apt/sources.list")
    assert 'Fast link dest: "/dev/null"' in _debugfs(disk, "stat /etc/systemd/system/apt-daily.timer")


def test_owners_modes_and_capabilities_survive(debian: Image, raw: Any) -> None:
    disk = raw(debian)
    shadow = _debugfs(disk, "stat /etc/shadow")
    assert "Mode:  0640" in shadow
    assert "User:     0   Group:    42" in shadow
    assert "Mode:  04755" in _debugfs(disk, "stat /usr/bin/passwd")
    assert "security.capability (20)" in _debugfs(disk, "ea_list /usr/bin/ping")


def test_the_image_sees_four_gibibytes_and_takes_less_than_half_of_one(debian: Image) -> None:
    info = subprocess.run(["qemu-img", "info", debian.disk], capture_output=True, text=True, check=True).stdout
    assert "virtual size: 4 GiB" in info
    assert "backing file" not in info
    assert debian.disk.stat().st_size < 512 << 20


def test_a_cached_image_is_there_at_once(debian: Image) -> None:
    started = time.monotonic()
    assert resolve("debian-12") == debian
    assert time.monotonic() - started < 1.0


def test_packages_make_a_derived_image_once(cache_with_base: Path, debian: Image, raw: Any) -> None:
    image = resolve("debian-12", [SMALL, SMALL])
    assert image.digest != debian.digest
    assert image.kernel is not None
    assert debian.kernel is not None
    assert image.kernel.read_bytes() == debian.kernel.read_bytes()
    assert "Type: regular" in _debugfs(raw(image), f"stat /usr/bin/{SMALL}")
    assert resolve("debian-12", (SMALL,)) == image
    assert not list(cache_with_base.glob(f"images/{PREFIX}*"))
    assert next(status for status in list_images() if status.name == "debian-12").digest == debian.digest


def test_a_package_that_does_not_exist_is_named(cache_with_base: Path) -> None:
    with pytest.raises(ImageError, match="has no package no-such-package-at-all"):
        resolve("debian-12", ["no-such-package-at-all"])
    assert len(Store().entries()) == 1
    assert list(cache_with_base.glob("packages/debs/*.deb")), "an author's mistake must not cost the downloads"


def _build_processes(cache: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if any(str(cache) in word for word in p.info["cmdline"] or [])]


def _wait(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _scratch_of(pid: int) -> list[Path]:
    return [path for base in ("/dev/shm", "/var/tmp") for path in Path(base).glob(f"{PREFIX}{pid}-*")]


def test_a_killed_build_ends_whole_and_the_next_one_cleans_up(cache_with_base: Path, resolving: Any) -> None:
    first = resolving(SMALL)
    pid = first.process.pid
    _wait(lambda: [path for scratch in _scratch_of(pid) for path in scratch.glob("mmdebstrap.*/usr/bin/*")])
    first.process.kill()
    first.process.communicate()
    assert list(cache_with_base.glob(f"images/{PREFIX}{pid}-*"))
    assert _scratch_of(pid)
    assert PREFIX not in Path("/proc/self/mounts").read_text()

    disk, _ = resolving(SMALL).finish()
    assert Path(disk).exists()
    assert not _build_processes(cache_with_base)
    assert not list(cache_with_base.glob(f"images/{PREFIX}*"))
    assert not _scratch_of(pid)


@pytest.mark.slow
def test_two_builds_of_one_image_make_it_once(cache_with_base: Path, resolving: Any) -> None:
    both = [resolving(SMALL), resolving(SMALL)]
    (first, said_first), (second, said_second) = (one.finish() for one in both)
    assert first == second
    assert len(Store().entries()) == 2
    waited = [said for said in (said_first, said_second) if "is making this image; waiting for it" in said]
    assert len(waited) == 1


@pytest.fixture
def small_disk(debian: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with debian-12 on a file system of 64 MiB."""
    if os.geteuid() != 0:
        pytest.fail("this test mounts a file system of its own: run it as root")
    cache = tmp_path / "small"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", cache], check=True)
    try:
        (cache / "images").mkdir()
        (cache / "images" / debian.disk.parent.name).symlink_to(debian.disk.parent)
        monkeypatch.setenv("LABCTL_CACHE_DIR", str(cache))
        yield cache
    finally:
        subprocess.run(["umount", cache], check=True)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(small_disk: Path, debian: Image) -> None:
    with pytest.raises(HostError, match="the disk is full"):
        resolve("debian-12", [SMALL])
    assert not list(small_disk.glob(f"images/{PREFIX}*"))
    assert [entry.folder.name for entry in Store().entries()] == [debian.disk.parent.name]
