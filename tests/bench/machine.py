"""What was measured on: figures mean nothing without it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

import psutil

from labctl.images import resolve
from labctl.providers.qemu.accelerator import accelerator
from labctl.providers.qemu.argv import BINARY

GIB = 1 << 30
_CLASS_OF_90 = 20 * GIB  # 90 machines of 256 MiB that begin with the same memory, and what they have written since


def described() -> dict[str, str]:
    """The computer, what labctl stands on, and which labctl."""
    memory = psutil.virtual_memory().total / GIB
    engine = accelerator(resolve("debian-12").kernel).name
    return {
        "computer": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "engine": f"QEMU {_first_line(BINARY, '--version').split()[3]}, {engine}",
        "labctl": _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "day": time.strftime("%Y-%m-%d"),
    }


def largest() -> int:
    """How many machines the largest lab has where nobody says so."""
    return 90 if psutil.virtual_memory().total >= _CLASS_OF_90 else 30


def _processor() -> str:
    note = Path("/proc/cpuinfo")
    lines = note.read_text().splitlines() if note.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _first_line(*argv: str) -> str:
    said = subprocess.run(argv, check=False, capture_output=True, text=True).stdout
    return next(iter(said.splitlines()), "unknown")
