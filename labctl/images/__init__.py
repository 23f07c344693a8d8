"""Images: bootable disks by name, built from distribution packages, fetched by digest or imported, and cached.

The functions a caller needs are here; the modules below are how they work.
"""

from labctl.images.api import (
    build,
    import_file,
    list_boxes,
    list_images,
    publish_box,
    pull,
    remove,
    resolve,
    resolve_box,
    verify,
)
from labctl.images.boxes.model import BoxFile
from labctl.images.host_tools import Missing, missing, missing_for_boxes
from labctl.images.model import Image, ImageStatus
from labctl.images.stock import Stock, stock

__all__ = [
    "BoxFile",
    "Image",
    "ImageStatus",
    "Missing",
    "Stock",
    "build",
    "import_file",
    "list_boxes",
    "list_images",
    "missing",
    "missing_for_boxes",
    "publish_box",
    "pull",
    "remove",
    "resolve",
    "resolve_box",
    "stock",
    "verify",
]
