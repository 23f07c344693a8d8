"""The partition table and the boot sector of a box's disk, read back as firmware reads them."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

import pytest

from labctl.errors import ImageError
from labctl.images.boxes import gpt, loader
from labctl.images.boxes.gpt import SECTOR, Partition

pytestmark = pytest.mark.unit

DISK = UUID("00112233-4455-6677-8899-aabbccddeeff")
ROOT = UUID("11111111-2222-3333-4444-555555555555")
SECTORS = 40960
PARTITIONS = (
    Partition(gpt.EFI_SYSTEM, UUID(int=1), "efi", 2048, 2048),
    Partition(gpt.LINUX_ROOT_X86_64, ROOT, "root", 8192, 16384),
)


def _header(sector: bytes) -> tuple[bytes, ...]:
    """The fields of a header whose own checksum is right."""
    fields = struct.unpack_from("<8sIIIIQQQQ16sQIII", sector)
    blank = bytearray(sector[: fields[2]])
    blank[16:20] = bytes(4)
    assert fields[3] == zlib.crc32(blank)
    return fields


def test_both_copies_of_the_table_describe_the_same_partitions() -> None:
    head, tail = gpt.table(DISK, SECTORS, PARTITIONS, b"boot")
    assert (len(head), len(tail)) == (34 * SECTOR, 33 * SECTOR)
    first, second = _header(head[SECTOR : 2 * SECTOR]), _header(tail[-SECTOR:])
    assert (first[5], first[6]) == (1, SECTORS - 1)
    assert (second[5], second[6]) == (SECTORS - 1, 1)
    assert (first[7], first[8]) == (second[7], second[8]) == (34, SECTORS - 34)
    assert first[9] == DISK.bytes_le
    assert (first[10], second[10]) == (2, SECTORS - 33)
    entries = head[2 * SECTOR :]
    assert entries == tail[:-SECTOR]
    assert first[13] == second[13] == zlib.crc32(entries)
    kind, uuid, start, last, _, name = struct.unpack_from("<16s16sQQQ72s", entries, 128)
    assert (kind, uuid) == (gpt.LINUX_ROOT_X86_64.bytes_le, ROOT.bytes_le)
    assert (start, last) == (8192, 8192 + 16384 - 1)
    assert name.decode("utf-16-le").rstrip("\0") == "root"


def test_the_first_sector_holds_the_boot_code_and_protects_the_disk_from_old_programs() -> None:
    head, _ = gpt.table(DISK, SECTORS, PARTITIONS, b"B" * 440)
    assert head[:440] == b"B" * 440
    assert head[510:512] == b"\x55\xaa"
    assert head[450] == 0xEE
    assert struct.unpack_from("<II", head, 454) == (1, SECTORS - 1)


def test_boot_code_that_would_reach_into_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="441 bytes"):
        gpt.table(DISK, SECTORS, PARTITIONS, bytes(441))


def test_each_part_of_grub_is_told_where_the_next_one_lies() -> None:
    image = bytearray(b"\xcc" * 512)
    image[510:] = b"\x55\xaa"
    code = loader.boot_code(bytes(image), 2048)
    assert len(code) == 440
    assert struct.unpack_from("<Q", code, 0x5C)[0] == 2048
    changed = {at for at in range(440) if code[at] != image[at]}
    assert changed <= {*range(0x5C, 0x64), 0x66, 0x67}
    core = loader.core(bytes(1024), 2048)
    assert struct.unpack_from("<Q", core, 0x1F4)[0] == 2049


@pytest.mark.parametrize("image", [b"", bytes(512), bytes(510) + b"\x55\xaa" + bytes(512)])
def test_what_is_no_boot_sector_is_refused(image: bytes) -> None:
    with pytest.raises(ImageError, match="no boot sector"):
        loader.boot_code(image, 2048)
