"""GRUB for a disk that both a BIOS and an EFI can boot, put into place by hand: its own installer wants root.

What the installer would do for a BIOS is to tell each part where the next one lies: boot.img, in the disk's first
sector, loads the first sector of GRUB's core, and that one the rest of it (GRUB, ``util/setup.c``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import ImageError
from labctl.host.runner import Argument, Runner
from labctl.images.boxes.gpt import SECTOR
from labctl.images.host_tools import GRUB

_MODULES = ("part_gpt", "ext2", "linux")
_BOOT_CODE = 440
_CORE_SECTOR = 0x5C  # offsets: GRUB, include/grub/i386/pc/boot.h
_DRIVE_CHECK = 0x66
_REST_SECTOR = 0x1F4
_ESP_SECTORS_PER_TRACK = 32


@dataclass(frozen=True, slots=True)
class Loader:
    """boot_code: for the disk's first sector. core: for the BIOS boot partition. efi: an EFI program."""

    boot_code: bytes
    core: bytes
    efi: bytes


def make(script: str, partition: int, core_sector: int, scratch: Path, runner: Runner) -> Loader:
    """GRUB with a script of its own built in.

    script: GRUB commands; paths in it are looked up in the ``partition`` (counted from 1) of the disk that GRUB was
    loaded from. core_sector: where the core will lie on the disk. scratch: a folder for files on the way.
    """
    (scratch / "grub.cfg").write_text(script)
    root = f"(,gpt{partition})/boot/grub"
    bios = _image("i386-pc", ("biosdisk", *_MODULES), root, scratch, runner)
    efi = _image("x86_64-efi", _MODULES, root, scratch, runner)
    first = (GRUB / "i386-pc/boot.img").read_bytes()
    return Loader(boot_code(first, core_sector), core(bios, core_sector), efi)


def boot_code(image: bytes, core_sector: int) -> bytes:
    """GRUB's boot.img, told where its core lies."""
    if len(image) != SECTOR or image[-2:] != b"\x55\xaa":
        raise ImageError(f"{GRUB}/i386-pc/boot.img is no boot sector", hint="Install grub-pc-bin again.")
    code = bytearray(image[:_BOOT_CODE])
    struct.pack_into("<Q", code, _CORE_SECTOR, core_sector)
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"  # what some BIOSes say about the drive is not believed
    return bytes(code)


def core(image: bytes, sector: int) -> bytes:
    """GRUB's core for a BIOS, told where all but its first sector lies."""
    patched = bytearray(image)
    struct.pack_into("<Q", patched, _REST_SECTOR, sector + 1)
    return bytes(patched)


def esp(efi: bytes, size: int, scratch: Path, runner: Runner) -> bytes:
    """A FAT file system of ``size`` bytes with ``efi`` as the program that an EFI starts when it was told of none."""
    image, program = scratch / "esp", scratch / "efi"
    image.write_bytes(bytes(size))
    program.write_bytes(efi)
    # mtools would write the time of day and take the serial number from it.
    mtools = Runner(runner.log, runner.dry_run, {**runner.environment, "SOURCE_DATE_EPOCH": "946684800", "TZ": "UTC"})
    tracks = size // SECTOR // _ESP_SECTORS_PER_TRACK
    mtools.run(["mformat", "-i", image, "-N", "0", "-h", 1, "-s", _ESP_SECTORS_PER_TRACK, "-t", tracks, "-c", 1, "::"])
    mtools.run(["mmd", "-i", image, "::EFI", "::EFI/BOOT"])
    mtools.run(["mcopy", "-i", image, program, "::EFI/BOOT/BOOTX64.EFI"])
    return image.read_bytes()


def _image(platform: str, modules: tuple[str, ...], root: str, scratch: Path, runner: Runner) -> bytes:
    image = scratch / f"grub-{platform}"
    command: list[Argument] = ["grub-mkimage", "-O", platform, "-p", root, "-c", scratch / "grub.cfg", "-o", image]
    runner.run([*command, *modules])
    return image.read_bytes()
