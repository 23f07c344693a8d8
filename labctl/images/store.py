"""The cache of images: entries are whole or not there, named by what they are made of, and never change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.errors import BusyError, HostError
from labctl.events import Event, Listener
from labctl.host import files
from labctl.host.folders import cache_root
from labctl.images import leftovers
from labctl.images.model import Image

MANIFEST = "manifest.json"
DISK, KERNEL, INITRD, ROOT_TAR = "disk.qcow2", "kernel", "initrd", "rootfs.tar"
_VERSION = 1
_LOCK_POLL_SECONDS = 0.2
_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file as it was when its entry was finished. size is in bytes, mtime_ns in nanoseconds since the epoch."""

    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished entry. key: what it was made of. source: ``recipe``, ``packages``, ``download`` or ``import``.

    ``left_out`` in details: name to SHA-256 of files that belong to the image and did not come with it (``transfer``).
    """

    folder: Path
    name: str
    key: str
    source: str
    created: float
    user: str = "root"
    cmdline: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileFact] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all files, those that were left out included."""
        return digest_of({**self.details.get("left_out", {}), **{n: fact.sha256 for n, fact in self.files.items()}})

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(fact.size for fact in self.files.values())

    def path(self, name: str) -> Path | None:
        """Where one of its files is; None where the entry has no such file."""
        return self.folder / name if name in self.files else None

    def damage(self, *, thorough: bool = False) -> str:
        """What is wrong with its files, or ``""``: by size and time of change, and by digest where ``thorough``."""
        for name, fact in self.files.items():
            try:
                found = (self.folder / name).stat()
            except OSError:
                return f"{name} is missing"
            if found.st_size != fact.size:
                return f"{name} has {found.st_size} bytes instead of {fact.size}"
            if found.st_mtime_ns != fact.mtime_ns:
                return f"{name} was changed"
            if thorough and files.digest(self.folder / name) != fact.sha256:
                return f"{name} has another content"
        return ""

    def image(self) -> Image:
        """The entry as the rest of labctl uses it."""
        disk = self.folder / DISK
        return Image(self.name, self.digest, disk, self.path(KERNEL), self.path(INITRD), self.cmdline, self.user)


def digest_of(digests: Mapping[str, str]) -> str:
    """The digest of an image from those of its files, by name."""
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


class Store:
    """The entries below one folder, by default ``images`` in labctl's cache folder."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root() / "images"

    def entries(self, name: str | None = None) -> tuple[Stored, ...]:
        """All finished entries, or those of one image, the newest first; damaged ones too."""
        found = (_read(path.parent) for path in self.root.glob(f"[!.]*/{MANIFEST}"))
        mine = [stored for stored in found if stored is not None and name in (None, stored.name)]
        return tuple(sorted(mine, key=lambda stored: stored.created, reverse=True))

    def find(self, name: str, key: str, listener: Listener) -> Stored | None:
        """The newest undamaged entry of this name and key. Damaged ones are removed, and the listener hears why."""
        for stored in self.entries(name):
            if stored.key != key:
                continue
            damage = stored.damage()
            if not damage:
                return stored
            listener(Event("warning", "image", name, f"the cached image is damaged ({damage}) and not used"))
            files.remove_tree(stored.folder)
        return None

    @contextlib.contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """An empty folder to make an entry in; it is gone afterwards unless ``keep`` has taken it.

        Raises HostError on a full disk, also where a block inside ran into it.
        """
        self._make_root()
        leftovers.clear(self.root, files.remove_tree)
        folder = self.root / leftovers.folder_name(name)
        try:
            folder.mkdir(mode=0o700)
            yield folder
        except OSError as error:
            raise files.explained(self.root, error) from error
        finally:
            files.remove_tree(folder)

    def keep(self, draft: Path, stored: Stored) -> Stored:
        """Turn a draft folder into a finished entry; ``stored`` says what it is, its folder and files are set here."""
        facts = {}
        for path in sorted(draft.iterdir()):
            path.chmod(0o644)
            found = path.stat()
            facts[path.name] = FileFact(files.digest(path), found.st_size, found.st_mtime_ns)
        name = f"{stored.name}-{stored.key[:12]}-{secrets.token_hex(3)}"
        done = Stored(
            self.root / name,
            stored.name,
            stored.key,
            stored.source,
            stored.created,
            stored.user,
            stored.cmdline,
            stored.details,
            facts,
        )
        files.write_json(draft / MANIFEST, _to_json(done))
        draft.chmod(0o755)
        draft.rename(done.folder)
        return done

    def remove(self, name: str) -> tuple[Path, ...]:
        """Remove all entries of an image, damaged ones too; returns the folders that are gone."""
        gone = tuple(stored.folder for stored in self.entries(name))
        for folder in gone:
            files.remove_tree(folder)
        return gone

    @contextlib.contextmanager
    def lock(self, name: str, key: str, listener: Listener) -> Iterator[None]:
        """Hold the right to make one entry; where another process has it, say so to the listener and wait."""
        from filelock import FileLock, Timeout

        self._make_root()
        path = self.root / f".lock-{name}-{key[:12]}"
        lock = FileLock(path, is_singleton=False)
        holder = path.with_name(f"{path.name}.holder")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            said = _holder(holder)
            listener(Event("progress", "image", name, f"another labctl ({said}) is making this image; waiting for it"))
            try:
                lock.acquire(timeout=_WAIT_SECONDS, poll_interval=_LOCK_POLL_SECONDS)
            except Timeout as error:
                raise BusyError(
                    f"another labctl ({said}) has been making the image {name} for an hour",
                    hint="Stop that process if it hangs, then repeat the command.",
                ) from error
        try:
            files.write_atomic(holder, f"{os.getpid()} {time.time():.0f}\n")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"the folder of images cannot be made: {self.root}: {error.strerror}") from error


def _holder(path: Path) -> str:
    try:
        pid, since = path.read_text().split()
        return f"process {pid}, since {time.strftime('%H:%M:%S', time.localtime(float(since)))}"
    except (OSError, ValueError):
        return "a process that has just begun"


def _to_json(stored: Stored) -> dict[str, Any]:
    facts = {n: {"sha256": f.sha256, "size": f.size, "mtime_ns": f.mtime_ns} for n, f in stored.files.items()}
    return {
        "version": _VERSION,
        "name": stored.name,
        "key": stored.key,
        "source": stored.source,
        "created": stored.created,
        "user": stored.user,
        "cmdline": stored.cmdline,
        "details": dict(stored.details),
        "files": facts,
    }


def _read(folder: Path) -> Stored | None:
    """The entry in a folder; None where it is none of ours or half written."""
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            return None
        facts = {
            str(name): FileFact(str(f["sha256"]), int(f["size"]), int(f["mtime_ns"]))
            for name, f in data["files"].items()
        }
        return Stored(
            folder,
            str(data["name"]),
            str(data["key"]),
            str(data["source"]),
            float(data["created"]),
            str(data["user"]),
            str(data["cmdline"]),
            dict(data["details"]),
            facts,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
