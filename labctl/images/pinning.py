"""What pins an image: the digest of its content, and where it came from, so that a lock file can hold labs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from labctl.events import Listener, ignore
from labctl.host.runner import Runner
from labctl.images import catalogue, dpkg
from labctl.images.boxes.model import FILE as BOX_FILE
from labctl.images.boxes.model import PROVIDERS as BOX_PROVIDERS
from labctl.images.boxes.model import SOURCE as BOX_SOURCE
from labctl.images.boxes.model import USER as BOX_USER
from labctl.images.model import Download, Image
from labctl.images.store import ROOT_TAR, Store, Stored

BUNDLED = "bundle"
"""The source of entries that came in an archive. They are found by their digest and by nothing else: an archive says
what it likes about its images, and no other lab may start from one of them."""

_MADE_OF_A_FILE = ("download", "import")


@dataclass(frozen=True, slots=True)
class Pin:
    """An image for one provider, pinned.

    packages: what the lab added to it, sorted. digest: of the image, or of the box file for a provider of Vagrant.
    sha256: of the file that it was made from, and url: where that was fetched; ``""`` where it was built here.
    versions: package to version of what is installed in it, empty where the store does not know.
    """

    image: str
    digest: str
    packages: tuple[str, ...] = ()
    url: str = ""
    sha256: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The image for people: ``debian-12`` or ``debian-12 with nginx-light, curl``."""
        return f"{self.image} with {', '.join(self.packages)}" if self.packages else self.image

    def meets(self, wanted: Pin) -> bool:
        """Whether this is what ``wanted`` pins: the same content, or made from the very same file.

        A downloaded disk is rewritten on each host by that host's own qemu-img; the file it came from is what counts.
        """
        return self.digest == wanted.digest or (bool(wanted.sha256) and self.sha256 == wanted.sha256)


def cached(name: str, packages: Sequence[str], provider: str, listener: Listener = ignore) -> Pin | None:
    """What ``resolve`` would give now without making or fetching anything; None where it could not.

    Its versions are left out: see ``with_versions``.
    """
    from labctl.images.workshop import Workshop  # all that builds and fetches

    workshop = Workshop(Store(), listener, Runner())
    if provider not in BOX_PROVIDERS:
        found = workshop.cached(name, tuple(sorted(set(packages))))
        return _pin(found, packages) if found else None
    source = _fetched_box(name, provider)
    if source is not None:
        from labctl.images.boxes.workshop import fetched_key

        found = workshop.store.find(name, fetched_key(provider, source), listener)
        return _pin(found, ()) if found and not packages else None
    from labctl.images.boxes import guest

    made_of = workshop.cached(name, tuple(sorted({*packages, *guest.PACKAGES})))
    if made_of is None:
        return None
    for stored in workshop.store.entries(name):
        facts = stored.details
        mine = stored.source == BOX_SOURCE and facts["provider"] == provider and facts["image"] == made_of.digest
        if mine and not stored.damage():
            return _pin(stored, packages)
    return None


def pin(image: Image, packages: Sequence[str]) -> Pin:
    """What pins an image of the store, its versions included."""
    for stored in _with_digest(Store(), image.name, image.digest):
        return replace(_pin(stored, packages), versions=versions(stored))
    return Pin(image.name, image.digest, tuple(packages))


def with_versions(known: Pin) -> Pin:
    """The same pin with what the store knows of its versions; that may take reading a root file system."""
    stored = next(_with_digest(Store(), known.image, known.digest), None)
    return replace(known, versions=versions(stored)) if stored else known


def held(wanted: Pin, provider: str) -> Image | None:
    """The image of the store that ``wanted`` pins for a provider; None where it is not there, or damaged."""
    found = find(wanted, provider)
    return as_image(found) if found else None


def find(wanted: Pin, provider: str) -> Stored | None:
    """The entry of the store behind ``held``: one that was made here rather than one that came in an archive."""
    store, is_box = Store(), provider in BOX_PROVIDERS
    entries = [stored for stored in store.entries(wanted.image) if (BOX_FILE in stored.files) == is_box]
    entries.sort(key=lambda stored: stored.source == BUNDLED)
    for stored in entries:
        made_from = _origin(stored).get("sha256")
        is_it = digest(stored) == wanted.digest or (bool(wanted.sha256) and made_from == wanted.sha256)
        if is_it and not stored.damage():
            return stored
    return None


def can_be_fetched(wanted: Pin, provider: str) -> bool:
    """Whether the catalogue names a download with this pin's digest, so that fetching it gives what is pinned."""
    source: object
    if provider in BOX_PROVIDERS:
        source = _fetched_box(wanted.image, provider)
    else:
        entry = catalogue.load().get(wanted.image)
        source = entry.qemu if entry else None
    return not wanted.packages and isinstance(source, Download) and source.sha256 == wanted.sha256


def differences(wanted: Pin, found: Pin) -> tuple[str, ...]:
    """What moved from one image to another, one line per package, for people; empty where that is not known."""
    if not wanted.versions or not found.versions:
        return ()
    lines = []
    for name in sorted({*wanted.versions, *found.versions}):
        old, new = wanted.versions.get(name), found.versions.get(name)
        if old != new:
            lines.append(f"{name} {old or 'absent'} → {new or 'absent'}")
    return tuple(lines)


def digest(stored: Stored) -> str:
    """The digest that an entry goes by: that of a box is its file's."""
    return stored.files[BOX_FILE].sha256 if BOX_FILE in stored.files else stored.digest


def as_image(stored: Stored) -> Image:
    """An entry of the store as the rest of labctl uses it, box or image."""
    box = stored.path(BOX_FILE)
    return Image(stored.name, digest(stored), box, user=BOX_USER) if box else stored.image()


def versions(stored: Stored) -> Mapping[str, str]:
    """Package to version of what is installed in an entry's image; empty where the store does not know."""
    if known := stored.details.get("versions"):
        return {str(name): str(version) for name, version in known.items()}
    if stored.source == BOX_SOURCE:
        image = next(_with_digest(Store(), stored.name, str(stored.details["image"])), None)
        return versions(image) if image else {}
    root_tar: Path | None = stored.path(ROOT_TAR)
    return dpkg.versions(root_tar) if root_tar else {}


def _pin(stored: Stored, packages: Sequence[str]) -> Pin:
    origin = _origin(stored)
    return Pin(
        stored.name,
        digest(stored),
        tuple(sorted(set(packages))),
        str(origin.get("url", "")),
        str(origin.get("sha256", "")),
    )


def _origin(stored: Stored) -> Mapping[str, object]:
    """What an entry says of the file that it was made from, where it was made from one."""
    return stored.details if stored.source in (*_MADE_OF_A_FILE, BOX_SOURCE) else {}


def _fetched_box(name: str, provider: str) -> Download | None:
    """The box that the catalogue has a URL for, instead of one that labctl makes."""
    entry = catalogue.load().get(name)
    return entry.boxes.get(provider) if entry else None


def _with_digest(store: Store, name: str, wanted: str) -> Iterator[Stored]:
    return (stored for stored in store.entries(name) if digest(stored) == wanted and not stored.damage())
