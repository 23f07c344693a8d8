"""The memory of a copy of a template, kept as what differs from the template: two files beside the disk.

A machine that began as a copy has the template's memory mapped privately, and has changed a few percent of it. QEMU
would write all of it, and have all of it for itself after it was loaded again. So the pages that differ are read from
its process by the host's means, and QEMU writes the state of the devices alone. Both ways the guest stands still.

The command for that is called after Xen, whose memory is not QEMU's business either, and does nothing that is Xen's:
QEMU, migration/savevm.c, qemu_save_device_state(). Its counterpart that loads is of no use: it loads into machines as
they are after a reset, and ends a QEMU 7.2 (an assertion about yank). But what it would load is an incoming migration
that has no memory in it.

File of pages: head; runs of pages, each its first number and how many (64 bits); their content; CRC-32 of all before.
All numbers are little-endian.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from labctl.errors import ProviderError
from labctl.host import memory
from labctl.host.files import explained, write_atomic
from labctl.host.memory import PAGE, Mapped, Opened, Runs
from labctl.providers.qemu import template as templates
from labctl.providers.qemu.qmp import Monitor, RefusedError
from labctl.providers.qemu.template import Base

_MAGIC, _FORMAT = b"labctl-m", 1
_HEAD = struct.Struct("<8sIIQIQ")  # magic, format, page size, size of the memory, CRC-32 of the devices, number of runs
_RUN, _END = struct.Struct("<QQ"), struct.Struct("<I")
_PIECE = 1 << 20
_TRIES = 4
_HEADING = 8  # of QEMU's streams: a magic number and their version
_NO_DESCRIPTION = b"\x06\0\0\0\x02{}"  # that of its parts in JSON at the end, which nobody needs


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of a snapshot. stem: their path without an ending."""

    stem: Path

    @property
    def pages(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.pages")

    @property
    def devices(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.devices")

    def there(self) -> bool:
        """Whether there are both."""
        return self.pages.exists() and self.devices.exists()

    def size(self) -> int:
        """Bytes that they take."""
        return sum(path.stat().st_size for path in (self.pages, self.devices) if path.exists())

    def remove(self) -> None:
        """No error where they are not there."""
        for path in (self.pages, self.devices):
            path.unlink(missing_ok=True)


def save(session: Monitor, mapped: Mapped, base: Base, kept: Kept) -> bool:
    """Keep memory and devices of a machine that stands still; False where this host or this QEMU does not let us.

    A machine that stands still goes on listening: to its guest's agent may be said something at any time, which goes
    into the guest's memory. What was there before the devices' state was written has to be there after it.
    Raises HostError on a full disk.
    """
    raw, unfinished = (kept.stem.with_name(f".{kept.stem.name}.{name}") for name in ("raw", "new"))
    try:
        for _ in range(_TRIES):
            runs = mapped.changed()
            with mapped.opened() as source:
                before = _checksum(source, runs)
                session.execute("xen-save-devices-state", filename=str(raw), live=False)
                if mapped.changed() != runs:
                    continue
                devices = raw.read_bytes()
                stream_of(base.state.read_bytes(), devices)
                if _write(unfinished, source, runs, mapped.size, zlib.crc32(devices)) == before:
                    write_atomic(kept.devices, devices, mode=0o600, durable=False)
                    unfinished.replace(kept.pages)
                    return True
    except (RefusedError, ValueError):
        return False
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise explained(kept.pages, error) from error
        return False
    finally:
        for path in (raw, unfinished):
            path.unlink(missing_ok=True)
    return False


def load(session: Monitor, pid: int, base: Base, kept: Kept) -> None:
    """Give a machine that has the base's memory and waits for the state of its devices what was saved.

    Raises ProviderError; the process is of no use then, because it may have half of it.
    """
    mapped = memory.mapped(pid, base.ram)
    if mapped is None:
        raise ProviderError("its memory cannot be found in its process")
    try:
        with kept.pages.open("rb") as file, mapped.opened(to_write=True) as target:
            checksum = read(file, mapped.size, target.write)
        devices = kept.devices.read_bytes()
        if zlib.crc32(devices) != checksum:
            raise ProviderError(f"{kept.devices} is damaged")
        whole = stream_of(base.state.read_bytes(), devices)
    except (OSError, ValueError) as error:
        raise ProviderError("its memory cannot be loaded", details=str(error)) from error
    # only now: devices look into the memory when they are loaded
    with tempfile.TemporaryFile() as stream:
        stream.write(whole)
        stream.seek(0)
        templates.load(session, stream.fileno())


def read(file: BinaryIO, size: int, put: Callable[[int, bytes], None]) -> int:
    """Hand on the pages of a file for a memory of ``size`` bytes, each with its place. Gives the devices' checksum.

    Raises ProviderError for a file that is damaged or none of this kind; some of it was handed on then.
    """
    head = file.read(_HEAD.size)
    wrong = ProviderError(f"{file.name} is damaged")
    if len(head) != _HEAD.size:
        raise wrong
    magic, form, page, whole, devices, count = _HEAD.unpack(head)
    if magic != _MAGIC or count > whole // PAGE:
        raise wrong
    if (form, page, whole) != (_FORMAT, PAGE, size):
        raise ProviderError(f"{file.name} is of another memory", details=f"format {form}, {page}, {whole} bytes")
    table = file.read(_RUN.size * count)
    if len(table) != _RUN.size * count:
        raise wrong
    checksum = zlib.crc32(table, zlib.crc32(head))
    for first, pages in _RUN.iter_unpack(table):
        if not first < first + pages <= size // PAGE:
            raise wrong
        for at, length in _pieces(first, pages):
            data = file.read(length)
            if len(data) != length:
                raise wrong
            checksum = zlib.crc32(data, checksum)
            put(at, data)
    if file.read() != _END.pack(checksum):
        raise wrong
    return int(devices)


def write(file: BinaryIO, source: Callable[[int, int], bytes], runs: Runs, size: int, devices: int) -> int:
    """Write pages of a memory of ``size`` bytes, and the devices' checksum. Gives a checksum of the pages alone."""
    table = b"".join(_RUN.pack(*run) for run in runs)
    head = _HEAD.pack(_MAGIC, _FORMAT, PAGE, size, devices, len(runs))
    file.write(head + table)
    whole, pages = zlib.crc32(table, zlib.crc32(head)), 0
    for run in runs:
        for at, length in _pieces(*run):
            data = source(at, length)
            file.write(data)
            whole, pages = zlib.crc32(data, whole), zlib.crc32(data, pages)
    file.write(_END.pack(whole))
    return pages


def _write(path: Path, source: Opened, runs: Runs, size: int, devices: int) -> int:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        return write(file, source.read, runs, size, devices)


def _checksum(source: Opened, runs: Runs) -> int:
    checksum = 0
    for run in runs:
        for at, length in _pieces(*run):
            checksum = zlib.crc32(source.read(at, length), checksum)
    return checksum


def _pieces(first: int, pages: int) -> list[tuple[int, int]]:
    """A run of pages as places and lengths in bytes, none of them large."""
    begin, end = first * PAGE, (first + pages) * PAGE
    return [(at, min(_PIECE, end - at)) for at in range(begin, end, _PIECE)]


def stream_of(template: bytes, devices: bytes) -> bytes:
    """A stream that QEMU takes of a machine that begins as a copy, from a template's and one of devices alone.

    From the template comes all that goes before its devices: what kind of machine it is, and small memories that stay
    as they are, such as the firmware's. Raises ValueError where one of them does not begin as QEMU's streams do.
    """
    head = 1 + 4 + 1 + devices[_HEADING + 5] + 4 + 4 if len(devices) > _HEADING + 5 else 0
    first = devices[_HEADING : _HEADING + head]  # of the first device: kind, number, name, instance, version
    begin, found, rest = template.partition(first) if first else (b"", b"", b"")
    if not found or first in rest or begin[:_HEADING] != devices[:_HEADING]:
        raise ValueError("QEMU's streams are of another form")
    return begin + devices[_HEADING:] + _NO_DESCRIPTION
