"""What a box has beside its image: an account for Vagrant, an address on the NIC it comes in by, a way to boot."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from labctl.errors import ImageError
from labctl.images import initrd
from labctl.images.boxes.ext4 import Ext4, Node
from labctl.images.boxes.model import USER

FILES = Path(__file__).parent / "guest"
"""Copied into the guest as they are, below its root."""

KEY = Path(__file__).parent / "vagrant.pub"
"""The key that Vagrant tries first. It is published together with its private half; Vagrant puts one of its own in its
place when it first starts a machine."""

PACKAGES = ("sudo",)
"""What boxes need and images have not."""

INITRD = "/boot/labctl-initrd"

# Disks on virtio-blk (libvirt), IDE (VirtualBox) and virtio-scsi; NVMe is built into the kernel. It has no driver for
# SATA controllers, nor for any NIC of VirtualBox but the VirtIO one.
_MODULES = ("virtio_pci", "virtio_blk", "ata_piix", "virtio_scsi", "sd_mod", *initrd.MODULES)
_MODULE_FOLDER = "/usr/lib/modules"
_BUSYBOX = "/usr/bin/busybox"
_VERSION = re.compile(r"[A-Za-z0-9.+~_-]+")

_ID = 1000
_MODES = {"etc/sudoers.d/vagrant": 0o440, "usr/sbin/labctl-management-address": 0o755}
_SYSTEM = "/etc/systemd/system"
_STARTED = {
    "labctl-management.service": f"{_SYSTEM}/labctl-management.service",
    # Hypervisors show a screen, and a sealed machine has no other way in.
    "getty@tty1.service": "/usr/lib/systemd/system/getty@.service",
}

_FIND_ROOT = """\
# The boot loader names the root file system: each kind of disk controller has another name for its place.
$b mount -t proc proc /proc
read -r words </proc/cmdline
for word in $words; do case $word in root=*) root=${word#root=} ;; esac; done
i=0
until disk=$($b findfs "$root" 2>/dev/null) || [ $i -ge 500 ]; do $b usleep 20000; i=$((i + 1)); done
if ! $b mount -t ext4 -o rw,noatime "$disk" /root; then
  echo "labctl: no disk holds the root file system $root; the machine is switched off"
  $b poweroff -f
fi
$b umount /proc"""


def add(root: Ext4, cmdline: str) -> str:
    """Turn an image's root file system into a box's; returns the GRUB commands that boot it. Raises ImageError.

    cmdline: the kernel's arguments beside the root file system's name.
    """
    version = _kernel(root)
    root.add([*account(root), *_files(), Node(INITRD, _initrd(root, version))])
    return script(version, root.uuid, cmdline)


def script(version: str, root: UUID, cmdline: str) -> str:
    """GRUB commands that boot the kernel of this version.

    cmdline ends with the serial port, so that it is /dev/console where there is one, else the screen.
    """
    return f"linux /boot/vmlinuz-{version} root=UUID={root} console=tty0 {cmdline}\ninitrd {INITRD}\nboot\n"


def account(root: Ext4) -> Iterator[Node]:
    """Files of the user database with the account in them, and its home. There is no password, so none fits."""
    for path, line, mode, gid in (
        ("/etc/passwd", f"{USER}:x:{_ID}:{_ID}::/home/{USER}:/bin/bash", 0o644, 0),
        ("/etc/group", f"{USER}:x:{_ID}:", 0o644, 0),
        ("/etc/shadow", f"{USER}:*:::::::", 0o640, 42),
        ("/etc/gshadow", f"{USER}:!::", 0o640, 42),
    ):
        yield Node(path, _with_line(path, root.read(path), line), mode, gid=gid, replaces=True)
    yield Node(f"/home/{USER}", mode=0o755, uid=_ID, gid=_ID, folder=True)
    yield Node(f"/home/{USER}/.ssh", mode=0o700, uid=_ID, gid=_ID, folder=True)
    yield Node(f"/home/{USER}/.ssh/authorized_keys", KEY.read_bytes(), 0o600, _ID, _ID)


def init() -> bytes:
    """The program of labctl's initrd, looking for the root file system instead of taking the first virtio disk."""
    first, _, *rest = initrd.INIT.read_text(encoding="utf-8").split("\n\n")
    return "\n\n".join([first, _FIND_ROOT, *rest]).encode()


def _with_line(path: str, content: bytes, line: str) -> bytes:
    entries = [entry.split(":") for entry in content.decode(errors="replace").splitlines()]
    ids = {entry[2] for entry in entries if len(entry) > 2 and "shadow" not in path}
    if str(_ID) in ids or USER in {entry[0] for entry in entries}:
        raise ImageError(f"the image has an account {USER} or the id {_ID} already", details=f"See its {path}.")
    return content + line.encode() + b"\n"


def _files() -> Iterator[Node]:
    for file in sorted(path for path in FILES.rglob("*") if path.is_file()):
        name = file.relative_to(FILES).as_posix()
        yield Node(f"/{name}", file.read_bytes(), _MODES.get(name, 0o644))
    for unit, target in _STARTED.items():
        yield Node(f"{_SYSTEM}/multi-user.target.wants/{unit}", link=target)


def _kernel(root: Ext4) -> str:
    """The version of the one kernel in the image."""
    versions = [name.removeprefix("vmlinuz-") for name in root.names("/boot") if name.startswith("vmlinuz-")]
    if len(versions) != 1 or not _VERSION.fullmatch(versions[0]):
        raise ImageError(
            f"the image has {len(versions)} kernels; a box needs one",
            details=", ".join(versions),
            hint="See its packages.",
        )
    return versions[0]


def _initrd(root: Ext4, version: str) -> bytes:
    """An initrd with the drivers of all disk controllers that boxes are run with.

    Packed, because a BIOS reads an IDE disk word by word: under emulation 2 MiB take longer than unpacking them.
    """
    tree = root.scratch / "tree"
    folder = f"{_MODULE_FOLDER}/{version}"
    root.fetch([_BUSYBOX, f"{folder}/modules.dep", f"{folder}/modules.builtin"], tree)
    here = tree / folder[1:]
    modules = initrd.load_order(_MODULES, (here / "modules.dep").read_text(), (here / "modules.builtin").read_text())
    root.fetch([f"{folder}/{module}" for module in modules], tree)
    return gzip.compress(initrd.build(tree, _MODULES, init()), mtime=0)
