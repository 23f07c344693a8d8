"""What differs from a template in a machine's memory: how it is found in a process, and the file that keeps it."""

from __future__ import annotations

import io
import mmap
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import HostError, ProviderError
from labctl.host.memory import PAGE, Mapped, Runs, changed_of, mapped, place_of, size_of
from labctl.providers.qemu import bases, memory
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.memory import Kept
from labctl.providers.qemu.qmp import RefusedError
from labctl.providers.qemu.template import Base, Template

pytestmark = pytest.mark.unit

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not show it")

MAPS = """\
55d0c0a00000-55d0c0b00000 r-xp 00000000 fe:00 77                         /usr/bin/qemu-system-x86_64
7f8c23ffe000-7f8c23fff000 ---p 00000000 00:00 0
7f8c23fff000-7f8c2ffff000 rw-p 00000000 fe:00 16154696                   /cache/t e/ram
7f8c30000000-7f8c30021000 rw-p 00000000 00:00 0
"""
WHERE = (0x7F8C23FFF000, 0xC000000)


@pytest.mark.parametrize(
    "text",
    [
        MAPS,
        MAPS.replace("/cache/t e/ram", "/cache/t e/ram (deleted)"),
        MAPS.replace("fe:00 16154696", "00:1f 16154696").replace("/cache/t e/ram", "/engine/bases/t/ram"),
        MAPS.replace(
            "7f8c23fff000-7f8c2ffff000 rw-p 00000000 fe:00 16154696                   /cache/t e/ram\n",
            "7f8c23fff000-7f8c27fff000 rw-p 00000000 fe:00 16154696 /x\n"
            "7f8c27fff000-7f8c2ffff000 rw-p 04000000 fe:00 16154696 /x\n",
        ),
    ],
)
def test_a_file_is_found_in_a_process_whatever_it_was_called_and_in_how_many_pieces(text: str) -> None:
    assert place_of(text, "fe:00", 16154696, "/engine/bases/t/ram") == WHERE


@pytest.mark.parametrize(
    "text",
    [
        "",
        MAPS.replace("16154696", "16154697"),
        MAPS.replace("fe:00 16154696", "fe:01 16154696"),
        MAPS.replace("rw-p 00000000 fe:00 16154696", "rw-s 00000000 fe:00 16154696"),
        MAPS.replace("rw-p 00000000 fe:00 16154696", "rw-p 00001000 fe:00 16154696"),
        MAPS + "7f8d00000000-7f8d10000000 rw-p 00000000 fe:00 16154696 /x\n",
    ],
)
def test_another_file_is_not_taken_for_it(text: str) -> None:
    assert place_of(text, "fe:00", 16154696, "/engine/bases/t/ram") is None


