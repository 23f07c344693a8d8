"""The disk of a box: an image's root file system in a partition, and what boots it by BIOS and by EFI."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID, uuid5

from labctl.host.runner import CommandError, Runner
from labctl.images import host_tools
from labctl.images.boxes import gpt, guest, loader
from labctl.images.boxes.ext4 import Ext4
from labctl.images.boxes.gpt import SECTOR, Partition

_NAMESPACE = UUID("5d3ff0b6-7b2a-4c55-9d0c-1c3b7f6a2e10")  # labctl's own, drawn once
_MIB = (1 << 20) // SECTOR  # sectors
_CORE = (_MIB, _MIB)  # start and length
_ESP = (2 * _MIB, 4 * _MIB)
_ROOT = 8 * _MIB
_ROOT_NUMBER = 3
_AFTER_ROOT = _MIB  # for the second copy of the partition table
_CONVERT_SECONDS = 600.0


def identity(digest: str, what: str) -> UUID:
    """The UUID of a part of the box that is made of the image with this digest."""
    return uuid5(_NAMESPACE, f"{digest} {what}")


def make(image: Path, digest: str, cmdline: str, scratch: Path, runner: Runner) -> Path:
    """Write a raw disk that boots the image (a qcow2 whose content is one ext4 file system) to ``scratch``.

    digest: the image's. cmdline: the kernel's arguments beside the root's name. The same image gives the same bytes.
    Raises ImageError, HostError.
    """
    disk = scratch / "disk.raw"
    try:
        root_sectors = _virtual_size(image, runner) // SECTOR
        sectors = _ROOT + root_sectors + _AFTER_ROOT
        with disk.open("wb") as file:
            file.truncate(sectors * SECTOR)
        _splice(image, disk, root_sectors, runner)
        script = guest.add(Ext4(disk, _ROOT * SECTOR, scratch, runner), cmdline)
        grub = loader.make(script, _ROOT_NUMBER, _CORE[0], scratch, runner)
        esp = loader.esp(grub.efi, _ESP[1] * SECTOR, scratch, runner)
    except CommandError as error:
        raise host_tools.full_disk(error) or error from error
    partitions = (
        Partition(gpt.BIOS_BOOT, identity(digest, "core"), "grub", *_CORE),
        Partition(gpt.EFI_SYSTEM, identity(digest, "esp"), "efi", *_ESP),
        Partition(gpt.LINUX_ROOT_X86_64, identity(digest, "root"), "root", _ROOT, root_sectors),
    )
    head, tail = gpt.table(identity(digest, "disk"), sectors, partitions, grub.boot_code)
    with disk.open("r+b") as file:
        for sector, content in ((0, head), (_CORE[0], grub.core), (_ESP[0], esp), (sectors - gpt.TAIL_SECTORS, tail)):
            file.seek(sector * SECTOR)
            file.write(content)
    return disk


def _virtual_size(image: Path, runner: Runner) -> int:
    found = runner.run(["qemu-img", "info", "-f", "qcow2", "--output=json", image], changes=False)
    return int(json.loads(found.stdout)["virtual-size"])


def _splice(image: Path, disk: Path, sectors: int, runner: Runner) -> None:
    """Copy the image's content to where the root partition begins; holes stay holes."""
    place = f"driver=raw,offset={_ROOT * SECTOR},size={sectors * SECTOR},file.driver=file,file.filename={disk.name}"
    runner.run(
        ["qemu-img", "convert", "-n", "--target-is-zero", "-f", "qcow2", image, "--target-image-opts", place],
        timeout=_CONVERT_SECONDS,
        cwd=disk.parent,
    )
