"""A Vagrant box whose guest answers soon: labctl's own box with the first program and the SSH server exchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path

from labctl.events import ignore
from labctl.host.runner import Runner
from labctl.images import host_tools
from labctl.images.boxes import disk, guest, pack
from labctl.images.boxes.ext4 import Ext4, Node
from labctl.images.boxes.gpt import SECTOR
from labctl.images.boxes.workshop import BoxWorkshop
from labctl.images.store import DISK, Store
from tests.virtualbox.harness import INSIDE
from tests.virtualbox.tree import Tree

_IMAGE = "debian-12"
_PACKAGES = ("dropbear-bin", *guest.PACKAGES)
# Choosing a place for the kernel and testing clocks takes an interpreter long.
_CMDLINE = "nokaslr tsc=reliable nowatchdog lsm= cryptomgr.notests"
_FIRST = "/usr/lib/systemd/systemd"


def guest_box(tree: Tree) -> Path:
    """The box, kept beside the tree."""
    image = BoxWorkshop(Store(), ignore, Runner()).get(_IMAGE, tuple(sorted(_PACKAGES)))
    source = image.path(DISK)
    assert source is not None
    init = (INSIDE / "guest-init").read_bytes()
    key = hashlib.sha256(f"{image.digest} {_CMDLINE} ".encode() + init).hexdigest()[:12]
    path = tree.folder / "boxes" / f"guest-{key}.box"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with host_tools.scratch("guest", Runner()) as scratch:
            runner = host_tools.build_runner(Runner(), scratch)
            raw = disk.make(source, image.digest, f"{image.cmdline} {_CMDLINE}", scratch, runner)
            root = Ext4(raw, disk._ROOT * SECTOR, scratch, runner)
            root.add([Node(_FIRST, init, 0o755, replaces=True)])
            draft = path.with_suffix(".draft")
            pack.virtualbox("guest", image.digest, raw, draft)
            draft.replace(path)
    return path
