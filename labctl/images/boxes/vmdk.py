"""Stream-optimised VMDK files, the kind that OVF packages carry (VMware, "Virtual Disk Format 5.0").

Written here and not by qemu-img, which gives each file a random identity and leaves out the markers that tell a program
that reads from front to back where tables are and where the stream ends.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

SECTOR = 512
_GRAIN = 128  # sectors that are packed together
_PER_TABLE = 512  # grains
_DESCRIPTOR_AT, _DESCRIPTOR_SECTORS = 1, 20
_DATA_AT = 128
_FLAGS = 1 | 1 << 16 | 1 << 17  # newline test, compressed grains, markers
_AT_END = 0xFFFFFFFFFFFFFFFF  # the directory's place is said by the footer
_TABLE, _DIRECTORY, _FOOTER = 1, 2, 3  # kinds of metadata markers
_EMPTY = bytes(_GRAIN * SECTOR)
_LEVEL = 4  # 6 takes nearly twice as long for three per cent

_DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID={content:08x}
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY {sectors} SPARSE "{file}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.adapterType = "ide"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.uuid.image = "{uuid}"
ddb.uuid.modification = "{uuid}"
ddb.uuid.parent = "00000000-0000-0000-0000-000000000000"
ddb.uuid.parentmodification = "00000000-0000-0000-0000-000000000000"
"""


def write(raw: Path, target: Path, identity: UUID) -> None:
    """Write a raw disk to ``target``. The same bytes for the same disk and identity. raw: whole sectors."""
    sectors = raw.stat().st_size // SECTOR
    with raw.open("rb") as source, target.open("wb") as out, ThreadPoolExecutor() as pool:
        head = _header(sectors, _AT_END) + _descriptor(sectors, target.name, identity)
        out.write(head.ljust(_DATA_AT * SECTOR, b"\0"))
        directory: list[int] = []
        while grains := list(_grains(source, len(directory) * _PER_TABLE, sectors)):
            table = [0] * _PER_TABLE
            filled = [(number, data) for number, data in grains if data != _EMPTY]
            packed = pool.map(lambda data: zlib.compress(data, _LEVEL), [data for _, data in filled])
            for (number, _), content in zip(filled, packed, strict=True):
                table[number % _PER_TABLE] = out.tell() // SECTOR
                _padded(out, struct.pack("<QI", number * _GRAIN, len(content)) + content)
            directory.append(_metadata(out, _TABLE, struct.pack(f"<{_PER_TABLE}I", *table)) if filled else 0)
        place = _metadata(out, _DIRECTORY, struct.pack(f"<{len(directory)}I", *directory))
        _metadata(out, _FOOTER, _header(sectors, place))
        out.write(bytes(SECTOR))  # the end of the stream


def _grains(source: BinaryIO, first: int, sectors: int) -> Iterator[tuple[int, bytes]]:
    """The grains that one table describes, by number; the last one of a disk is filled up with zeros."""
    total = -(-sectors // _GRAIN)
    for number in range(first, min(first + _PER_TABLE, total)):
        yield number, source.read(_GRAIN * SECTOR).ljust(_GRAIN * SECTOR, b"\0")


def _header(sectors: int, directory_at: int) -> bytes:
    return struct.pack(
        "<4sIIQQQQIQQQB4sH433x",
        *(b"KDMV", 3, _FLAGS, sectors, _GRAIN, _DESCRIPTOR_AT, _DESCRIPTOR_SECTORS, _PER_TABLE),
        *(0, directory_at, _DATA_AT, 0, b"\n \r\n", 1),
    )


def _descriptor(sectors: int, file: str, identity: UUID) -> bytes:
    cylinders = min(16383, sectors // (16 * 63))
    content = int.from_bytes(identity.bytes[:4]) & 0xFFFFFFFE  # all ones means that there is none
    text = _DESCRIPTOR.format(content=content, sectors=sectors, file=file, cylinders=cylinders, uuid=identity)
    return text.encode()


def _metadata(out: BinaryIO, kind: int, content: bytes) -> int:
    """Append a marker and what it announces; the sector at which the content begins."""
    sectors = -(-len(content) // SECTOR)
    _padded(out, struct.pack("<QII", sectors, 0, kind))
    place = out.tell() // SECTOR
    _padded(out, content)
    return place


def _padded(out: BinaryIO, content: bytes) -> None:
    out.write(content + bytes(-len(content) % SECTOR))
