"""Images: bootable disks by name, built from distribution packages, fetched by digest or imported, and cached.

The functions a caller needs are here; the modules below are how they work.
"""

from labctl.images.api import box, build, import_file, list_images, pull, remove, resolve, verify
from labctl.images.host_tools import Missing, missing
from labctl.images.model import Box, Image, ImageStatus

__all__ = [
    "Box",
    "Image",
    "ImageStatus",
    "Missing",
    "box",
    "build",
    "import_file",
    "list_images",
    "missing",
    "pull",
    "remove",
    "resolve",
    "verify",
]
