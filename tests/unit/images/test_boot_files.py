"""The initrd, the kernel and labctl's own files in a root file system."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import pytest

from labctl.errors import ImageError
from labctl.host.runner import Runner
from labctl.images import capabilities, initrd, kernel, rootfs

pytestmark = pytest.mark.unit

DEPENDENCIES = """\
kernel/virtio/virtio_pci.ko: kernel/virtio/modern.ko kernel/virtio/virtio.ko kernel/virtio/ring.ko
kernel/virtio/modern.ko: kernel/virtio/virtio.ko kernel/virtio/ring.ko
kernel/virtio/virtio.ko: kernel/virtio/ring.ko
kernel/virtio/ring.ko:
kernel/block/virtio_blk.ko: kernel/virtio/virtio.ko kernel/virtio/ring.ko
kernel/net/virtio_net.ko.xz: kernel/virtio/virtio.ko kernel/virtio/ring.ko
"""


def test_modules_load_after_what_they_need_and_once() -> None:
    order = initrd.load_order(
        ("virtio_pci", "virtio_blk", "virtio_net", "ext4"), DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n"
    )
    assert [Path(module).name for module in order] == [
        "ring.ko",
        "virtio.ko",
        "modern.ko",
        "virtio_pci.ko",
        "virtio_blk.ko",
        "virtio_net.ko.xz",
    ]


def test_a_kernel_without_a_needed_module_is_named() -> None:
    with pytest.raises(ImageError, match="no module virtio_console"):
        initrd.load_order(("virtio_console",), DEPENDENCIES, "")


def _root(tmp_path: Path) -> Path:
    modules = tmp_path / "usr/lib/modules/6.1.0"
    modules.mkdir(parents=True)
    names = ("virtio_pci", "virtio_blk", "virtio_console", "virtio-rng", "virtio_net")
    (modules / "modules.dep").write_text("".join(f"{name}.ko:\n" for name in names))
    (modules / "modules.builtin").write_text("")
    for name in names:
        (modules / f"{name}.ko").write_bytes(name.encode())
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/busybox").write_bytes(b"busybox")
    return tmp_path


def _unpacked(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Name to mode and content, read as Linux reads it."""
    files, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        field = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = field[1], field[6], field[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return files
        files[name] = (mode, archive[start : start + size])
        at = (start + size + 3) & ~3


def test_the_initrd_holds_its_program_modules_and_their_order(tmp_path: Path) -> None:
    files = _unpacked(initrd.build(_root(tmp_path)))
    assert files["init"] == (0o100755, initrd.INIT.read_bytes())
    assert files["bin/busybox"] == (0o100755, b"busybox")
    assert files["lib/order"][1].decode().split() == [
        "virtio_pci.ko",
        "virtio_blk.ko",
        "virtio_console.ko",
        "virtio-rng.ko",
        "virtio_net.ko",
    ]
    assert files["lib/virtio_net.ko"] == (0o100644, b"virtio_net")
    assert files["dev"][0] == 0o040755
    assert list(files) == sorted(files)


def test_the_initrd_is_the_same_twice(tmp_path: Path) -> None:
    root = _root(tmp_path)
    assert initrd.build(root) == initrd.build(root)


def test_a_root_without_kernel_or_busybox_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no kernel"):
        initrd.build(tmp_path)
    root = _root(tmp_path)
    (root / "usr/bin/busybox").unlink()
    with pytest.raises(ImageError, match="no busybox"):
        initrd.build(root)


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF" + b"x" * 5000, b"x" * 0x202 + b"HdrS" + struct.pack("<100I", *[1] * 100)]
)
def test_a_kernel_that_cannot_be_unpacked_is_taken_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vmlinuz").write_bytes(content)
    kernel.unpack(tmp_path / "vmlinuz", tmp_path / "kernel", Runner())
    assert (tmp_path / "kernel").read_bytes() == content


def _members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: member for member in tar}


def test_the_overlay_switches_off_and_on_what_it_says() -> None:
    members = _members(rootfs.overlay_tar())
    system = "etc/systemd/system"
    assert members[f"{system}/apt-daily.timer"].linkname == "/dev/null"
    assert members[f"{system}/sysinit.target.wants/qemu-guest-agent.service"].linkname == "../qemu-guest-agent.service"
    assert members[f"{system}/qemu-guest-agent.service"].isfile()
    assert all(member.uid == 0 and member.gid == 0 and member.mtime == 0 for member in members.values())
    for member in members.values():  # every unit that is enabled here also ships here
        if member.linkname.startswith("../"):
            assert f"{system}/{member.linkname[3:]}" in members


def test_the_overlay_is_the_same_twice() -> None:
    assert rootfs.overlay_tar() == rootfs.overlay_tar()


def test_capabilities_are_read_from_a_root_file_system(tmp_path: Path) -> None:
    value = struct.pack("<IIIII", 0x2000001, 1 << 13, 0, 0, 0)
    with tarfile.open(tmp_path / "root.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        plain, able = tarfile.TarInfo("./usr/bin/true"), tarfile.TarInfo("./usr/bin/ping")
        able.pax_headers = {"SCHILY.xattr.security.capability": value.decode("utf-8", "surrogateescape")}
        tar.addfile(plain)
        tar.addfile(able)
    assert capabilities.read(tmp_path / "root.tar") == {"/usr/bin/ping": value}
