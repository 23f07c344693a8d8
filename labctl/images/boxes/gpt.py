"""A partition table as bytes (GUID Partition Table: UEFI specification 2.10, chapter 5)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

SECTOR = 512
"""Bytes."""

BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")  # where GRUB keeps what a BIOS has no room for
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_ROOT_X86_64 = UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")  # Discoverable Partitions Specification

_ENTRIES = 128
_ENTRY_SIZE = 128
_HEADER_SIZE = 92
_TABLE_SECTORS = _ENTRIES * _ENTRY_SIZE // SECTOR
HEAD_SECTORS = 2 + _TABLE_SECTORS
TAIL_SECTORS = 1 + _TABLE_SECTORS
_BOOT_CODE = 440  # bytes of the first sector before the disk's signature and the old table


@dataclass(frozen=True, slots=True)
class Partition:
    """start and sectors are in units of SECTOR. name: up to 36 characters."""

    kind: UUID
    uuid: UUID
    name: str
    start: int
    sectors: int


def table(disk: UUID, sectors: int, partitions: Sequence[Partition], boot_code: bytes) -> tuple[bytes, bytes]:
    """The first HEAD_SECTORS and the last TAIL_SECTORS of a disk of ``sectors``.

    boot_code: what a BIOS starts, at most 440 bytes.
    """
    if len(boot_code) > _BOOT_CODE:
        raise ValueError(f"boot code of {len(boot_code)} bytes does not fit before a partition table")
    entries = b"".join(_entry(partition) for partition in partitions).ljust(_TABLE_SECTORS * SECTOR, b"\0")
    last = sectors - 1
    first_copy = _header(disk, sectors, entries, at=1, other=last, table_at=2)
    second_copy = _header(disk, sectors, entries, at=last, other=1, table_at=last - _TABLE_SECTORS)
    return _protective(sectors, boot_code) + first_copy + entries, entries + second_copy


def _entry(partition: Partition) -> bytes:
    last = partition.start + partition.sectors - 1
    name = partition.name.encode("utf-16-le")
    return struct.pack(
        "<16s16sQQQ72s", partition.kind.bytes_le, partition.uuid.bytes_le, partition.start, last, 0, name
    )


def _header(disk: UUID, sectors: int, entries: bytes, *, at: int, other: int, table_at: int) -> bytes:
    def packed(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x10000, _HEADER_SIZE, checksum, 0),
            *(at, other, HEAD_SECTORS, sectors - TAIL_SECTORS - 1),
            *(disk.bytes_le, table_at, _ENTRIES, _ENTRY_SIZE, zlib.crc32(entries)),
        )

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")


def _protective(sectors: int, boot_code: bytes) -> bytes:
    """The first sector: boot code, and a table that shows older programs one partition over the whole disk."""
    whole = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    return boot_code.ljust(446, b"\0") + whole.ljust(64, b"\0") + b"\x55\xaa"
