"""An image store with small images that nobody could boot, and labs that want them."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from labctl.images import catalogue
from labctl.images.boxes import guest, pack, workshop
from labctl.images.boxes.model import FILE, SOURCE, USER
from labctl.images.model import Recipe
from labctl.images.store import DISK, INITRD, KERNEL, ROOT_TAR, Store, Stored
from labctl.images.workshop import _job, _root_key

QCOW2_SIZE = 1 << 16

LAB = """\
version: 1
name: tiny
networks: {lan: {subnet: 10.9.0.0/24}}
defaults: {image: debian-12}
machines:
  plain: {networks: {lan: auto}}
  twin: {networks: {lan: auto}}
  web:
    networks: {lan: auto}
    provision:
      - packages: [nginx-light, curl]
      - file: {source: files/index.html, target: /var/www/html/index.html}
"""


def qcow2(content: bytes = b"", *, backing: int = 0) -> bytes:
    """The header of a qcow2 file (QEMU, docs/interop/qcow2.txt) and something behind it."""
    head = b"QFI\xfb" + struct.pack(">IQ", 3, backing)
    return (head.ljust(512, b"\0") + content).ljust(QCOW2_SIZE, b"\0")


def put(
    name: str = "debian-12",
    packages: Sequence[str] = (),
    content: bytes = b"one",
    versions: Mapping[str, str] | None = None,
    created: float | None = None,
) -> Stored:
    """An image in the store, found as if it had been built from the catalogue's recipe just now."""
    entries = catalogue.load()
    recipe = entries[name].qemu
    assert isinstance(recipe, Recipe)
    store = Store()
    wanted = tuple(sorted(packages))
    base = store.find(name, _root_key(_job(entries[name], recipe, (), None), None), print) if wanted else None
    assert base is not None or not wanted, "put the image without packages first"
    job = _job(entries[name], recipe, wanted, base)
    details = {"release": job.release, "packages": list(job.packages), **({"versions": versions} if wanted else {})}
    with store.draft(name) as draft:
        (draft / DISK).write_bytes(qcow2(content))
        (draft / KERNEL).write_bytes(b"kernel")
        (draft / INITRD).write_bytes(b"initrd")
        if not wanted:
            _root_tar(draft / ROOT_TAR, versions or {})
        source = "packages" if wanted else "recipe"
        when = time.time() if created is None else created
        new = Stored(Path(), name, _root_key(job, base), source, when, "root", "quiet", details)
        return store.keep(draft, new)


def _root_tar(path: Path, versions: Mapping[str, str]) -> None:
    """A root file system in which nothing but dpkg's own notes matter."""
    stanzas = [f"Package: {n}\nStatus: install ok installed\nVersion: {v}\n" for n, v in versions.items()]
    stanzas.append("Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n")
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("./var/lib/dpkg/status")
        text = "\n".join(stanzas).encode()
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))


def write_lab(folder: Path, text: str = LAB) -> Path:
    """A lab's folder with what may and what may not travel."""
    (folder / "files").mkdir(parents=True)
    (folder / "lab.yaml").write_text(text)
    (folder / "files/index.html").write_text("hello\n")
    (folder / "README.md").write_text("# tiny\n")
    (folder / "checks").mkdir()
    (folder / "checks/test_web.py").write_text("def test_nothing(): ...\n")
    (folder / "checks/run.sh").write_text("#!/bin/sh\n")
    (folder / "checks/run.sh").chmod(0o755)
    for hidden in (".git", ".vagrant"):
        (folder / hidden).mkdir()
        (folder / hidden / "config").write_text("secret")
    return folder


def put_box(name: str, provider: str, raw: Path) -> Stored:
    """The VirtualBox box of an image with nothing added, found as if labctl had made it from that image just now.

    raw: the disk that is packed into it, whole sectors.
    """
    made_of = put(name, guest.PACKAGES, b"for a box", {"sudo": "1.9.13"})
    key = hashlib.sha256("\n".join(("box", workshop.tool_digest(), made_of.digest, provider)).encode()).hexdigest()
    facts = {"box": f"labctl/{name}", "image": made_of.digest, "packages": [], "provider": provider, "version": "1"}
    store = Store()
    with store.draft(name) as draft:
        pack.virtualbox(f"labctl-{name}", made_of.digest, raw, draft / FILE)
        return store.keep(draft, Stored(Path(), name, key, SOURCE, time.time(), USER, details=facts))
