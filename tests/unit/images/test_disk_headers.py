"""Disk images from elsewhere are judged by their own bytes before any program opens them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from labctl.errors import ImageError
from labctl.images import disk

pytestmark = pytest.mark.unit


def _qcow2(*, backing: int = 0, encryption: int = 0, features: int = 0, version: int = 3) -> bytes:
    head = bytearray(4096)
    struct.pack_into(">4sIQ", head, 0, b"QFI\xfb", version, backing)
    struct.pack_into(">I", head, 32, encryption)
    struct.pack_into(">Q", head, 72, features)
    return bytes(head)


def _vmdk(*, capacity: int = 2048, descriptor: bytes = b'createType="monolithicSparse"') -> bytes:
    head = bytearray(4096)
    struct.pack_into("<4sIIQ", head, 0, b"KDMV", 1, 3, capacity)
    head[512 : 512 + len(descriptor)] = descriptor
    return bytes(head)


RAW = bytes(510) + b"\x55\xaa" + bytes(4096)
EXT4 = bytes(1080) + b"\x53\xef" + bytes(4096)


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "image"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "kind"),
    [(_qcow2(), "qcow2"), (_qcow2(version=2), "qcow2"), (_vmdk(), "vmdk"), (RAW, "raw"), (EXT4, "raw")],
)
def test_formats_by_content(tmp_path: Path, content: bytes, kind: str) -> None:
    assert disk.examine(_file(tmp_path, content)) == kind


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_qcow2(backing=512), "backing file"),
        (_qcow2(features=1 << 2), "external data file"),
        (_qcow2(encryption=1), "encrypted"),
        (_vmdk(capacity=0), "refers to other files"),
        (_vmdk(descriptor=b'parentFileNameHint="/etc/shadow"'), "refers to other files"),
        (b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n' + bytes(4096), "several files"),
        (b"", "no disk image"),
        (b"hello", "no disk image"),
        (bytes(8192), "no disk image"),
        (b'<?xml version="1.0"?>' + bytes(4096), "OVF"),
    ],
)
def test_what_would_open_other_files_or_is_no_disk(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ImageError) as caught:
        disk.examine(_file(tmp_path, content))
    assert said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        disk.examine(tmp_path / "missing")
