"""The image that tests boot."""

from __future__ import annotations

import functools

from labctl.images import resolve
from labctl.providers.base import BootImage


@functools.cache
def debian() -> BootImage:
    """Debian 12 from the image store, built where it is missing."""
    image = resolve("debian-12")
    return BootImage(image.name, image.digest, image.disk, image.kernel, image.initrd, image.cmdline, image.user)
