"""Makes entries of the store out of entries of the catalogue, each once, whoever asks and however often."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.errors import ImageError
from labctl.events import Event, Listener
from labctl.host import files
from labctl.host.runner import Runner
from labctl.images import bootstrap, catalogue, disk, dpkg, fetch, host_tools
from labctl.images.downloads import Downloads
from labctl.images.model import Download, Entry, Recipe
from labctl.images.store import DISK, INITRD, KERNEL, ROOT_TAR, Store, Stored


@dataclass(frozen=True, slots=True)
class Workshop:
    """The store, and who hears of progress and starts programs."""

    store: Store
    listener: Listener
    runner: Runner

    def get(self, name: str, packages: tuple[str, ...] = (), *, again: bool = False) -> Stored:
        """An image with packages baked in, made where it is missing or, with ``again``, in any case.

        packages: sorted names. Raises ImageError, HostError, BusyError, SpecError.
        """
        entries = catalogue.load()
        if name not in entries and (own := self._own(name)):
            source: object = own
        else:
            source = catalogue.find(name, entries).qemu
        if isinstance(source, Recipe):
            return self._recipe(entries[name], packages, entries, time.time() if again else 0.0)
        if packages:
            raise ImageError(
                f"packages cannot be baked into the image {name}: it was not built from packages",
                hint="Take an image with a recipe, or install them in a shell step.",
            )
        if isinstance(source, Download):
            return self.download(name, entries[name].user, source)
        if isinstance(source, Stored):
            return source
        raise ImageError(
            f"the image {name} has no source for qemu", hint="labctl image list shows those that have one."
        )

    def cached(self, name: str, packages: tuple[str, ...] = ()) -> Stored | None:
        """What ``get`` would give, where it would make nothing; None where it would, or knows no such image."""
        entries = catalogue.load()
        if name not in entries:
            return self._own(name) if not packages else None
        source = entries[name].qemu
        if isinstance(source, Recipe):
            return self._cached_recipe(entries[name], source, packages, entries)
        if isinstance(source, Download) and not packages:
            return self.store.find(name, _key("download", source.sha256), self.listener)
        return None

    def _cached_recipe(
        self, entry: Entry, recipe: Recipe, packages: tuple[str, ...], entries: Mapping[str, Entry]
    ) -> Stored | None:
        base: Stored | None = None
        if packages:
            base = self._cached_recipe(entry, recipe, (), entries)
        elif recipe.base and isinstance(below := entries[recipe.base].qemu, Recipe):
            base = self._cached_recipe(entries[recipe.base], below, (), entries)
        if base is None and (packages or recipe.base):
            return None
        return self.store.find(entry.name, _root_key(_job(entry, recipe, packages, base), base), self.listener)

    def download(self, name: str, user: str, source: Download) -> Stored:
        """The image behind a URL, fetched where it is missing."""
        key = _key("download", source.sha256)

        def make() -> Stored:
            with self.store.draft(name) as draft:
                fetched = draft / "fetched"
                fetch.fetch(source.url, source.sha256, fetched, name=name, listener=self.listener)
                disk.convert(fetched, draft / DISK, self.runner)
                fetched.unlink()
                details = {"url": source.url, "sha256": source.sha256}
                return self.store.keep(draft, _new(name, key, "download", user=user, details=details))

        return self._once(name, key, f"fetching {source.url}", make)

    def import_file(self, name: str, user: str, path: Path) -> Stored:
        """A local disk image as an entry of its own."""
        sha256 = files.digest(path)
        key = _key("import", sha256)

        def make() -> Stored:
            with self.store.draft(name) as draft:
                kind = disk.convert(path, draft / DISK, self.runner)
                details = {"format": kind, "sha256": sha256}
                return self.store.keep(draft, _new(name, key, "import", user=user, details=details))

        return self._once(name, key, f"importing {path}", make)

    def _own(self, name: str) -> Stored | None:
        """What was pulled or imported under a name that no catalogue has."""
        for stored in self.store.entries(name):
            if stored.source in ("download", "import"):
                found = self.store.find(name, stored.key, self.listener)
                if found is None:
                    raise ImageError(f"the image {name} was damaged and is gone", hint="Import or pull it again.")
                return found
        return None

    def _recipe(self, entry: Entry, packages: tuple[str, ...], entries: Mapping[str, Entry], since: float) -> Stored:
        """An image with a recipe. since: entries made before this time (seconds since the epoch) are too old."""
        recipe = entry.qemu
        if not isinstance(recipe, Recipe):
            raise ImageError(f"the image {entry.name} is not built from packages")
        base: Stored | None = None
        if packages:
            base = self._recipe(entry, (), entries, since)
        elif recipe.base:
            base = self._recipe(entries[recipe.base], (), entries, since)
        job = _job(entry, recipe, packages, base)
        key = _root_key(job, base)
        what = f"adding {', '.join(job.packages)}" if base else f"building from packages of Debian {job.release}"
        return self._once(entry.name, key, what, lambda: self._build(entry, job, key, base, packages), since)

    def _build(
        self, entry: Entry, job: bootstrap.RootJob, key: str, base: Stored | None, packages: tuple[str, ...]
    ) -> Stored:
        host_tools.require()
        downloads = Downloads(self.store.root.parent / "packages")
        with self.store.draft(entry.name) as draft, host_tools.scratch(entry.name, self.runner) as scratch:
            bootstrap.make_root(job, draft, scratch, downloads, self.runner)
            self.listener(Event("progress", "image", entry.name, "making the disk"))
            bootstrap.make_disk(draft, scratch, self.runner, boot_files=base is None)
            if base is not None:
                for name in (KERNEL, INITRD):
                    _link(base.folder / name, draft / name)
            versions = dpkg.versions(draft / ROOT_TAR)
            if packages:
                (draft / ROOT_TAR).unlink()  # nothing is ever built on top of a machine's own packages
            source = "packages" if packages else "recipe"
            details = {
                "release": job.release,
                "packages": list(job.packages),
                "base": base.digest if base else "",
                "versions": versions,
            }
            new = _new(entry.name, key, source, user=entry.user, cmdline=bootstrap.CMDLINE, details=details)
            return self.store.keep(draft, new)

    def _once(self, name: str, key: str, what: str, make: Callable[[], Stored], since: float = 0.0) -> Stored:
        """The entry with this key, made by ``make`` where there is none younger than ``since``."""
        if found := self._young(name, key, since):
            return found
        with self.store.lock(name, key, self.listener):
            if found := self._young(name, key, since):
                return found
            started = time.monotonic()
            self.listener(Event("started", "image", name, what))
            try:
                made = make()
            except BaseException:
                self.listener(Event("failed", "image", name, what))
                raise
            self.listener(Event("done", "image", name, what, seconds=time.monotonic() - started))
            return made

    def _young(self, name: str, key: str, since: float) -> Stored | None:
        found = self.store.find(name, key, self.listener)
        return found if found and found.created >= since else None


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _job(entry: Entry, recipe: Recipe, packages: tuple[str, ...], base: Stored | None) -> bootstrap.RootJob:
    release = str(base.details["release"]) if base else recipe.release
    return bootstrap.RootJob(entry.name, release, packages or recipe.packages, base.path(ROOT_TAR) if base else None)


def _root_key(job: bootstrap.RootJob, base: Stored | None) -> str:
    return _key("root", bootstrap.tool_digest(), base.digest if base else job.release, *job.packages)


def _new(name: str, key: str, source: str, *, user: str, cmdline: str = "", details: Mapping[str, Any]) -> Stored:
    return Stored(Path(), name, key, source, time.time(), user, cmdline, details)


def _link(source: Path, target: Path) -> None:
    """The same file in another entry: it lives as long as either does."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
