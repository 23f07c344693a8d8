"""One internal snapshot of a qcow2 disk as a disk of its own, which holds that and nothing else.

The new disk is empty as a guest would see it, with one snapshot in it: disk and memory of that moment. Whatever else
the old disk has, other snapshots, the present state, clusters that are free and not wiped, stays behind; so does the
name of its backing file. The same snapshot gives the same bytes, also while its machine runs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from labctl.errors import ProviderError
from labctl.host.files import explained
from labctl.providers.qemu import qcow2
from labctl.providers.qemu.qcow2 import COMPRESSED, MAGIC, OFFSET, ZERO, File, Snapshot, UnreadableError

_HEADER_BYTES = 104
_ID = b"1"


def write(disk: Path, name: str, target: Path) -> None:
    """Write the snapshot ``name`` of a disk to a file that must not exist; it is whole or the call fails.

    Raises ProviderError where there is no such snapshot or it cannot be read, HostError on a full disk.
    """
    try:
        descriptor = os.open(disk, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ProviderError(f"{disk} cannot be read: {error.strerror}") from error
    try:
        file = qcow2.opened(descriptor)
        one = next((one for one in qcow2.snapshots(file) if one.name == name), None)
        if one is None:
            raise ProviderError(f"{disk} has no snapshot {name}")
        with target.open("xb") as out:
            _write(file, one, out)
    except (UnreadableError, ValueError, struct.error, AttributeError) as error:  # the last: no pread on Windows
        raise ProviderError(f"the snapshot {name} of {disk} cannot be read") from error
    except OSError as error:
        raise explained(target, error) from error
    finally:
        os.close(descriptor)


def check(disk: Path, name: str, size: int) -> str:
    """What keeps a file from being one that ``write`` has made of a disk of ``size`` bytes, or ``""``.

    Whatever passes refers to no other file. Its tables may still be wrong: ``qemu-img check`` tells.
    """
    with disk.open("rb") as opened:
        head = opened.read(_HEADER_BYTES + 8)
        try:
            file = qcow2.opened(opened.fileno())
            names = [one.name for one in qcow2.snapshots(file)] if file.snapshots == 1 else []
        except (UnreadableError, ValueError, struct.error, OverflowError, OSError):
            return "its tables cannot be read"
    (table_at, refcounts_at, refcount_clusters) = struct.unpack_from(">QQI", head, 40)
    bits = file.cluster.bit_length() - 1
    wanted = _header(bits, file.size, table_at, refcounts_at, refcount_clusters, file.snapshots_at)
    if head != wanted.ljust(_HEADER_BYTES + 8, b"\0"):
        return "its header is none that labctl writes"
    if file.size != size:
        return f"it is a disk of {file.size} bytes, and the lab's has {size}"
    return "" if names == [name] else "it holds another snapshot"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the tables go; each begins a cluster, and second-level tables with their data follow. All in clusters."""

    refcount_table: int
    refcount_blocks: int
    table: int
    snapshot_table: int
    snapshot: int
    contents: int

    @property
    def fixed(self) -> int:
        return 1 + self.refcount_table + self.refcount_blocks + self.table + self.snapshot_table + self.snapshot

    @property
    def total(self) -> int:
        return self.fixed + self.contents

    @classmethod
    def of(cls, file: File, one: Snapshot, entry: bytes) -> _Layout:
        contents = sum(1 + sum(_holds(item) for item in file.leaf(table)) for table in _leaves(one))
        table, snapshot_table, snapshot = (
            -(-size // file.cluster) for size in (8 * _entries(file), 8 * len(one.table), len(entry))
        )
        layout = cls(0, 0, table, snapshot_table, snapshot, contents)
        while True:
            blocks = -(-layout.total // (file.cluster // 2))
            grown = replace(layout, refcount_table=-(-8 * blocks // file.cluster), refcount_blocks=blocks)
            if grown == layout:
                return layout
            layout = grown


def _write(file: File, one: Snapshot, out: BinaryIO) -> None:
    unit = file.cluster
    layout = _Layout.of(file, one, _entry(one, 0))
    starts = [1]
    for length in (layout.refcount_table, layout.refcount_blocks, layout.table, layout.snapshot_table):
        starts.append(starts[-1] + length)
    refcounts, blocks, table, snapshot_table, snapshot = (unit * start for start in starts)

    def put(data: bytes, clusters: int) -> None:
        out.write(data.ljust(unit * clusters, b"\0"))

    bits = unit.bit_length() - 1
    put(_header(bits, file.size, table, refcounts, layout.refcount_table, snapshot), 1)
    places = [blocks + unit * number for number in range(layout.refcount_blocks)]
    put(struct.pack(f">{len(places)}Q", *places), layout.refcount_table)
    put(struct.pack(">H", 1) * layout.total, layout.refcount_blocks)
    put(b"", layout.table)
    at, firsts = unit * layout.fixed, []
    for entry in one.table:
        firsts.append(at if entry & OFFSET else 0)
        if entry & OFFSET:
            at += unit * (1 + sum(_holds(item) for item in file.leaf(entry)))
    put(struct.pack(f">{len(firsts)}Q", *firsts), layout.snapshot_table)
    put(_entry(one, snapshot_table), layout.snapshot)
    for entry in _leaves(one):
        for data in _content(file, file.leaf(entry), out.tell()):
            put(data, 1)
    if out.tell() != unit * layout.total:
        raise UnreadableError


def _content(file: File, items: tuple[int, ...], at: int) -> Iterator[bytes]:
    """A second-level table whose data follow it, with these data. at: where it goes."""
    entries, following = [], at
    for item in items:
        if _holds(item):
            following += file.cluster
            entries.append(following)
        else:
            entries.append(item & ZERO)
    yield struct.pack(f">{len(entries)}Q", *entries)
    for item in items:
        if _holds(item):
            yield os.pread(file.descriptor, file.cluster, item & OFFSET)  # the file may end within its last cluster


def _leaves(one: Snapshot) -> Iterator[int]:
    return (entry for entry in one.table if entry & OFFSET)


def _holds(item: int) -> bool:
    """Whether an entry of a second-level table leads to data, which are more than zeros."""
    if item & COMPRESSED:
        raise UnreadableError
    return bool(item & OFFSET) and not item & ZERO


def _entries(file: File) -> int:
    """How long a first-level table has to be for what the guest sees."""
    return -(-file.size // (file.cluster * (file.cluster // 8)))


def _entry(one: Snapshot, table_at: int) -> bytes:
    """The snapshot's entry in the table of snapshots."""
    name = one.name.encode()
    head = struct.pack(">QIHH", table_at, len(one.table), len(_ID), len(name)) + one.moment
    whole = head + struct.pack(">I", len(one.extra)) + one.extra + _ID + name
    return whole + bytes(-len(whole) % 8)


def _header(bits: int, size: int, table: int, refcounts: int, refcount_clusters: int, snapshots: int) -> bytes:
    """Of a file that refers to no other, is not encrypted, has no extensions and one snapshot."""
    entries = -(-size // (1 << (2 * bits - 3)))
    places = struct.pack(">QIIQQIIQ", size, 0, entries, table, refcounts, refcount_clusters, 1, snapshots)
    return MAGIC + struct.pack(">QII", 0, 0, bits) + places + struct.pack(">QQQII", 0, 0, 0, 4, _HEADER_BYTES)
