"""Which accelerator really runs a guest here.

A ``/dev/kvm`` that opens, creates virtual machines and then hangs every ordinary guest exists (software KVM on cloud
sandboxes), so an accelerator is trusted only after it ran one: first a boot sector, then an ordinary kernel.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from labctl.errors import HostError
from labctl.host.files import write_json
from labctl.host.folders import state_root
from labctl.host.processes import boot_id
from labctl.host.runner import Runner
from labctl.providers.qemu.argv import BINARY

_CANDIDATES = {"linux": "kvm", "darwin": "hvf", "win32": "whpx"}
_EXIT_STATUS = 33  # isa-debug-exit turns the written 0x10 into 0x10 << 1 | 1
_SECTOR_SECONDS = 2.0  # 0.2 s where the accelerator works
_KERNEL_SECONDS = 8.0  # 1 s where it works; TCG takes about 5 s

# mov dx, 0xf4; mov al, 0x10; out dx, al; hlt
_BOOT_SECTOR = bytes.fromhex("baf400b010eef4").ljust(510, b"\0") + b"\x55\xaa"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """name: ``kvm``, ``hvf``, ``whpx`` or ``tcg``. reason: why this one, for people. kernel: whether it ran an ordinary
    kernel and not only a boot sector (always so for tcg)."""

    name: str
    reason: str
    kernel: bool = True


def accelerator(kernel: Path | None = None, *, runner: Runner | None = None) -> Accelerator:
    """The accelerator to use, from this host boot's notes or by trying, which takes up to 10 s.

    kernel: an ordinary Linux kernel for the second trial; without one the answer stays preliminary. Raises HostError
    where QEMU is missing.
    """
    key = _key()
    note = state_root() / "accelerator.json"
    known = _noted(note, key)
    if known is not None and (known.kernel or kernel is None):
        return known
    found = _try(kernel, runner or Runner())
    write_json(note, {"key": key, "accelerator": asdict(found)})
    return found


def _try(kernel: Path | None, runner: Runner) -> Accelerator:
    name = _CANDIDATES.get(sys.platform)
    missing = _absent(name)
    if name is None or missing:
        return Accelerator("tcg", f"emulation: {missing}")
    sector = _run_boot_sector(name, runner)
    if sector:
        return Accelerator("tcg", f"emulation: {name} is here but {sector}")
    if kernel is None:
        return Accelerator(name, f"{name} ran a boot sector", kernel=False)
    booted = _run_kernel(name, kernel, runner)
    if booted:
        return Accelerator("tcg", f"emulation: {name} is here but {booted}")
    return Accelerator(name, f"{name} ran a Linux kernel")


def _absent(name: str | None) -> str:
    """Why there is nothing to try, or ``""``."""
    if name is None:
        return f"no accelerator is known for {sys.platform}"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"guests are x86-64 and this host is {platform.machine()}"
    if name == "kvm" and not Path("/dev/kvm").exists():
        return "this host has no /dev/kvm (no hardware virtualisation, or its module is not loaded)"
    if name == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "this user may not open /dev/kvm; `sudo usermod -aG kvm $USER` and a new login mend that"
    return ""


def _run_boot_sector(name: str, runner: Runner) -> str:
    """What went wrong with a boot sector that ends QEMU through a port, or ``""``."""
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        sector = Path(folder) / "sector.img"
        sector.write_bytes(_BOOT_SECTOR)
        drive = f"file={str(sector).replace(',', ',,')},format=raw,if=ide"
        argv = [*_bare(name), "-drive", drive, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
        result = runner.run(argv, changes=False, check=False, timeout=_SECTOR_SECONDS)
    if result.code == _EXIT_STATUS:
        return ""
    if result.code is None:
        return f"did not run a 512-byte boot sector within {_SECTOR_SECONDS:g} s"
    return f"does not start: {result.last_words(1) or f'status {result.code}'}"


def _run_kernel(name: str, kernel: Path, runner: Runner) -> str:
    """What went wrong with a kernel that finds no root, panics and so ends QEMU, or ``""``."""
    argv = [*_bare(name), "-kernel", kernel, "-append", "panic=-1 quiet console=ttyS0", "-serial", "null"]
    result = runner.run(argv, changes=False, check=False, timeout=_KERNEL_SECONDS)
    if result.code is None:
        return f"hangs an ordinary Linux kernel (no end within {_KERNEL_SECONDS:g} s)"
    return "" if result.code == 0 else f"stops at a Linux kernel: {result.last_words(1) or f'status {result.code}'}"


def _bare(name: str) -> list[str | Path]:
    return [
        *(BINARY, "-accel", name, "-cpu", "host" if name in ("kvm", "hvf") else "max"),
        *("-machine", "pc", "-m", "128", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    ]


def _key() -> str:
    """Names this boot of this host and this QEMU: an update of either calls for a new trial."""
    return f"{boot_id()} {binary_id()}"


def binary_id() -> str:
    """Names this host's QEMU; an update changes it. Raises HostError where there is none."""
    found = shutil.which(BINARY)
    if found is None:
        raise HostError(f"{BINARY} is not installed", hint="Debian, Ubuntu: apt install qemu-system-x86 qemu-utils")
    binary = Path(found).resolve()
    facts = binary.stat()
    return f"{binary} {facts.st_size} {facts.st_mtime_ns}"


def _noted(note: Path, key: str) -> Accelerator | None:
    try:
        value = json.loads(note.read_text(encoding="utf-8"))
        return Accelerator(**value["accelerator"]) if value["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a missing or damaged note costs one more trial
