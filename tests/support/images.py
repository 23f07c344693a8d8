"""The image that tests boot."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

from labctl.providers.base import BootImage


@functools.cache
def debian() -> BootImage:
    """Debian 12 from the image store, built where it is missing."""
    given = os.environ.get("LABCTL_TEST_IMAGE")
    if given:
        value = json.loads(Path(given).read_text())
        paths = {name: Path(value[name]) for name in ("disk", "kernel", "initrd")}
        return BootImage(**{**value, **paths})
    from labctl.images import resolve
    from labctl.lifecycle.converge import as_boot_image
    return as_boot_image(resolve("debian-12", (), provider="qemu"))
