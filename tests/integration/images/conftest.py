"""What the image tests share: the user's own debian-12, built once, and caches that start with nothing but it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.images import Image, resolve
from labctl.images.store import Store

_RESOLVE = """
import sys
from labctl.images import resolve
listen = lambda event: print(event.status, event.message, file=sys.stderr, flush=True)
print(resolve("debian-12", sys.argv[1:], listener=listen).disk)
"""


@pytest.fixture(scope="session")
def debian() -> Image:
    """Debian 12 in the user's own cache: tests, demo and user share it, for it is named by its content."""
    return resolve("debian-12")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(cache))
    return cache


@pytest.fixture
def cache_with_base(debian: Image, empty_cache: Path) -> Path:
    """A cache folder that holds debian-12 and its downloads, and nothing else."""
    own = debian.disk.parent
    _copy(own, empty_cache / "images" / own.name)
    if (own.parent.parent / "packages").is_dir():
        _copy(own.parent.parent / "packages", empty_cache / "packages")
    assert len(Store().entries()) == 1
    return empty_cache


def _copy(source: Path, target: Path) -> None:
    def link(file: str, to: str) -> None:
        try:
            os.link(file, to)
        except OSError:  # another file system
            shutil.copy2(file, to)

    shutil.copytree(source, target, copy_function=link)


class Resolving:
    """A labctl of its own that makes debian-12 with packages."""

    def __init__(self, *packages: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RESOLVE, *packages],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )

    def finish(self) -> tuple[str, str]:
        """The path of the disk and what was said on the way; fails where it fails."""
        out, err = self.process.communicate(timeout=280)
        assert self.process.returncode == 0, err
        return out.strip(), err


@pytest.fixture
def resolving() -> type[Resolving]:
    """Starts another labctl at work on an image."""
    return Resolving
