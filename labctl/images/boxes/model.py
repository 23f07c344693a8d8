"""What a box is, as the cache holds it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from labctl.images.model import Image
from labctl.images.store import Stored

PROVIDERS = ("virtualbox", "libvirt")
"""Vagrant providers that boxes are made for."""

FILE = "vagrant.box"
SOURCE = "box"
"""How the store tells boxes from images."""

USER = "vagrant"
METHOD = 1
"""Counts up whenever the same image would become another box."""

_LONGEST_SUFFIX = 40


@dataclass(frozen=True, slots=True)
class BoxFile:
    """A Vagrant box in the cache. The file is shared and never changes.

    image_name: what it was made of. name: what a box catalogue calls it, such as ``labctl/debian-12``. version: grows
    with the time at which the image was made; boxes of one image have the same one for every provider. sha256: of the
    file, 64 hexadecimal digits. size is in bytes. user: whom Vagrant logs in as.
    """

    image_name: str
    name: str
    version: str
    provider: str
    path: Path
    sha256: str
    size: int
    user: str = USER

    def image(self) -> Image:
        """The box in the form in which images are given to providers: its disk is the box file."""
        return Image(self.image_name, self.sha256, self.path, user=self.user)


def box_file(stored: Stored) -> BoxFile:
    """A finished entry of the store as a box."""
    fact = stored.files[FILE]
    facts = stored.details
    return BoxFile(
        stored.name,
        str(facts["box"]),
        str(facts["version"]),
        str(facts["provider"]),
        stored.folder / FILE,
        fact.sha256,
        fact.size,
    )


def box_name(image: str, packages: tuple[str, ...]) -> str:
    """What a box is called in a box catalogue: after the image and its packages, or the digest of many."""
    suffix = "-".join(packages)
    if len(suffix) > _LONGEST_SUFFIX:
        suffix = hashlib.sha256(suffix.encode()).hexdigest()[:12]
    return f"labctl/{image}-{suffix}" if suffix else f"labctl/{image}"


def version(created: float) -> str:
    """The version of boxes made from an image of this age (seconds since the epoch): date, time of day, method."""
    made = time.gmtime(created)
    return f"{time.strftime('%Y%m%d', made)}.{int(time.strftime('%H%M%S', made))}.{METHOD}"