def test_pages_that_a_process_has_for_itself_are_told_from_those_of_the_file() -> None:
    absent, of_the_file, own, in_swap, moving = 0, 5 << 61, 1 << 63, 1 << 62, 3 << 61
    entries = [absent, own, own | 1 << 55 | 77, of_the_file, in_swap, moving, own]
    assert changed_of(struct.pack(f"{len(entries)}Q", *entries)) == ((1, 2), (4, 1), (6, 1))
    assert changed_of(b"") == ()
    assert size_of(((1, 2), (4, 1))) == 3 * PAGE


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """Of 8 pages."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "ram").write_bytes(os.urandom(8 * PAGE))
    (folder / "state").write_bytes(TEMPLATE)
    return Base(folder, "base")


@pytest.fixture
def guest(base: Base) -> Iterator[mmap.mmap]:
    """What a machine has in its memory: the base, and this process may write into it."""
    with base.ram.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as found:
        yield found


@linux
def test_what_a_process_has_written_is_found_after_the_file_was_removed(base: Base, guest: mmap.mmap) -> None:
    link = base.folder / "link"
    os.link(base.ram, link)
    base.ram.unlink()
    found = mapped(os.getpid(), link)
    assert found is not None and found.size == 8 * PAGE
    assert guest[0] >= 0 and found.changed() == ()
    guest[PAGE : PAGE + 3] = b"two"
    guest[6 * PAGE] = 1
    assert found.changed() == ((1, 1), (6, 1))
    with found.opened() as opened:
        assert opened.read(PAGE, 3) == b"two"
    with found.opened(to_write=True) as opened:
        opened.write(3 * PAGE, b"three")
    assert guest[3 * PAGE : 3 * PAGE + 5] == b"three"
    assert found.changed() == ((1, 1), (3, 1), (6, 1))
    assert b"three" not in link.read_bytes()


@linux
def test_a_file_that_is_not_mapped_and_a_process_that_is_gone_are_not_found(base: Base, guest: mmap.mmap) -> None:
    assert mapped(os.getpid(), base.state) is None
    assert mapped(1 << 30, base.ram) is None
    assert mapped(os.getpid(), base.folder / "none") is None


RUNS: Runs = ((0, 1), (3, 2))
PAGES = os.urandom(5 * PAGE)


def written(size: int = 8 * PAGE) -> bytes:
    file = io.BytesIO()
    memory.write(file, lambda at, length: PAGES[at : at + length], RUNS, size, 77)
    return file.getvalue()


def taken(data: bytes, size: int = 8 * PAGE) -> tuple[int, bytes]:
    file, place = io.BytesIO(data), bytearray(size)
    file.name = "KEY.pages"

    def put(at: int, piece: bytes) -> None:
        assert 0 <= at <= at + len(piece) <= size
        place[at : at + len(piece)] = piece

    return memory.read(file, size, put), bytes(place)


def test_pages_come_back_to_their_places() -> None:
    devices, place = taken(written())
    assert devices == 77
    assert place == PAGES[:PAGE] + bytes(2 * PAGE) + PAGES[3 * PAGE :] + bytes(3 * PAGE)


def test_a_memory_that_is_as_the_templates_has_no_pages() -> None:
    file = io.BytesIO()
    memory.write(file, lambda at, length: b"", (), 8 * PAGE, 1)
    assert taken(file.getvalue()) == (1, bytes(8 * PAGE))


@pytest.mark.parametrize("at", [0, 4, 9, 17, 40, 60, PAGE, 3 * PAGE, -1])
def test_a_file_that_is_short_or_altered_is_refused(at: int) -> None:
    data = written()
    with pytest.raises(ProviderError):
        taken(data[:at])
    altered = bytearray(data)
    altered[at] ^= 0x10
    with pytest.raises(ProviderError):
        taken(bytes(altered))


def test_a_file_with_more_than_its_pages_or_of_another_memory_is_refused() -> None:
    with pytest.raises(ProviderError, match="damaged"):
        taken(written() + b"x")
    with pytest.raises(ProviderError, match="of another memory"):
        taken(written(), 4 * PAGE)
    with pytest.raises(ProviderError, match="damaged"):
        taken(os.urandom(3 * PAGE))


FIRST = b"\x04\0\0\0\0\x05timer\0\0\0\0\0\0\0\x02"
TEMPLATE = b"QEVM\0\0\0\3" + b"machine and small memories" + FIRST + b"the template's devices\0"
DEVICES = b"QEVM\0\0\0\3" + FIRST + b"this machine's devices\0"


def test_devices_follow_what_a_template_has_before_its_own() -> None:
    found = memory.stream_of(TEMPLATE, DEVICES)
    assert found.startswith(b"QEVM\0\0\0\3machine and small memories" + FIRST + b"this machine's devices\0")


@pytest.mark.parametrize(
    ("template", "devices"),
    [
        (TEMPLATE, b""),
        (TEMPLATE, DEVICES[:13]),
        (b"", DEVICES),
        (TEMPLATE.replace(b"timer", b"slirp"), DEVICES),
        (TEMPLATE + FIRST, DEVICES),
        (TEMPLATE, DEVICES.replace(b"QEVM\0\0\0\3", b"QEVM\0\0\0\4")),
    ],
)
def test_streams_of_another_form_are_not_joined(template: bytes, devices: bytes) -> None:
    with pytest.raises(ValueError, match="another form"):
        memory.stream_of(template, devices)


class Session:
    """Of a machine whose memory this process has, and which hears something ``words`` times while it is saved."""

    def __init__(self, guest: mmap.mmap, words: int = 0, *, refuses: bool = False) -> None:
        self.guest, self.words, self.refuses, self.asked = guest, words, refuses, 0

    def execute(self, command: str, **arguments: Any) -> None:
        assert command == "xen-save-devices-state" and arguments["live"] is False
        self.asked += 1
        if self.refuses:
            raise RefusedError("QEMU refused it")
        Path(arguments["filename"]).write_bytes(DEVICES)
        if self.words > 0:
            self.words -= 1
            self.guest[2 * PAGE + self.words] ^= 1


def saved(session: Session, base: Base, kept: Kept) -> bool:
    found = mapped(os.getpid(), base.ram)
    assert found is not None
    done = memory.save(session, found, base, kept)  # type: ignore[arg-type]
    left = sorted(path.name for path in kept.stem.parent.iterdir() if path.is_file())
    assert left == (["key.devices", "key.pages"] if done else [])
    return done


@linux
def test_a_memory_is_saved_that_belongs_to_the_devices(base: Base, guest: mmap.mmap, tmp_path: Path) -> None:
    kept, session = Kept(tmp_path / "key"), Session(guest, 2)
    guest[5 * PAGE] ^= 1
    assert saved(session, base, kept)
    assert session.asked == 3
    assert kept.there() and kept.devices.read_bytes() == DEVICES
    assert kept.size() == kept.pages.stat().st_size + len(DEVICES)
    assert kept.pages.stat().st_mode & 0o777 == kept.devices.stat().st_mode & 0o777 == 0o600
    place = bytearray(base.ram.read_bytes())
    with kept.pages.open("rb") as file:
        memory.read(file, len(place), lambda at, data: place.__setitem__(slice(at, at + len(data)), data))
    assert bytes(place) == guest[:]
    kept.remove()
    assert not kept.there() and kept.size() == 0


@linux
@pytest.mark.parametrize("why", ["restless", "refused", "closed", "other stream"])
def test_where_that_cannot_be_nothing_is_left(
    base: Base, guest: mmap.mmap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "closed":
        monkeypatch.setattr(Mapped, "opened", lambda *_a, **_k: (_ for _ in ()).throw(PermissionError()))
    if why == "other stream":
        base.state.write_bytes(b"")
    session = Session(guest, 99 if why == "restless" else 0, refuses=why == "refused")
    assert not saved(session, base, Kept(tmp_path / "key"))


@linux
def test_a_full_disk_is_said(base: Base, guest: mmap.mmap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "write", full)
    found = mapped(os.getpid(), base.ram)
    assert found is not None
    with pytest.raises(HostError, match="the disk is full"):
        memory.save(Session(guest), found, base, Kept(tmp_path / "key"))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Template:
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))
    return remade(Template("debian-12-0"), "first")


def remade(template: Template, content: str) -> Template:
    template.drop()
    template.folder.mkdir(parents=True)
    for path in (template.base.ram, template.base.state, template.disk):
        path.write_text(content)
    return template


def test_what_copies_began_with_outlives_the_template_until_nothing_needs_it(
    tmp_path: Path, template: Template
) -> None:
    layout = Layout.of(tmp_path / "engine")
    first = bases.keep(layout, template)
    assert bases.keep(layout, template) == first and first.key
    assert bases.borrowed(layout) > 0
    second = bases.keep(layout, remade(template, "second"))
    assert second.key != first.key
    assert bases.borrowed(layout) == sum(path.stat().st_blocks * 512 for path in second.folder.iterdir())
    template.drop()
    with pytest.raises(FileNotFoundError):
        bases.keep(layout, template)
    assert (first.ram.read_text(), first.state.read_text()) == ("first", "first")
    assert (second.ram.read_text(), second.state.read_text()) == ("second", "second")
    (layout.bases / ".half").mkdir()
    bases.tidy(layout, {"", first.key})
    assert [path.name for path in layout.bases.iterdir()] == [first.key]
    assert bases.find(layout, first.key) == first
    assert bases.find(layout, second.key) is bases.find(layout, "") is None


def test_without_links_a_copy_begins_with_the_template_itself(
    tmp_path: Path, template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    layout = Layout.of(tmp_path / "engine")
    found = bases.keep(layout, template)
    assert (found.key, found.ram, found.state) == ("", template.base.ram, template.base.state)
    assert list(layout.bases.iterdir()) == []
