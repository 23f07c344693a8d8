"""Boxes from elsewhere: labctl's own are taken, and nothing with another program, device or file in it."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.errors import ImageError
from labctl.images import box_check
from labctl.images.boxes import pack

pytestmark = pytest.mark.unit

Parts = dict[str, bytes]


@pytest.fixture
def own(tmp_path: Path) -> Parts:
    """The files of a VirtualBox box as labctl packs it."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"root".ljust(1 << 20, b"\0"))
    box = tmp_path / "own.box"
    pack.virtualbox("labctl-debian-12", "ab" * 32, raw, box)
    box_check.check(box, "debian-12", "virtualbox")
    with tarfile.open(box) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member))}


def libvirt_parts() -> Parts:
    head = b"QFI\xfb" + struct.pack(">IQ", 3, 0)
    return {
        "Vagrantfile": pack.VAGRANTFILE.format(settings=pack.LIBVIRT).encode(),
        "box.img": head.ljust(4096, b"\0"),
        "metadata.json": pack.as_json({"provider": "libvirt", "format": "qcow2", "virtual_size": 5}),
    }


def write(parts: Parts, path: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(parts):
            entry = tarfile.TarInfo(name)
            entry.size = len(parts[name])
            tar.addfile(entry, io.BytesIO(parts[name]))
    return path


def refused(parts: Parts, tmp_path: Path, provider: str = "virtualbox") -> str:
    with pytest.raises(ImageError) as caught:
        box_check.check(write(parts, tmp_path / "x.box"), "debian-12", provider)
    return caught.value.brief


def _swap(name: str, old: bytes, new: bytes) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        assert old in parts[name]
        parts[name] = parts[name].replace(old, new, 1)

    return change


def test_a_box_that_was_taken_apart_and_put_together_unchanged_is_taken(own: Parts, tmp_path: Path) -> None:
    box_check.check(write(own, tmp_path / "x.box"), "debian-12", "virtualbox")
    box_check.check(write(libvirt_parts(), tmp_path / "y.box"), "debian-12", "libvirt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_swap("Vagrantfile", b"end\n", b"system('id')\nend\n"), "its Vagrantfile, which Vagrant would run"),
        (_swap("Vagrantfile", b"disabled: true", b"disabled: false"), "its Vagrantfile"),
        (_swap("box.ovf", b"box-disk001.vmdk", b"/etc/passwd"), "its machine is not as"),
        (_swap("box.ovf", b"</vbox:Machine>", b"<SharedFolders/></vbox:Machine>"), "its machine is not as"),
        (_swap("box.ovf", b"labctl-debian-12", b"labctl-attacker"), "its machine is not as"),
        (_swap("metadata.json", b"virtualbox", b"vmware_desktop"), "its metadata.json"),
        (_swap("box-disk001.vmdk", b"KDMV", b"XXXX"), "is no disk image"),
        (lambda parts: parts.update({"include/_Vagrantfile": b"x"}), "its files are"),
        (lambda parts: parts.pop("box.ovf"), "its files are"),
        (lambda parts: parts.pop("box-disk001.vmdk"), "it has no box-disk001.vmdk"),
        (lambda parts: parts.update({"Vagrantfile": bytes(2 << 20)}), "large files beside it"),
    ],
)
def test_another_box_is_refused(own: Parts, tmp_path: Path, change: Callable[[Parts], None], said: str) -> None:
    change(own)
    assert said in refused(own, tmp_path)


def test_a_disk_with_a_parent_is_refused(own: Parts, tmp_path: Path) -> None:
    _swap("box-disk001.vmdk", b"parentCID=ffffffff", b"parentFileNameHint")(own)
    assert "refers to other files" in refused(own, tmp_path)
    parts = libvirt_parts()
    parts["box.img"] = b"QFI\xfb" + struct.pack(">IQ", 3, 512) + parts["box.img"][16:]
    assert "backing file" in refused(parts, tmp_path, "libvirt")


@pytest.mark.parametrize("metadata", [b'{"provider": "libvirt", "disks": [{"path": "/etc/shadow"}]}\n', b"[]", b""])
def test_metadata_that_names_other_disks_is_refused(tmp_path: Path, metadata: bytes) -> None:
    assert "metadata.json" in refused({**libvirt_parts(), "metadata.json": metadata}, tmp_path, "libvirt")


def test_a_link_a_second_copy_and_more_behind_the_end_are_refused(own: Parts, tmp_path: Path) -> None:
    box = tmp_path / "x.box"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        with tarfile.open(write(own, box), "a") as tar:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tar.addfile(entry)
        with pytest.raises(ImageError, match="no plain"):
            box_check.check(box, "debian-12", "virtualbox")
    with tarfile.open(write(own, box), "a") as tar:
        tar.addfile(tarfile.TarInfo("Vagrantfile"), io.BytesIO())
    with pytest.raises(ImageError, match="no plain"):
        box_check.check(box, "debian-12", "virtualbox")
    box.write_bytes(write(own, box).read_bytes() + b"more")
    with pytest.raises(ImageError, match="more behind its end"):
        box_check.check(box, "debian-12", "virtualbox")


@pytest.mark.parametrize("content", [b"", b"x" * 512, bytes(1024), b"\x1f\x8b" + bytes(600)])
def test_what_is_no_archive_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    box = tmp_path / "x.box"
    box.write_bytes(content)
    with pytest.raises(ImageError, match="is not one that this labctl made"):
        box_check.check(box, "debian-12", "virtualbox")
