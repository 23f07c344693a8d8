"""Images out of the store and into another one: each as a parcel that says what is in it and carries its digests."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labctl.errors import ImageError
from labctl.host import files
from labctl.images import box_check, catalogue, disk, pinning
from labctl.images.boxes.model import FILE as BOX_FILE
from labctl.images.boxes.model import PROVIDERS as BOX_PROVIDERS
from labctl.images.boxes.model import USER as BOX_USER
from labctl.images.model import Image
from labctl.images.pinning import BUNDLED, Pin
from labctl.images.store import DISK, INITRD, KERNEL, ROOT_TAR, Store, Stored, digest_of

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_CMDLINE = re.compile(r"[\x20-\x7e]{0,1000}")
_DISK_FILES = frozenset((DISK, KERNEL, INITRD))


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a parcel. size is in bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """An image for one provider on its way from one store to another.

    left_out: name to SHA-256 of files that count for the digest and do not travel: what further images would be built
    on, half of an image's bytes. versions and packages: as in ``Pin``.
    """

    image: str
    provider: str
    user: str
    cmdline: str
    packages: tuple[str, ...]
    parts: tuple[Part, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_box(self) -> bool:
        """Whether this is a Vagrant box: one file, packed already."""
        return self.provider in BOX_PROVIDERS

    @property
    def digest(self) -> str:
        """The digest that the image goes by, from those of its files."""
        if self.is_box:
            return self.parts[0].sha256
        return digest_of({**self.left_out, **{part.name: part.sha256 for part in self.parts}})

    @property
    def pin(self) -> Pin:
        """What pins the image."""
        return Pin(self.image, self.digest, self.packages, versions=self.versions)

    def check(self) -> None:
        """Refuse what no image can be. Raises ImageError."""
        names = [part.name for part in self.parts]
        wrong = {
            "its name": not catalogue.NAME.fullmatch(self.image),
            "its account": not _ACCOUNT.fullmatch(self.user) or (self.is_box and self.user != BOX_USER),
            "its kernel's parameters": not _CMDLINE.fullmatch(self.cmdline),
            "its packages": not all(catalogue.PACKAGE.fullmatch(name) for name in self.packages)
            or list(self.packages) != sorted(set(self.packages)),
            "its files": len(names) != len(set(names))
            or (names != [BOX_FILE] if self.is_box else DISK not in names or not _DISK_FILES.issuperset(names)),
            "what was left out": bool(self.left_out) and (self.is_box or set(self.left_out) != {ROOT_TAR}),
        }
        if bad := [what for what, is_wrong in wrong.items() if is_wrong]:
            raise ImageError(f"{self.image!r} is no image that labctl knows: {', '.join(bad)}")


def parcel(wanted: Pin, provider: str) -> tuple[Parcel, Path]:
    """The image that ``wanted`` pins, ready to travel, and the folder of its files. Raises ImageError."""
    stored = pinning.find(wanted, provider)
    if stored is None:
        raise ImageError(f"the image store does not have {wanted.title} ({wanted.digest[:12]}) for {provider}")
    travels = {BOX_FILE} if provider in BOX_PROVIDERS else _DISK_FILES
    left_out = {name: fact.sha256 for name, fact in stored.files.items() if name not in travels}
    left_out |= stored.details.get("left_out", {})
    parts = tuple(Part(n, f.size, f.sha256) for n, f in sorted(stored.files.items()) if n in travels)
    user = BOX_USER if provider in BOX_PROVIDERS else stored.user
    done = Parcel(
        stored.name, provider, user, stored.cmdline, wanted.packages, parts, left_out, pinning.versions(stored)
    )
    done.check()
    return done, stored.folder


@dataclass(slots=True)
class Delivery:
    """A parcel that is being received. folder: where its parts go, by name; None where the store has the image."""

    parcel: Parcel
    folder: Path | None
    store: Store
    kept: Stored | None = None

    def check(self) -> None:
        """Look at what has come before anything opens it. Raises ImageError."""
        if self.folder is None:
            return
        if self.parcel.is_box:
            box_check.check(self.folder / BOX_FILE, self.parcel.image, self.parcel.provider)
        elif disk.examine(self.folder / DISK) != "qcow2":
            raise ImageError(f"the disk of {self.parcel.image} is no qcow2 file")

    def keep(self) -> None:
        """Make the image an entry of the store. Raises ImageError where it is not what the parcel said."""
        if self.folder is None:
            return
        one = self.parcel
        key = hashlib.sha256("\n".join((BUNDLED, one.provider, one.digest)).encode()).hexdigest()
        details = {"packages": list(one.packages), "left_out": dict(one.left_out), "versions": dict(one.versions)}
        new = Stored(Path(), one.image, key, BUNDLED, time.time(), one.user, one.cmdline, details)
        self.kept = self.store.keep(self.folder, new)
        if pinning.digest(self.kept) != one.digest:
            raise ImageError(f"the image {one.image} changed while it was unpacked", hint="Repeat the command.")

    def undo(self) -> None:
        """Take the entry out of the store again, where this delivery has put it there."""
        if self.kept is not None:
            files.remove_tree(self.kept.folder)

    def image(self) -> Image | None:
        """The image as the store has it."""
        return pinning.held(self.parcel.pin, self.parcel.provider)


@contextlib.contextmanager
def receive(parcel: Parcel) -> Iterator[Delivery]:
    """Receive an image: fill ``folder``, then ``check``, then ``keep``. What was not kept is gone afterwards.

    Raises ImageError for a parcel that cannot be one, HostError on a full disk.
    """
    parcel.check()
    store = Store()
    if pinning.held(parcel.pin, parcel.provider):
        yield Delivery(parcel, None, store)
        return
    with store.draft(parcel.image) as draft:
        yield Delivery(parcel, draft, store)
