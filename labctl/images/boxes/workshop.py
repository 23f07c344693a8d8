"""Makes boxes out of images and fetches those that have a URL, each once; they are entries of the images' store."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from labctl.errors import ImageError
from labctl.events import Event
from labctl.images import catalogue, fetch, host_tools, workshop
from labctl.images.boxes import disk, guest, pack
from labctl.images.boxes.model import FILE, METHOD, PROVIDERS, SOURCE, USER, BoxFile, box_file, box_name, version
from labctl.images.model import Download, Recipe
from labctl.images.store import DISK, Stored


class BoxWorkshop(workshop.Workshop):
    """The images' workshop, which makes boxes too."""

    def box(self, name: str, packages: tuple[str, ...], provider: str) -> BoxFile:
        """The box of an image with packages in it, made or fetched where it is missing. packages: sorted names.

        Raises ImageError, HostError, BusyError, SpecError.
        """
        if provider not in PROVIDERS:
            raise ImageError(f"there are no boxes for {provider}", hint=f"There are for {' and '.join(PROVIDERS)}.")
        entries = catalogue.load()
        source = entries[name].boxes.get(provider) if name in entries else None
        if source is not None:
            if packages:
                raise ImageError(
                    f"packages cannot be put into the box {name}: it comes from {source.url} as it is",
                    hint="Take an image with a recipe, or install them in a shell step.",
                )
            return box_file(self._fetched(name, provider, source))
        if name not in entries or not isinstance(entries[name].qemu, Recipe):
            if not self.store.entries(name):
                catalogue.find(name, entries)
            raise ImageError(
                f"no box can be made of the image {name}: it was not built from packages",
                hint="Take an image with a recipe (labctl image list shows them).",
            )
        if not any(stored.source == SOURCE for stored in self.store.entries(name)):
            host_tools.require_for_boxes()  # before an image is built for nothing
        image = self.get(name, tuple(sorted({*packages, *guest.PACKAGES})))
        key = hashlib.sha256("\n".join(("box", tool_digest(), image.digest, provider)).encode()).hexdigest()
        what = f"making a Vagrant box for {provider}"
        return box_file(self._once(name, key, what, lambda: self._box(image, key, packages, provider)))

    def _fetched(self, name: str, provider: str, source: Download) -> Stored:
        """The box behind a URL. What is there under its digest is not fetched again."""
        key = fetched_key(provider, source)

        def make() -> Stored:
            with self.store.draft(name) as draft:
                fetch.fetch(source.url, source.sha256, draft / FILE, name=name, listener=self.listener)
                now, origin = time.time(), {"url": source.url, "sha256": source.sha256}
                details = {"box": box_name(name, ()), "image": "", "packages": [], "provider": provider, **origin}
                details["version"] = version(now)
                return self.store.keep(draft, Stored(Path(), name, key, SOURCE, now, USER, details=details))

        return self._once(name, key, f"fetching {source.url}", make)

    def _box(self, image: Stored, key: str, packages: tuple[str, ...], provider: str) -> Stored:
        host_tools.require_for_boxes()
        source = image.path(DISK)
        if source is None:
            raise ImageError(f"the image {image.name} has no disk", hint=f"labctl image rm {image.name}")
        with self.store.draft(image.name) as draft, host_tools.scratch(image.name, self.runner) as scratch:
            runner = host_tools.build_runner(self.runner, scratch)
            raw = disk.make(source, image.digest, image.cmdline, scratch, runner)
            self.listener(Event("progress", "image", image.name, f"packing the box for {provider}"))
            if provider == "virtualbox":
                pack.virtualbox(f"labctl-{image.name}", image.digest, raw, draft / FILE)
            else:
                pack.libvirt(raw, draft / FILE, runner)
            details = {
                "box": box_name(image.name, packages),
                "image": image.digest,
                "packages": list(packages),
                "provider": provider,
                "version": version(image.created),
            }
            new = Stored(Path(), image.name, key, SOURCE, time.time(), USER, details=details)
            return self.store.keep(draft, new)


def fetched_key(provider: str, source: Download) -> str:
    """What the store calls a box that was fetched."""
    return hashlib.sha256("\n".join(("fetched box", provider, source.sha256)).encode()).hexdigest()


def tool_digest() -> str:
    """SHA-256 of what labctl itself puts into a box."""
    parts = [path.read_bytes() for path in sorted(guest.FILES.rglob("*")) if path.is_file()]
    parts += [guest.KEY.read_bytes(), guest.init(), pack.OVF.read_bytes(), str(METHOD).encode()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
