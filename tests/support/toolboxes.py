"""Folders of programs, as guests of several kinds have them: what is not in there cannot be found."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_ALWAYS = [
    "sh",
    "cat",
    "chmod",
    "dd",
    "grep",
    "head",
    "mkdir",
    "mktemp",
    "rm",
    "sed",
    "sleep",
    "sort",
    "timeout",
    "tr",
    "true",
]
TOOLS = {
    "debian": [*_ALWAYS, "bash", "ip", "ping", "setpriv", "setsid"],  # what Debian has without python3
    "socat": [*_ALWAYS, "ip", "ping", "setsid", "socat"],
    "openbsd": [*_ALWAYS, "ip", "ping", "setpriv", "nc"],
    "bare": _ALWAYS,
}
KINDS = (*TOOLS, "busybox")


def toolbox(kind: str, folder: Path) -> Path:
    """Fill a new folder with links to the programs of a kind of guest; never with python3."""
    place = folder / kind
    place.mkdir()
    if kind == "busybox":
        busybox = _found("busybox", "busybox-static")
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for name in applets:
            (place / name).symlink_to(busybox)
    else:
        for name in TOOLS[kind]:
            (place / name).symlink_to(_found("nc.openbsd" if name == "nc" else name, "the package that has it"))
    return place


def _found(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing: apt-get install {package}, or make setup")
    return path
