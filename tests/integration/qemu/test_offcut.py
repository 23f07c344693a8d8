"""A snapshot cut out of a disk: whole, with nothing beside it, and refused where somebody has changed it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.errors import ProviderError
from labctl.host.runner import Runner
from labctl.providers.qemu import offcut
from labctl.providers.qemu.qcow2 import MAGIC

pytestmark = pytest.mark.integration

GIB = 1 << 30


def run(*words: str | Path) -> str:
    return Runner().run(["qemu-img", *words]).text


def guest(disk: Path, *commands: str) -> None:
    """What a guest writes: ``BYTE OFFSET SIZE``, or ``zero OFFSET SIZE``."""
    for command in commands:
        what, at, size = command.split()
        word = "write -z" if what == "zero" else f"write -P {what}"
        Runner().run(["qemu-io", "-d", "unmap", "-c", f"{word} {at} {size}", disk])


@pytest.fixture(params=[4096, 65536])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An overlay with two snapshots and a present state; the byte 7 is in all of them, 3 and 5 are of one each."""
    base, path = tmp_path / "base.qcow2", tmp_path / "disk.qcow2"
    run("create", "-q", "-f", "qcow2", base, "1G")
    guest(base, "9 0 4M")
    size = f"cluster_size={request.param}"
    run("create", "-q", "-f", "qcow2", "-o", size, "-b", base, "-F", "qcow2", path)
    guest(path, "3 1M 1M", "7 2M 20M")
    run("snapshot", "-c", "first", path)
    guest(path, "1 1M 1M", "zero 3M 1M", "8 900M 1k")
    run("snapshot", "-c", "wanted", path)
    guest(path, "5 5M 1M", "5 950M 1M")
    run("snapshot", "-c", "last", path)
    return path


@pytest.fixture
def cut(disk: Path) -> Path:
    target = disk.with_name("cut.qcow2")
    offcut.write(disk, "wanted", target)
    return target


def test_it_is_the_disk_of_that_moment_over_the_same_image(disk: Path, cut: Path) -> None:
    run("check", "-q", cut)
    assert offcut.check(cut, "wanted", GIB) == ""
    run("rebase", "-u", "-f", "qcow2", "-b", disk.with_name("base.qcow2"), "-F", "qcow2", cut)
    for path in (cut, disk):
        run("snapshot", "-a", "wanted", path)
    assert "identical" in run("compare", cut, disk)
    run("check", "-q", cut)
    run("snapshot", "-d", "wanted", cut)
    run("check", "-q", cut)


def test_nothing_else_of_the_disk_is_in_it(disk: Path, cut: Path) -> None:
    data = cut.read_bytes()
    assert bytes([7]) * 4096 in data
    for other in (3, 5):
        assert bytes([other]) * 512 not in data
        assert bytes([other]) * 512 in disk.read_bytes()
    for name in (b"first", b"last", b"base"):
        assert name not in data


def test_the_same_snapshot_gives_the_same_bytes_whatever_came_later(disk: Path, cut: Path) -> None:
    guest(disk, "2 2M 20M")
    run("snapshot", "-d", "first", disk)
    run("snapshot", "-c", "more", disk)
    again = cut.with_name("again")
    offcut.write(disk, "wanted", again)
    assert again.read_bytes() == cut.read_bytes()


def test_a_disk_without_it_or_that_cannot_be_read_is_an_error(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="has no snapshot other"):
        offcut.write(disk, "other", tmp_path / "x")
    whole = disk.read_bytes()
    disk.write_bytes(whole[:70_000])
    with pytest.raises(ProviderError, match="cannot be read"):
        offcut.write(disk, "wanted", tmp_path / "y")


def _put(at: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, at, value)


def _extension(data: bytearray) -> None:
    """The name of a data file, which QEMU would open."""
    data[104:128] = struct.pack(">II", 0x44415441, 11) + b"/etc/shadow".ljust(16, b"\0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_put(8, ">Q", 512), "header"),  # a backing file
        (_put(16, ">I", 11), "header"),
        (_put(32, ">I", 2), "header"),  # encryption
        (_put(60, ">I", 2), "header"),  # how many snapshots
        (_put(72, ">Q", 1 << 2), "header"),  # an external data file
        (_put(80, ">Q", 1), "header"),
        (_put(88, ">Q", 1), "header"),
        (_put(100, ">I", 112), "header"),
        (_put(24, ">Q", GIB * 2), "header"),
        (_put(64, ">Q", 1 << 55), "tables"),
        (_put(0, ">I", 0), "tables"),
        (_extension, "header"),
    ],
)
def test_a_header_that_labctl_does_not_write_is_refused(
    cut: Path, change: Callable[[bytearray], None], said: str
) -> None:
    data = bytearray(cut.read_bytes())
    change(data)
    cut.write_bytes(data)
    assert said in offcut.check(cut, "wanted", GIB)


def test_another_size_another_snapshot_and_what_is_no_disk_are_refused(cut: Path) -> None:
    assert "1073741824 bytes, and the lab's has 512" in offcut.check(cut, "wanted", 512)
    assert offcut.check(cut, "other", GIB) == "it holds another snapshot"
    for content in (b"", MAGIC, MAGIC + b"\xff" * 200, b"raw" * 100):
        cut.write_bytes(content)
        assert offcut.check(cut, "wanted", GIB) == "its tables cannot be read"


def test_qemu_finds_tables_that_are_wrong_behind_a_right_header(cut: Path) -> None:
    data = bytearray(cut.read_bytes())
    (blocks,) = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 48)[0])
    data[blocks : blocks + 64] = bytes(64)
    cut.write_bytes(data)
    assert offcut.check(cut, "wanted", GIB) == ""
    assert Runner().run(["qemu-img", "check", "-q", cut], check=False).code != 0
