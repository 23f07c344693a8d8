"""Everything in labctl's cache folder: what it is, what it takes, and whether it can be made again."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labctl.host.files import allocated, remove_tree
from labctl.host.folders import cache_root
from labctl.images.boxes.model import SOURCE as BOX_SOURCE
from labctl.images.store import Store, Stored

Kind = Literal["image", "box", "template", "packages"]

_BUILT = ("recipe", "packages", BOX_SOURCE)
_QCOW2_BACKING = struct.Struct(">QI")


@dataclass(frozen=True, slots=True)
class Stock:
    """Something in the cache. name: for people. size: bytes on the disk. used: seconds since the epoch, when it was
    made or last used. remade: labctl makes it again by itself when it is wanted. newer: there is a newer one of the
    same. base: the folder of the image that a template was made from.
    """

    kind: Kind
    name: str
    folder: Path
    size: int
    used: float
    remade: bool = True
    newer: bool = False
    base: Path | None = None

    def remove(self) -> None:
        """Remove it. What runs from it goes on."""
        remove_tree(self.folder)


def stock() -> tuple[Stock, ...]:
    """All of it, by kind and name."""
    found = [*_images(), *_templates(), *_packages()]
    return tuple(sorted(found, key=lambda one: (one.kind, one.name, -one.used)))


def _images() -> Iterator[Stock]:
    seen: set[tuple[object, ...]] = set()
    for one in Store().entries():  # the newest first
        same = _same(one)
        kind: Kind = "box" if one.source == BOX_SOURCE else "image"
        remade = one.source in _BUILT
        words = f" with {', '.join(one.details['packages'])}" if one.source == "packages" else ""
        yield Stock(
            kind,
            one.name + words,
            one.folder.resolve(),
            allocated(one.folder),
            one.created,
            remade,
            remade and same in seen,
        )
        seen.add(same)


def _same(one: Stored) -> tuple[object, ...]:
    """Two entries with the same of this are versions of one thing."""
    details = one.details
    packages = tuple(details.get("packages", ())) if one.source == "packages" else ()
    return one.name, one.source, packages, details.get("box"), details.get("provider")


def _templates() -> Iterator[Stock]:
    root = cache_root() / "templates"
    for folder in sorted(root.glob("[!.]*/")):
        try:
            used = folder.stat().st_mtime
        except OSError:
            continue
        yield Stock("template", folder.name, folder, allocated(folder), used, base=_base(folder / "disk.qcow2"))


def _packages() -> Iterator[Stock]:
    folder = cache_root() / "packages"
    if folder.is_dir():
        yield Stock("packages", "downloaded packages", folder, allocated(folder), time.time())


def _base(disk: Path) -> Path | None:
    """The folder of the image that a qcow2 file is an overlay of (its header: docs/interop/qcow2.txt of QEMU)."""
    try:
        with disk.open("rb") as file:
            head = file.read(24)
            at, length = _QCOW2_BACKING.unpack_from(head, 8)
            file.seek(at)
            name = file.read(min(length, 1023)).decode()
    except (OSError, struct.error, ValueError):
        return None
    return Path(name).parent.resolve() if name else None
