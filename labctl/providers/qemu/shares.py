"""What each internal snapshot of a qcow2 disk has for itself, and what it shares with the others and with the machine.

Read from the file's own tables, also while QEMU has it open: what QEMU has not written yet is not seen.
Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from labctl.providers.base import SnapshotSize
from labctl.providers.qemu import qcow2
from labctl.providers.qemu.qcow2 import COMPRESSED, OFFSET, File, UnreadableError


def sizes(disk: Path) -> Mapping[str, SnapshotSize]:
    """By the snapshot's name; nothing where the file cannot be read or has another form. Takes milliseconds."""
    try:
        descriptor = os.open(disk, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return {}
    try:
        file = qcow2.opened(descriptor)
        counts = _refcounts(file)
        return {one.name: _size(file, one.table, counts) for one in qcow2.snapshots(file)}
    except (UnreadableError, OSError, ValueError, OverflowError, AttributeError):  # the last: no pread on Windows
        return {}
    finally:
        os.close(descriptor)


def _refcounts(file: File) -> Mapping[int, int]:
    """How often each cluster in use is referred to, by its number."""
    counts: dict[int, int] = {}
    per_block = file.cluster // 2
    for number, at in enumerate(file.refcount_table):
        if at:
            block = struct.unpack(f">{per_block}H", file.read(file.cluster, at))
            counts |= {number * per_block + place: count for place, count in enumerate(block) if count}
    return counts


def _size(file: File, table: tuple[int, ...], counts: Mapping[int, int]) -> SnapshotSize:
    own = shared = 0
    for cluster in _clusters(file, table):
        if counts.get(cluster, 0) > 1:
            shared += file.cluster
        else:
            own += file.cluster
    return SnapshotSize(own, shared)


def _clusters(file: File, table: tuple[int, ...]) -> Iterator[int]:
    """Numbers of the clusters that a first-level table leads to, those of second-level tables among them."""
    for entry in table:
        if at := entry & OFFSET:
            yield at // file.cluster
            for leaf in file.numbers(file.cluster // 8, at):
                if leaf & COMPRESSED:
                    raise UnreadableError
                if leaf & OFFSET:
                    yield (leaf & OFFSET) // file.cluster
