"""VMDK files, read from front to back as a program does that unpacks a stream."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from uuid import UUID

import pytest

from labctl.images.boxes import vmdk

pytestmark = pytest.mark.unit

IDENTITY = UUID("00112233-4455-6677-8899-aabbccddeeff")
MIB = 1 << 20
GRAIN = 65536


def _raw(tmp_path: Path) -> Path:
    """70 MiB, most of it empty: the first and the last grain, one in the third table, and none in the second."""
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.write(b"first" * 1000)
        file.seek(65 * MIB + 512)
        file.write(bytes(range(256)) * 600)
        file.seek(70 * MIB - 512)
        file.write(b"last" * 128)
    return raw


def _stream(content: bytes) -> tuple[dict[int, bytes], list[int]]:
    """Grains by the byte they begin at, and the kinds of metadata in order; ends at the end-of-stream marker."""
    grains, kinds, at = {}, [], 128 * 512
    while True:
        sector, size = struct.unpack_from("<QI", content, at)
        if size:
            grains[sector * 512] = zlib.decompress(content[at + 12 : at + 12 + size])
            at += -(-(12 + size) // 512) * 512
            continue
        kind = struct.unpack_from("<I", content, at + 12)[0]
        kinds.append(kind)
        if kind == 0:
            assert at + 512 == len(content)
            return grains, kinds
        at += 512 + sector * 512


def test_a_stream_holds_every_grain_that_is_not_empty(tmp_path: Path) -> None:
    raw, packed = _raw(tmp_path), tmp_path / "packed.vmdk"
    vmdk.write(raw, packed, IDENTITY)
    grains, kinds = _stream(packed.read_bytes())
    whole = raw.read_bytes()
    assert {at: whole[at : at + GRAIN] for at in range(0, len(whole), GRAIN) if any(whole[at : at + GRAIN])} == grains
    assert len(grains) == 5
    assert kinds == [1, 1, 2, 3, 0]


def test_tables_and_footer_lead_to_every_grain(tmp_path: Path) -> None:
    raw, packed = _raw(tmp_path), tmp_path / "packed.vmdk"
    vmdk.write(raw, packed, IDENTITY)
    content, whole = packed.read_bytes(), raw.read_bytes()
    header, footer = content[:512], content[-1024:-512]
    assert header[56:64] == b"\xff" * 8
    assert footer[:56] + footer[64:] == header[:56] + header[64:]
    directory = struct.unpack_from("<3I", content, struct.unpack_from("<Q", footer, 56)[0] * 512)
    assert directory[1] == 0
    table = struct.unpack_from("<512I", content, directory[2] * 512)
    number = 65 * MIB // GRAIN
    place = table[number % 512] * 512
    assert struct.unpack_from("<Q", content, place)[0] == number * 128
    size = struct.unpack_from("<I", content, place + 8)[0]
    assert zlib.decompress(content[place + 12 : place + 12 + size]) == whole[number * GRAIN : (number + 1) * GRAIN]


def test_the_descriptor_names_size_and_identity_and_no_other_file(tmp_path: Path) -> None:
    packed = tmp_path / "packed.vmdk"
    vmdk.write(_raw(tmp_path), packed, IDENTITY)
    text = packed.read_bytes()[512 : 21 * 512].rstrip(b"\0").decode()
    assert f'RDONLY {70 * MIB // 512} SPARSE "packed.vmdk"' in text
    assert f'ddb.uuid.image = "{IDENTITY}"' in text
    assert "CID=00112232\n" in text
    assert "parentFileNameHint" not in text


def test_the_same_disk_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    vmdk.write(_raw(tmp_path), tmp_path / "packed.vmdk", IDENTITY)
    vmdk.write(tmp_path / "raw", tmp_path / "again/packed.vmdk", IDENTITY)
    assert (tmp_path / "packed.vmdk").read_bytes() == (tmp_path / "again/packed.vmdk").read_bytes()
