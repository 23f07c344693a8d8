"""Disk images from elsewhere: looked at before any program opens them, then rewritten as a plain qcow2."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Literal

from labctl.errors import ImageError
from labctl.host.runner import Argument, CommandError, Runner
from labctl.images.host_tools import full_disk

Format = Literal["qcow2", "raw", "vmdk"]

_QCOW2 = b"QFI\xfb"
_VMDK = b"KDMV"
_EXTERNAL_DATA = 1 << 2  # incompatible feature bit of a qcow2 file (QEMU, docs/interop/qcow2.txt)
_LARGEST = 2 << 40  # bytes a guest may see; more is a mistake or an attack
_INFO_SECONDS = 30.0
_CONVERT_SECONDS = 3600.0
_INFO_MEMORY = 2 << 30  # what OpenStack's limits for the same call amount to, doubled


def convert(source: Path, target: Path, runner: Runner) -> Format:
    """Write a qcow2, raw or VMDK file as a qcow2 that refers to no other file; returns what it was.

    Raises ImageError for anything that refers to other files, is encrypted or damaged, or has another format, and
    HostError on a full disk.
    """
    kind = examine(source)
    size = _virtual_size(source, kind, runner)
    if not 0 < size <= _LARGEST:
        raise ImageError(f"{source} claims to be a disk of {size} bytes", hint="The largest disk is 2 TiB.")
    try:
        runner.run(["qemu-img", "convert", "-f", kind, "-O", "qcow2", source, target], timeout=_CONVERT_SECONDS)
    except CommandError as error:
        unreadable = ImageError(f"{source} cannot be read as {kind}", details=error.result.last_words())
        raise full_disk(error) or unreadable from error
    return kind


def examine(source: Path, offset: int = 0) -> Format:
    """The format of a disk image by its first bytes. Raises ImageError where it would make QEMU open other files.

    offset: where it begins in the file, for a disk inside an archive.
    """
    try:
        with source.open("rb") as file:
            file.seek(offset)
            head = file.read(4096)
            if head.startswith(_QCOW2):
                return _qcow2(source, head)
            if head.startswith(_VMDK):
                return _vmdk(source, head, file.read(1 << 16))
    except OSError as error:
        raise ImageError(f"the disk image {source} cannot be read: {error.strerror}") from error
    for magic, name in (
        (b"# Disk DescriptorFile", "a VMDK of several files"),
        (b"<?xml", "an OVF"),
        (b"conectix", "a VHD"),
    ):
        if head.startswith(magic):
            raise ImageError(f"{source} is {name}", hint="Import a single qcow2, raw or sparse VMDK file.")
    if not head or len(head) < 512 or not (head[510:512] == b"\x55\xaa" or _is_file_system(source)):
        raise ImageError(
            f"{source} is no disk image that labctl knows",
            hint="qcow2, raw (with a partition table or a file system) and sparse VMDK files can be imported.",
        )
    return "raw"


def _qcow2(source: Path, head: bytes) -> Format:
    version, backing_offset = struct.unpack_from(">IQ", head, 4)
    encryption = struct.unpack_from(">I", head, 32)[0]
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
    if backing_offset:
        _refuse(source, "has a backing file: it would make this host open a file of the image's choice")
    if features & _EXTERNAL_DATA:
        _refuse(source, "has an external data file: it would make this host open a file of the image's choice")
    if encryption:
        _refuse(source, "is encrypted")
    return "qcow2"


def _vmdk(source: Path, head: bytes, rest: bytes) -> Format:
    """Only the kind whose data follows in the same file (monolithicSparse, streamOptimized)."""
    capacity = struct.unpack_from("<Q", head, 12)[0]
    if not capacity or b"parentFileNameHint" in head + rest:
        _refuse(source, "refers to other files: it would make this host open files of the image's choice")
    return "vmdk"


def _is_file_system(source: Path) -> bool:
    with source.open("rb") as file:
        file.seek(1080)
        return file.read(2) == b"\x53\xef"  # ext2 to ext4 without a partition table


def _virtual_size(source: Path, kind: Format, runner: Runner) -> int:
    limits: list[Argument] = ["prlimit", f"--as={_INFO_MEMORY}", f"--cpu={_INFO_SECONDS:.0f}", "--"]
    command: list[Argument] = ["qemu-img", "info", "-f", kind, "--output=json", source]
    try:
        found = runner.run((limits if shutil.which("prlimit") else []) + command, changes=False, timeout=_INFO_SECONDS)
        facts = json.loads(found.stdout)
    except (CommandError, ValueError) as error:
        details = error.result.last_words() if isinstance(error, CommandError) else ""
        raise ImageError(f"{source} cannot be read as {kind}", details=details) from error
    details = facts.get("format-specific", {}).get("data", {})
    if facts.get("backing-filename") or details.get("data-file"):
        _refuse(source, "refers to another file: it would make this host open a file of the image's choice")
    return int(facts["virtual-size"])


def _refuse(source: Path, why: str) -> None:
    raise ImageError(
        f"{source} {why}", hint="Convert it to a file of its own first: qemu-img convert -O qcow2 OLD NEW."
    )
