"""Packages and package lists kept between builds, so that the second image downloads only what is new."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from labctl.host import files

_LIMIT = 512 << 20  # every build copies all of it, so it must not grow without end


@dataclass(frozen=True, slots=True)
class Downloads:
    """A folder with ``debs`` and, per release, ``lists``."""

    root: Path

    def lend(self, release: str, staging: Path) -> None:
        """Fill ``staging/debs`` and ``staging/lists`` with what there is, as hard links where possible."""
        for kind in (Path("debs"), Path("lists")):
            folder = self._folder(kind.name, release)
            (staging / kind).mkdir(parents=True)
            for path in sorted(folder.glob("*")):
                if path.is_file() and not path.name.startswith("."):
                    _link(path, staging / kind / path.name)

    def keep(self, release: str, staging: Path) -> None:
        """Take over what a build has left in ``staging/debs`` and ``staging/lists``."""
        for kind in ("debs", "lists"):
            folder = self._folder(kind, release)
            folder.mkdir(parents=True, exist_ok=True)
            for path in (staging / kind).iterdir():
                wanted = path.suffix == ".deb" if kind == "debs" else path.name != "lock"
                if path.is_file() and wanted:
                    path.replace(folder / path.name)
        self._prune()

    def drop(self) -> None:
        """Forget everything."""
        files.remove_tree(self.root)

    def _folder(self, kind: str, release: str) -> Path:
        return self.root / "debs" if kind == "debs" else self.root / f"lists-{release}"

    def _prune(self) -> None:
        """Remove the packages that came first until the rest is below the limit."""
        debs = sorted((self.root / "debs").glob("*.deb"), key=lambda path: path.stat().st_ctime)
        total = sum(path.stat().st_size for path in debs)
        for path in debs:
            if total <= _LIMIT:
                return
            total -= path.stat().st_size
            path.unlink()


def _link(source: Path, target: Path) -> None:
    """Link or copy a file that another build may be removing right now."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
