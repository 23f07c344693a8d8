"""The tables of a qcow2 disk, as far as its internal snapshots need them; read also while QEMU has the file open.

What QEMU has not written yet is not seen; what a snapshot has was written before it was there, and stays as it is.
Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

OFFSET = (1 << 56) - (1 << 9)
"""Where a cluster is, in entries of tables; the other bits are flags."""

COMPRESSED, ZERO = 1 << 62, 1

MAGIC = b"QFI\xfb\x00\x00\x00\x03"
"""How version 3 begins."""

_EXTENDED_L2 = 1 << 4
_LARGEST_TABLE = 64 << 20


class UnreadableError(Exception):
    """Tables that make no sense, or a form of the format that labctl does not make."""


@dataclass(frozen=True, slots=True)
class File:
    """An open disk. cluster: its unit, in bytes. size: what the guest sees, in bytes. snapshots: how many there are."""

    descriptor: int
    cluster: int
    size: int
    refcount_table: tuple[int, ...]
    snapshots: int
    snapshots_at: int

    def read(self, count: int, at: int) -> bytes:
        """So many bytes of a table. Raises UnreadableError where they are not there."""
        data = os.pread(self.descriptor, count, at) if count <= _LARGEST_TABLE else b""
        if len(data) != count:
            raise UnreadableError
        return data

    def numbers(self, count: int, at: int) -> tuple[int, ...]:
        """Big-endian numbers of 64 bits."""
        return struct.unpack(f">{count}Q", self.read(8 * count, at))

    def leaf(self, entry: int) -> tuple[int, ...]:
        """The second-level table that an entry of a first-level table leads to."""
        return self.numbers(self.cluster // 8, entry & OFFSET)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An internal snapshot. table: its first-level table. moment: date, clock and a size, as they stand in the file.

    extra: what follows them there, among it the size of the memory.
    """

    name: str
    table: tuple[int, ...]
    moment: bytes
    extra: bytes


def opened(descriptor: int) -> File:
    """The tables of an open file. Raises UnreadableError."""
    head = os.pread(descriptor, 104, 0)
    if len(head) < 104 or not head.startswith(MAGIC):
        raise UnreadableError
    bits, size = struct.unpack_from(">IQ", head, 20)
    table_at, table_clusters, count, at, incompatible = struct.unpack_from(">QIIQQ", head, 48)
    (order,) = struct.unpack_from(">I", head, 96)
    if not 9 <= bits <= 21 or order != 4 or incompatible & _EXTENDED_L2:
        raise UnreadableError
    file = File(descriptor, 1 << bits, size, (), count, at)
    table = file.numbers((table_clusters << bits) // 8, table_at)
    return File(descriptor, 1 << bits, size, table, count, at)


def snapshots(file: File) -> Iterator[Snapshot]:
    """The internal snapshots, in the order of the file. Raises UnreadableError, UnicodeError."""
    at = file.snapshots_at
    for _ in range(file.snapshots):
        table_at, length, id_size, name_size = struct.unpack(">QIHH", file.read(16, at))
        moment = file.read(20, at + 16)
        (extra,) = struct.unpack(">I", file.read(4, at + 36))
        name = file.read(name_size, at + 40 + extra + id_size).decode()
        yield Snapshot(name, file.numbers(length, table_at), moment, file.read(extra, at + 40))
        at += -(-(40 + extra + id_size + name_size) // 8) * 8
