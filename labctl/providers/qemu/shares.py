"""What each internal snapshot of a qcow2 disk has for itself, and what it shares with the others and with the machine.

Read from the file's own tables, also while QEMU has it open: what QEMU has not written yet is not seen.
Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.providers.base import SnapshotSize

_OFFSET = (1 << 56) - (1 << 9)  # of a cluster, in entries of tables; the other bits are flags
_COMPRESSED, _EXTENDED_L2 = 1 << 62, 1 << 4
_LARGEST_TABLE = 64 << 20


class _UnreadableError(Exception):
    """Tables that make no sense, or a form of the format that labctl does not make."""


@dataclass(frozen=True, slots=True)
class _File:
    descriptor: int
    cluster: int
    refcount_table: tuple[int, ...]
    snapshots: int
    snapshots_at: int

    def read(self, count: int, at: int) -> bytes:
        data = os.pread(self.descriptor, count, at) if count <= _LARGEST_TABLE else b""
        if len(data) != count:
            raise _UnreadableError
        return data

    def numbers(self, count: int, at: int) -> tuple[int, ...]:
        """Big-endian numbers of 64 bits."""
        return struct.unpack(f">{count}Q", self.read(8 * count, at))


def sizes(disk: Path) -> Mapping[str, SnapshotSize]:
    """By the snapshot's name; nothing where the file cannot be read or has another form. Takes milliseconds."""
    try:
        descriptor = os.open(disk, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return {}
    try:
        file = _opened(descriptor)
        counts = _refcounts(file)
        return {name: _size(file, table, counts) for name, table in _snapshots(file)}
    except (_UnreadableError, OSError, ValueError, OverflowError, AttributeError):  # the last: no pread on Windows
        return {}
    finally:
        os.close(descriptor)


def _opened(descriptor: int) -> _File:
    head = os.pread(descriptor, 104, 0)
    if len(head) < 104 or not head.startswith(b"QFI\xfb\x00\x00\x00\x03"):
        raise _UnreadableError
    (bits,) = struct.unpack_from(">I", head, 20)
    table_at, table_clusters, count, at, incompatible = struct.unpack_from(">QIIQQ", head, 48)
    (order,) = struct.unpack_from(">I", head, 96)
    if not 9 <= bits <= 21 or order != 4 or incompatible & _EXTENDED_L2:
        raise _UnreadableError
    file = _File(descriptor, 1 << bits, (), count, at)
    table = file.numbers((table_clusters << bits) // 8, table_at)
    return _File(descriptor, 1 << bits, table, count, at)


def _refcounts(file: _File) -> Mapping[int, int]:
    """How often each cluster in use is referred to, by its number."""
    counts: dict[int, int] = {}
    per_block = file.cluster // 2
    for number, at in enumerate(file.refcount_table):
        if at:
            block = struct.unpack(f">{per_block}H", file.read(file.cluster, at))
            counts |= {number * per_block + place: count for place, count in enumerate(block) if count}
    return counts


def _snapshots(file: _File) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names, and the first-level tables."""
    at = file.snapshots_at
    for _ in range(file.snapshots):
        table_at, length, id_size, name_size = struct.unpack(">QIHH", file.read(16, at))
        (extra,) = struct.unpack(">I", file.read(4, at + 36))
        name = file.read(name_size, at + 40 + extra + id_size).decode()
        yield name, file.numbers(length, table_at)
        at += -(-(40 + extra + id_size + name_size) // 8) * 8


def _size(file: _File, table: tuple[int, ...], counts: Mapping[int, int]) -> SnapshotSize:
    own = shared = 0
    for cluster in _clusters(file, table):
        if counts.get(cluster, 0) > 1:
            shared += file.cluster
        else:
            own += file.cluster
    return SnapshotSize(own, shared)


def _clusters(file: _File, table: tuple[int, ...]) -> Iterator[int]:
    """Numbers of the clusters that a first-level table leads to, those of second-level tables among them."""
    for entry in table:
        if at := entry & _OFFSET:
            yield at // file.cluster
            for leaf in file.numbers(file.cluster // 8, at):
                if leaf & _COMPRESSED:
                    raise _UnreadableError
                if leaf & _OFFSET:
                    yield (leaf & _OFFSET) // file.cluster
