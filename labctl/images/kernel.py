"""The kernel as it boots fastest: uncompressed, because unpacking it takes seconds under emulation."""

from __future__ import annotations

import struct
from pathlib import Path

from labctl.errors import HostError
from labctl.host.runner import CommandError, Runner

_SETUP_SECTORS = 0x1F1  # offsets in the header of a bzImage: Linux, Documentation/arch/x86/boot.rst
_MAGIC = 0x202
_PAYLOAD = 0x248
_LZ4 = b"\x02\x21\x4c\x18"
# An ELF note "Xen" of type 18, the entry point that QEMU starts an uncompressed kernel at (32- or 64-bit address).
_PVH_NOTES = tuple(struct.pack("<III", 4, size, 18) + b"Xen\0" for size in (4, 8))


def unpack(kernel: Path, target: Path, runner: Runner) -> None:
    """Write ``kernel`` (a bzImage) to ``target``, uncompressed where that is possible, else as it is."""
    image = kernel.read_bytes()
    payload = _payload(image)
    if payload.startswith(_LZ4):
        packed = target.with_name(f".{target.name}.lz4")
        packed.write_bytes(payload)
        try:
            runner.run(["lz4", "-d", "-f", "-q", packed, target])
        except (CommandError, HostError):
            target.unlink(missing_ok=True)
        finally:
            packed.unlink()
        if target.exists() and _bootable(target.read_bytes()):
            return
    target.write_bytes(image)


def _payload(image: bytes) -> bytes:
    """The compressed kernel in a bzImage without the size that follows it; empty for anything else."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        return b""
    start = (image[_SETUP_SECTORS] + 1) * 512
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    return image[start + offset : start + offset + length - 4]


def _bootable(kernel: bytes) -> bool:
    return kernel.startswith(b"\x7fELF") and any(note in kernel for note in _PVH_NOTES)
