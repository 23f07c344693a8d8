"""What an image is: as the catalogue names it, and as the cache holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """A bootable disk in the cache. The files are shared by all machines and never change: overlay them.

    digest: SHA-256 over all its files, 64 hexadecimal digits. disk: qcow2. kernel, initrd, cmdline: for direct boot;
    None and ``""`` where the disk boots itself. user: the account that labctl logs in as.
    """

    name: str
    digest: str
    disk: Path
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    user: str = "root"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Built from distribution packages: from nothing for ``release`` (``bookworm``), or on top of the image ``base``.

    Exactly one of the two is set.
    """

    packages: tuple[str, ...]
    release: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """A disk image or a Vagrant box by URL; sha256 is that of the file as it is downloaded."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A disk image that was a local file; sha256 is that of the file as it was."""

    sha256: str


Source = Recipe | Download | Imported


@dataclass(frozen=True, slots=True)
class Entry:
    """An image by name with its sources. qemu: None where it has none.

    boxes: by provider of Vagrant, where a box is fetched instead of made of the image for qemu.
    """

    name: str
    description: str = ""
    user: str = "root"
    qemu: Recipe | Download | None = None
    boxes: Mapping[str, Download] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """An image for a list. source: where it comes from, for people. cached: whether it can be used at once.

    size: bytes of all its versions in the cache. digest: of the newest one, ``""`` where there is none.
    """

    name: str
    description: str
    source: str
    cached: bool
    size: int
    digest: str
