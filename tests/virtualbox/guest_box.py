"""Vagrant boxes whose guests answer soon: labctl's own with the first program and the SSH server exchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from labctl.events import ignore
from labctl.host.runner import Runner
from labctl.images import host_tools
from labctl.images.boxes import disk, guest, pack
from labctl.images.boxes.ext4 import Ext4, Node
from labctl.images.boxes.gpt import SECTOR
from labctl.images.boxes.workshop import BoxWorkshop
from labctl.images.store import DISK, Store
from tests.virtualbox.harness import INSIDE

_IMAGE = "debian-12"
_PACKAGES = ("dropbear-bin", *guest.PACKAGES)
# Choosing a place for the kernel and testing clocks takes an interpreter long.
_CMDLINE = "nokaslr tsc=reliable nowatchdog lsm= cryptomgr.notests"
_PROGRAMS = {"guest-init": "/usr/lib/systemd/systemd", "guest-shutdown": "/usr/sbin/shutdown"}
_FOLDERS = ("/usr/lib/systemd", "/usr/sbin")


def guest_box(folder: Path, provider: Literal["virtualbox", "libvirt"]) -> Path:
    """The box, kept in a folder of ``folder``."""
    image = BoxWorkshop(Store(), ignore, Runner()).get(_IMAGE, tuple(sorted(_PACKAGES)))
    source = image.path(DISK)
    assert source is not None
    programs = {path: (INSIDE / name).read_bytes() for name, path in _PROGRAMS.items()}
    key = hashlib.sha256(f"{image.digest} {_CMDLINE} {programs}".encode()).hexdigest()[:12]
    path = folder / "boxes" / f"{provider}-guest-{key}.box"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with host_tools.scratch("guest", Runner()) as scratch:
            runner = host_tools.build_runner(Runner(), scratch)
            raw = disk.make(source, image.digest, f"{image.cmdline} {_CMDLINE}", scratch, runner)
            root = Ext4(raw, disk._ROOT * SECTOR, scratch, runner)
            there = {f"{place}/{name}" for place in _FOLDERS for name in root.names(place)}
            root.add([Node(path, text, 0o755, replaces=path in there) for path, text in programs.items()])
            draft = path.with_suffix(".draft")
            if provider == "virtualbox":
                pack.virtualbox("guest", image.digest, raw, draft)
            else:
                pack.libvirt(raw, draft, runner)
            draft.replace(path)
    return path
