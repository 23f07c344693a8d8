"""Whether a Vagrant box from elsewhere is one that labctl would write.

A box carries a Vagrantfile, which is a program that Vagrant runs on this host, and an OVF, which may give a machine
folders and devices of this host. In a box of labctl's both follow from the image, so anything else is somebody else's.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import escape

from labctl.errors import ImageError
from labctl.images import disk
from labctl.images.boxes import pack

_BLOCK = tarfile.BLOCKSIZE
_SMALL = 1 << 20  # bytes; what is not the disk is text
_DISKS = {"virtualbox": "box-disk001.vmdk", "libvirt": "box.img"}
_FORMATS = {"virtualbox": "vmdk", "libvirt": "qcow2"}
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MAC = re.compile(rb"base_mac = '(080027[0-9A-F]{6})'")
_LIBVIRT_METADATA = re.compile(
    rb'\{\n  "format": "qcow2",\n  "provider": "libvirt",\n  "virtual_size": [0-9]{1,6}\n\}\n'
)


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    offset: int


def check(path: Path, image: str, provider: str) -> None:
    """Refuse a box of ``image`` in which anything but the disk's content differs from what labctl writes.

    Raises ImageError.
    """
    try:
        with path.open("rb") as file:
            members = {member.name: member for member in _members(file)}
            disk_name = _DISKS[provider]
            drive = members.pop(disk_name, None)
            if drive is None or any(member.size > _SMALL for member in members.values()):
                raise _refused(image, f"it has no {disk_name}, or large files beside it")
            texts = {member.name: _content(file, member) for member in members.values()}
    except (OSError, tarfile.TarError, UnicodeError, ValueError) as error:
        raise _refused(image, f"it is no plain tar archive ({error})") from error
    strange = _strange_virtualbox(texts, image) if provider == "virtualbox" else _strange_libvirt(texts)
    if strange:
        raise _refused(image, strange)
    if disk.examine(path, drive.offset) != _FORMATS[provider]:
        raise _refused(image, f"{disk_name} is no {_FORMATS[provider]} file")


def _strange_virtualbox(texts: Mapping[str, bytes], image: str) -> str:
    if set(texts) != {"Vagrantfile", "box.ovf", "metadata.json"}:
        return f"its files are {', '.join(sorted(texts))}"
    found = _MAC.search(texts["Vagrantfile"])
    mac = found.group(1).decode() if found else ""
    settings = pack.VIRTUALBOX.format(mac=mac)
    adapters = "\n".join(pack.adapter(slot, mac) for slot in range(pack.NICS))
    holes = {
        "name": re.escape(escape(f"labctl-{image}")),
        "disk_file": re.escape(_DISKS["virtualbox"]),
        "disk_file_size": "[0-9]{1,15}",
        "capacity": "[0-9]{1,15}",
        "disk_uuid": _UUID,
        "machine_uuid": _UUID,
        "memory": "[0-9]{1,6}",
        "adapters": re.escape(adapters),
    }
    pieces = re.split(r"\$([a-z_]+)", pack.OVF.read_text(encoding="utf-8"))
    form = "".join(holes[piece] if number % 2 else re.escape(piece) for number, piece in enumerate(pieces))
    if texts["Vagrantfile"] != pack.VAGRANTFILE.format(settings=settings).encode():
        return "its Vagrantfile, which Vagrant would run on this host, is not this labctl's"
    if re.fullmatch(form.encode(), texts["box.ovf"]) is None:
        return "its machine is not as this labctl describes one"
    return "" if texts["metadata.json"] == pack.as_json({"provider": "virtualbox"}) else "its metadata.json is strange"


def _strange_libvirt(texts: Mapping[str, bytes]) -> str:
    if set(texts) != {"Vagrantfile", "metadata.json"}:
        return f"its files are {', '.join(sorted(texts))}"
    if texts["Vagrantfile"] != pack.VAGRANTFILE.format(settings=pack.LIBVIRT).encode():
        return "its Vagrantfile, which Vagrant would run on this host, is not this labctl's"
    return "" if _LIBVIRT_METADATA.fullmatch(texts["metadata.json"]) else "its metadata.json is strange"


def _members(file: BinaryIO) -> Iterator[_Member]:
    """The files of an archive that has nothing but plain files in it, each once, read without believing a header."""
    end = file.seek(0, 2)
    offset, seen = 0, set[str]()
    while True:
        file.seek(offset)
        block = file.read(_BLOCK)
        if block.count(0) == _BLOCK:
            break
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        offset += _BLOCK
        if entry.type != tarfile.REGTYPE or entry.name in seen or not 0 <= entry.size <= end - offset:
            raise ValueError(f"{entry.name!r} is no plain file in it")
        seen.add(entry.name)
        yield _Member(entry.name, entry.size, offset)
        offset += -(-entry.size // _BLOCK) * _BLOCK
    file.seek(offset)
    while rest := file.read(1 << 20):
        if rest.count(0) != len(rest):
            raise ValueError("there is more behind its end")


def _content(file: BinaryIO, member: _Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _refused(image: str, why: str) -> ImageError:
    return ImageError(
        f"the box of {image} is not one that this labctl made: {why}",
        hint="Nothing of it was kept. A bundle with boxes needs the same labctl on both sides.",
    )
