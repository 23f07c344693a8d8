"""What a snapshot takes by its disk's own tables, against what deleting it really gives back."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.host.files import allocated
from labctl.host.runner import Runner
from labctl.providers.qemu.shares import sizes

pytestmark = pytest.mark.integration

MIB = 1 << 20


def image(disk: Path, *commands: str) -> None:
    """Guest's writes and snapshots, as ``write OFFSET SIZE`` in MiB, ``-c NAME`` and ``-d NAME``."""
    for command in commands:
        words = command.split()
        if words[0] == "write":
            Runner().run(["qemu-io", "-d", "unmap", "-c", f"write -P 7 {words[1]}M {words[2]}M", disk])
        else:
            Runner().run(["qemu-img", "snapshot", *words, disk])


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "only" / "disk.qcow2"
    path.parent.mkdir()
    Runner().run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"])
    return path


def test_a_snapshot_of_a_disk_that_has_not_changed_since_has_next_to_nothing_of_its_own(disk: Path) -> None:
    image(disk, "write 0 20", "-c one")
    found = sizes(disk)["one"]
    assert found.own < MIB
    assert 20 * MIB <= found.shared < 21 * MIB


def test_what_has_changed_since_is_the_snapshots_own(disk: Path) -> None:
    image(disk, "write 0 20", "-c one", "write 5 8")
    found = sizes(disk)["one"]
    assert 8 * MIB <= found.own < 9 * MIB
    assert 12 * MIB <= found.shared < 13 * MIB


def test_what_two_snapshots_share_is_neithers_own(disk: Path) -> None:
    image(disk, "write 0 20", "-c one", "write 40 10", "-c two", "write 0 20")
    found = sizes(disk)
    assert found.keys() == {"one", "two"}
    assert found["one"].own < MIB
    assert found["two"].own < MIB
    image(disk, "-d one")
    assert 20 * MIB <= sizes(disk)["two"].own < 21 * MIB


def test_deleting_gives_back_what_was_called_own(disk: Path) -> None:
    image(disk, "write 0 32", "-c one", "write 0 16", "-c two", "write 16 8")
    for name in ("one", "two"):
        before, own = allocated(disk.parent), sizes(disk)[name].own
        assert own > 0
        image(disk, f"-d {name}")
        assert abs(before - allocated(disk.parent) - own) < MIB


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"QFI\xfb\x00\x00\x00\x03" + b"\xff" * 200, b"raw" * 100])
def test_a_file_that_is_no_such_disk_has_no_sizes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "disk").write_bytes(content)
    assert sizes(tmp_path / "disk") == {}
    assert sizes(tmp_path / "none") == {}


def test_a_damaged_table_is_no_bug(disk: Path) -> None:
    image(disk, "write 0 2", "-c one")
    data = bytearray(disk.read_bytes())
    for at in range(0, len(data), 512):
        damaged = bytes(data[:at] + bytearray(b"\xff" * 64) + data[at + 64 :])
        disk.write_bytes(damaged)
        sizes(disk)
        disk.write_bytes(damaged[: at + 1])
        sizes(disk)
        if at > 1 << 17:
            break
