"""What another process has in its memory of a file that it maps, and has changed: Linux shows it to who may trace it.

Source: Linux, Documentation/admin-guide/mm/pagemap.rst, and proc(5), /proc/PID/maps and /proc/PID/mem.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = mmap.PAGESIZE
Runs = tuple[tuple[int, int], ...]
"""Pages that follow each other: the number of the first one, and how many."""

_ENTRY = 8
_TOP = _ENTRY - 1 if sys.byteorder == "little" else 0  # the byte of an entry with the bits 56 to 63
_PRESENT, _SWAPPED, _OF_A_FILE = 0x80, 0x40, 0x20
_IS_CHANGED = bytes(bool(bits & (_PRESENT | _SWAPPED)) and not bits & _OF_A_FILE for bits in range(256))


@dataclass(frozen=True, slots=True)
class Mapped:
    """A whole file in the memory of a process, which keeps to itself what it writes there. start: the address."""

    pid: int
    start: int
    size: int

    def changed(self) -> Runs:
        """Pages that are not the file's any more. Raises OSError where the system does not show it."""
        with Path(f"/proc/{self.pid}/pagemap").open("rb") as entries:
            entries.seek(self.start // PAGE * _ENTRY)
            found = entries.read(self.size // PAGE * _ENTRY)
        if len(found) != self.size // PAGE * _ENTRY:
            raise OSError("the process is gone")
        return changed_of(found)

    @contextlib.contextmanager
    def opened(self, *, to_write: bool = False) -> Iterator[Opened]:
        """To read or to write it. Raises OSError where the system does not let us."""
        descriptor = os.open(f"/proc/{self.pid}/mem", os.O_WRONLY if to_write else os.O_RDONLY)
        try:
            yield Opened(descriptor, self.start)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open memory. Places are bytes from the beginning of the mapped file. Each call raises OSError."""

    descriptor: int
    start: int

    def read(self, at: int, size: int) -> bytes:
        """All of it, or OSError."""
        data = os.pread(self.descriptor, size, self.start + at)
        if len(data) != size:
            raise OSError("the memory cannot be read")
        return data

    def write(self, at: int, data: bytes) -> None:
        """All of it, or OSError."""
        if os.pwrite(self.descriptor, data, self.start + at) != len(data):
            raise OSError("the memory cannot be written")


def mapped(pid: int, file: Path) -> Mapped | None:
    """Where a process has a file privately in its memory, all of it; None where it has not, or nobody can tell.

    What the file is called now does not matter: the process may have opened it by another name, which may be gone.
    """
    try:
        stat = file.stat()
        text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}"
    found = place_of(text, device, stat.st_ino, str(file))
    return Mapped(pid, found[0], found[1]) if found is not None and found[1] == stat.st_size else None


def place_of(maps: str, device: str, inode: int, path: str) -> tuple[int, int] | None:
    """Address and length of the one private mapping of a file that begins with its beginning, from ``/proc/PID/maps``.

    Some file systems (Btrfs, overlays) show another device there than to who asks for the file: then its path counts.
    """
    line = r"^([0-9a-f]+)-([0-9a-f]+) ...p ([0-9a-f]+) (\S+) (\d+) *(.*)$"
    pieces = [
        (int(start, 16), int(end, 16), int(offset, 16))
        for start, end, offset, where, number, name in re.findall(line, maps, re.MULTILINE)
        if int(number) == inode and (where == device or name == path)
    ]
    # one mapping, even where the system keeps it in pieces
    begin = pieces[0][0] if pieces else 0
    size = 0
    for start, end, offset in pieces:
        if offset != size or start != begin + size:
            return None
        size += end - start
    return (begin, size) if pieces else None


def changed_of(entries: bytes) -> Runs:
    """The pages that entries of ``/proc/PID/pagemap`` call present or swapped out, and no page of a file."""
    flags = entries[_TOP::_ENTRY].translate(_IS_CHANGED)
    return tuple((run.start(), run.end() - run.start()) for run in re.finditer(b"\x01+", flags))


def size_of(runs: Sequence[tuple[int, int]]) -> int:
    """Bytes that pages have in all."""
    return sum(count for _, count in runs) * PAGE
