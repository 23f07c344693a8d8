"""What the rest of labctl does with images, and with boxes made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labctl.errors import ImageError
from labctl.events import Listener, ignore
from labctl.host.runner import Runner
from labctl.images import catalogue
from labctl.images.boxes.model import FILE as BOX_FILE
from labctl.images.boxes.model import PROVIDERS as BOX_PROVIDERS
from labctl.images.boxes.model import SOURCE as BOX_SOURCE
from labctl.images.boxes.model import BoxFile, box_file
from labctl.images.model import Download, Entry, Image, ImageStatus, Recipe
from labctl.images.pinning import BUNDLED
from labctl.images.store import Store, Stored

if TYPE_CHECKING:
    from labctl.images.workshop import Workshop


def resolve(
    name: str,
    packages: Sequence[str] = (),
    provider: str = "qemu",
    listener: Listener = ignore,
    runner: Runner | None = None,
) -> Image:
    """The image ``name`` with ``packages`` in it, from the cache, or made now.

    An image with packages is built on the host on top of ``name`` and shared by all machines that want the same ones.
    For a provider of Vagrant it is a box: its ``disk`` is the box file, its ``digest`` that file's.
    Raises ImageError, HostError, BusyError, and SpecError for a wrong catalogue.
    """
    if provider in BOX_PROVIDERS:
        return resolve_box(name, packages, provider, listener, runner).image()
    if provider != "qemu":
        raise ImageError(f"labctl makes no images for {provider}", hint="That provider has boxes of its own.")
    workshop = _workshop(listener, runner)
    return workshop.get(name, _checked(packages)).image()


def resolve_box(
    name: str,
    packages: Sequence[str] = (),
    provider: str = "virtualbox",
    listener: Listener = ignore,
    runner: Runner | None = None,
) -> BoxFile:
    """The Vagrant box of the image ``name`` with ``packages`` in it, from the cache, or made or fetched now.

    provider: ``virtualbox`` or ``libvirt``. Raises ImageError, HostError, BusyError, and SpecError for a wrong
    catalogue.
    """
    from labctl.images.boxes.workshop import BoxWorkshop

    return BoxWorkshop(Store(), listener, runner or Runner()).box(name, _checked(packages), provider)


def publish_box(box: BoxFile, folder: Path, base_url: str = "") -> Path:
    """Put a box into a folder that serves as a box registry; returns its ``metadata.json`` for ``vagrant box add``.

    base_url: where a web server will show the folder; without it, the addresses are those of files on this computer.
    Raises ImageError and HostError.
    """
    from labctl.images.boxes import registry

    if base_url and not catalogue.is_url(base_url):
        raise ImageError(f"{base_url!r} is no place to fetch from", hint="Begin it with https:// or http://.")
    entry = catalogue.load().get(box.image_name)
    return registry.publish(box, folder, entry.description if entry else "", base_url)


def list_boxes() -> tuple[BoxFile, ...]:
    """The undamaged boxes in the cache, sorted by name, provider and version."""
    found = (box_file(one) for one in Store().entries() if one.source == BOX_SOURCE and not one.damage())
    return tuple(sorted(found, key=lambda box: (box.name, box.provider, box.version)))


def build(name: str, listener: Listener = ignore, *, again: bool = False, runner: Runner | None = None) -> Image:
    """Build an image with a recipe where it is not in the cache. again: build it anew, with packages as of today."""
    entries = catalogue.load()
    if not isinstance(catalogue.find(name, entries).qemu, Recipe):
        raise ImageError(f"the image {name} has no recipe", hint=f"labctl image pull {name}")
    return _workshop(listener, runner).get(name, (), again=again).image()


def pull(
    name: str,
    url: str | None = None,
    sha256: str | None = None,
    listener: Listener = ignore,
    runner: Runner | None = None,
) -> Image:
    """Fetch a disk image and call it ``name``; without a URL, what the catalogue says. The digest is not optional."""
    known = catalogue.load().get(name)
    workshop = _workshop(listener, runner)
    if url is None:
        if known is None or not isinstance(known.qemu, Download):
            raise ImageError(
                f"the catalogue has no URL for {name}", hint=f"labctl image pull {name} URL --sha256 DIGEST"
            )
        return workshop.get(name, ()).image()
    if not sha256:
        raise ImageError("a URL needs the digest of what it holds", hint="Add --sha256 with 64 hexadecimal digits.")
    _check_new_name(name, known)
    return workshop.download(name, "root", Download(url, sha256.lower())).image()


def import_file(
    name: str, path: Path, listener: Listener = ignore, *, user: str = "root", runner: Runner | None = None
) -> Image:
    """Take a local qcow2, raw or VMDK file into the cache and call it ``name``. user: whom labctl logs in as."""
    _check_new_name(name, catalogue.load().get(name))
    if not path.is_file():
        raise ImageError(f"there is no file {path}")
    workshop = _workshop(listener, runner)
    return workshop.import_file(name, user, path).image()


def remove(name: str) -> tuple[Path, ...]:
    """Remove every version of an image from the cache, and its boxes; returns the folders that are gone.

    Raises ImageError where there are none. A running machine keeps the files it has open; a stopped one cannot start
    again without them.
    """
    gone = Store().remove(name)
    if not gone:
        raise ImageError(f"the cache has no image called {name}", hint="labctl image list shows what it has.")
    return gone


def verify(name: str) -> tuple[str, ...]:
    """Read every file of an image and of its boxes again; what is wrong with each version, one line per damaged one."""
    found = ((stored, stored.damage(thorough=True)) for stored in Store().entries(name))
    return tuple(f"{stored.folder}: {damage}" for stored, damage in found if damage)


def list_images() -> tuple[ImageStatus, ...]:
    """The catalogue, then what was imported or pulled under other names, each sorted by name."""
    entries = catalogue.load()
    stored: dict[str, list[Stored]] = {}
    for one in Store().entries():
        if BOX_FILE in one.files:
            continue
        stored.setdefault(one.name, []).append(one)
    own = {name: Entry(name) for name in stored if name not in entries}
    return tuple(
        _status(entry, stored.get(name, [])) for part in (entries, own) for name, entry in sorted(part.items())
    )


def _workshop(listener: Listener, runner: Runner | None) -> Workshop:
    from labctl.images.workshop import Workshop  # all that builds and fetches; commands that only look need none

    return Workshop(Store(), listener, runner or Runner())


def _status(entry: Entry, stored: list[Stored]) -> ImageStatus:
    if isinstance(entry.qemu, Recipe):
        made_of = "recipe" if entry.qemu.release else f"recipe on {entry.qemu.base}"
    else:
        made_of = entry.qemu.url if entry.qemu else stored[0].source if stored else "boxes only"
    usable = [one for one in stored if one.source not in ("packages", BUNDLED) and not one.damage()]
    size = sum(one.size for one in stored)
    return ImageStatus(entry.name, entry.description, made_of, bool(usable), size, usable[0].digest if usable else "")


def _checked(packages: Sequence[str]) -> tuple[str, ...]:
    for package in packages:
        if not catalogue.PACKAGE.fullmatch(package):
            raise ImageError(f"{package!r} cannot be a package's name")
    return tuple(sorted(set(packages)))


def _check_new_name(name: str, known: Entry | None) -> None:
    if not catalogue.NAME.fullmatch(name):
        raise ImageError(f"{name!r} cannot be an image's name", hint="Small letters, digits, dot, dash and underscore.")
    if known is not None:
        raise ImageError(f"the catalogue already has an image called {name}", hint="Choose another name.")
