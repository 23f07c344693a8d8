"""Bundles that somebody made up or damaged: each is refused with a reason, and nothing of it stays."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.errors import LabctlError
from labctl.images import store
from labctl.lifecycle import bundle, locate
from labctl.lifecycle.lab_folder import BUNDLE_MARK
from labctl.lifecycle.unbundle import unbundle
from labctl.providers import PROVIDERS
from tests.support.forge import Forgery, plain
from tests.support.store import put, qcow2, write_lab

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as labctl makes it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("LABCTL_CACHE_DIR", str(folder / "cache"))
        patch.setenv("LABCTL_STATE_DIR", str(folder / "state"))
        patch.setitem(PROVIDERS, "fake", dataclasses.replace(PROVIDERS["fake"], images="qemu"))  # type: ignore[arg-type]
        put()
        put(packages=["curl", "nginx-light"], content=b"derived")
        return bundle.bundle(locate.draft(write_lab(folder / "tiny"), provider="fake"), folder / "tiny.labz").file


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def forgery(good: Path) -> Forgery:
    return Forgery.of(good)


def refused(file: Path, room: Path) -> str:
    """What is said of a bundle that is refused; insists that nothing of it is left, here or above."""
    outside = sorted(path.name for path in room.parent.iterdir())
    with pytest.raises(LabctlError) as caught:
        unbundle(file)
    assert list(room.iterdir()) == []
    assert not store.Store().entries()
    if store.Store().root.exists():
        assert not [p for p in store.Store().root.iterdir() if not p.name.startswith(".lock")]
    left = {path.name for path in room.parent.iterdir()} - {*outside, "cache"}
    assert not left
    return f"{caught.value.brief}\n{caught.value.details}"


def test_a_forger_who_changes_nothing_is_believed(forgery: Forgery, tmp_path: Path) -> None:
    assert unbundle(forgery.write(tmp_path / "x.labz")).fresh


def test_a_forger_cannot_forge_the_mark_that_keeps_checks_from_running(forgery: Forgery, tmp_path: Path) -> None:
    entry = next(f for f in forgery.table["files"] if f["path"] == "README.md")
    forgery.members[forgery.index("lab/README.md")][0].name = f"lab/{BUNDLE_MARK}"
    entry["path"] = BUNDLE_MARK
    folder = unbundle(forgery.write(tmp_path / "x.labz")).folder
    assert "came out of a bundle" in (folder / BUNDLE_MARK).read_text()


PATHS = [
    "../evil",
    "files/../../evil",
    "HERE/evil",  # absolute
    "..",
    ".",
    "",
    "a//b",
    "a/./b",
    "files\\..\\..\\evil",
    "C:/evil",
    "C:evil",
    "nul\0l",
    "new\nline",
    "esc\x1b[2J",
    ".git/hooks/post-checkout",
    "sub/.vscode/tasks.json",
    "trailing ",
    "dots./x",
    "x" * 300,
    "lab.yaml/evil",
    "LAB.yaml",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leads_elsewhere_is_refused(forgery: Forgery, tmp_path: Path, room: Path, path: str) -> None:
    path = path.replace("HERE", str(tmp_path))
    entry = next(f for f in forgery.table["files"] if f["path"] == "README.md")
    forgery.members[forgery.index("lab/README.md")][0].name = f"lab/{path}".replace("\0", "")
    entry["path"] = path
    said = refused(forgery.write(tmp_path / "x.labz"), room)
    assert "README" not in said
    assert any(word in said for word in ("no path that every system takes", "hidden folder", "one file on", "a folder"))


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "lab/lab.yaml"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.DIRTYPE, ""),
        (tarfile.CONTTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
def test_a_link_a_device_or_a_folder_in_a_files_place_is_refused(
    forgery: Forgery, tmp_path: Path, room: Path, kind: bytes, target: str
) -> None:
    member = forgery.members[forgery.index("lab/README.md")][0]
    member.type, member.linkname = kind, target
    assert "lab/README.md does not follow as it should" in refused(forgery.write(tmp_path / "x.labz"), room)


def _twice(f: Forgery) -> None:
    f.members.append(f.members[0])


def _second_before(f: Forgery) -> None:
    f.members.insert(0, f.members[0])


def _unexpected(f: Forgery) -> None:
    f.members.append((plain("lab/extra", 3), b"abc"))


def _unexpected_between(f: Forgery) -> None:
    f.members.insert(2, (plain("../../extra", 3), b"abc"))


def _swapped(f: Forgery) -> None:
    f.members[0], f.members[1] = f.members[1], f.members[0]


def _missing(f: Forgery) -> None:
    del f.members[-1]


def _no_end(f: Forgery) -> None:
    f.tail = b""


def _longer_end(f: Forgery) -> None:
    f.tail = bytes(4096)


def _behind(f: Forgery) -> None:
    f.behind = b"PK\3\4 something else"


def _another_gzip_behind(f: Forgery) -> None:
    f.behind = gzip.compress(bytes(1 << 20))


def _table_not_first(f: Forgery) -> None:
    f.order = lambda blocks: [blocks[1], blocks[0], *blocks[2:]]


def _longer_than_said(f: Forgery) -> None:
    at = f.index("lab/README.md")
    f.members[at] = (plain("lab/README.md", 1 << 20), bytes(1 << 20))


@pytest.mark.parametrize(
    "change",
    [
        _twice,
        _second_before,
        _unexpected,
        _unexpected_between,
        _swapped,
        _missing,
        _no_end,
        _longer_end,
        _behind,
        _another_gzip_behind,
        _table_not_first,
        _longer_than_said,
    ],
)
def test_members_that_are_not_as_the_table_says_are_refused(
    forgery: Forgery, tmp_path: Path, room: Path, change: Callable[[Forgery], None]
) -> None:
    change(forgery)
    assert "this bundle cannot be used" in refused(forgery.write(tmp_path / "x.labz"), room)


def test_another_content_of_the_same_length_is_refused(forgery: Forgery, tmp_path: Path, room: Path) -> None:
    for name in ("lab/lab.yaml", forgery.members[-1][0].name):
        at = forgery.index(name)
        member, content = forgery.members[at]
        forgery.members[at] = (member, content[:-1] + bytes([content[-1] ^ 1]))
        assert "has another digest than its table of contents says" in refused(forgery.write(tmp_path / "x"), room)
        forgery.members[at] = (member, content)


def _set(**values: object) -> Callable[[Forgery], None]:
    return lambda f: f.table.update(values)


def _image(**values: object) -> Callable[[Forgery], None]:
    return lambda f: f.table["images"][0].update(values)


def _file(**values: object) -> Callable[[Forgery], None]:
    return lambda f: f.table["files"][0].update(values)


def _image_file(**values: object) -> Callable[[Forgery], None]:
    return lambda f: f.table["images"][0]["files"][0].update(values)


def _raw(text: str) -> Callable[[Forgery], None]:
    def change(f: Forgery) -> None:
        f.raw_table = text.encode()

    return change


def _doubled_key(f: Forgery) -> None:
    f.raw_table = json.dumps(f.table).replace('"lab": "tiny"', '"lab": "tiny", "lab": "other"').encode()


@pytest.mark.parametrize(
    "change",
    [
        _set(format="other"),
        _set(version=2),
        _set(version="1"),
        _set(version=True),
        _set(lab="../up"),
        _set(lab="Tiny"),
        _set(lab=""),
        _set(lab="a" * 64),
        _set(provider="nobody"),
        _set(provider="../x"),
        _set(files=[]),
        _set(files={}),
        _set(images=None),
        _set(checkpoints=[{"name": "clean"}]),
        _set(extra=1),
        _file(size=-1),
        _file(size=1.0),
        _file(size=1 << 60),
        _file(size="1"),
        _file(sha256="0" * 63),
        _file(executable="yes"),
        _file(mode=0o4755),
        _image(image="../debian"),
        _image(image="debian-12\n"),
        _image(user="-oProxyCommand=x"),
        _image(user="root; x"),
        _image(cmdline="a\nb"),
        _image(cmdline="x" * 1001),
        _image(packages=["nginx-light", "curl"]),
        _image(packages=["-x"]),
        _image(left_out={"disk.qcow2": "0" * 64}),
        _image(left_out={"../x": "0" * 64}),
        _image(versions={"curl": "$(x)"}),
        _image(files=[]),
        _image_file(name="../../evil"),
        _image_file(name="manifest.json"),
        _image_file(name="vagrant.box"),
        _raw("[" * 100_000),
        _raw("null"),
        _raw("{}"),
        _raw("not json"),
        _raw('{"format": "labctl-bundle", "version": ' + "9" * 5000 + "}"),
        _doubled_key,
    ],
)
def test_a_wrong_table_of_contents_is_refused(
    forgery: Forgery, tmp_path: Path, room: Path, change: Callable[[Forgery], None]
) -> None:
    change(forgery)
    assert refused(forgery.write(tmp_path / "x.labz"), room)


def test_a_table_that_claims_more_than_any_table_has_is_not_read(tmp_path: Path, room: Path) -> None:
    file = tmp_path / "x.labz"
    with gzip.open(file, "wb", compresslevel=1) as out:
        out.write(plain("manifest.json", 1 << 40).tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            out.write(bytes(1 << 20))
    assert "has no table of contents" in refused(file, room)


def test_a_bomb_is_read_no_further_than_the_table_says(forgery: Forgery, tmp_path: Path, room: Path) -> None:
    forgery.tail = bytes(1024) + bytes(256 << 20)
    assert "more behind its end" in refused(forgery.write(tmp_path / "x.labz"), room)


def test_what_can_never_fit_is_refused_before_it_is_unpacked(forgery: Forgery, tmp_path: Path, room: Path) -> None:
    forgery.table["files"][0]["size"] = 1 << 41
    assert "MiB are free" in refused(forgery.write(tmp_path / "x.labz"), room)


@pytest.mark.parametrize("disk", [qcow2(backing=512), b"#!/bin/sh\n".ljust(4096, b"\n"), bytes(510) + b"\x55\xaa"])
def test_a_disk_that_would_make_the_host_open_other_files_is_refused(
    forgery: Forgery, tmp_path: Path, room: Path, disk: bytes
) -> None:
    one = next(f for f in forgery.table["images"][0]["files"] if f["name"] == "disk.qcow2")
    before = _digest(forgery)
    forgery.replace(f"images/{one['sha256']}", disk)
    _relock(forgery, before, _digest(forgery))
    said = refused(forgery.write(tmp_path / "x.labz"), room)
    assert any(word in said for word in ("backing file", "no disk image", "no qcow2 file"))


def test_a_lock_file_that_speaks_of_other_images_is_refused(forgery: Forgery, tmp_path: Path, room: Path) -> None:
    _relock(forgery, _digest(forgery), "f" * 64)
    assert "names other images than it holds" in refused(forgery.write(tmp_path / "x.labz"), room)


def test_a_lock_file_that_is_none_is_refused(forgery: Forgery, tmp_path: Path, room: Path) -> None:
    forgery.replace("lab/lab.lock.yaml", b"version: [")
    assert "lab.lock.yaml" in refused(forgery.write(tmp_path / "x.labz"), room)


def test_a_bundle_without_a_lock_file_is_refused(forgery: Forgery, tmp_path: Path, room: Path) -> None:
    at = forgery.index("lab/lab.lock.yaml")
    del forgery.members[at]
    forgery.table["files"] = [f for f in forgery.table["files"] if f["path"] != "lab.lock.yaml"]
    assert "names other images than it holds" in refused(forgery.write(tmp_path / "x.labz"), room)


def test_wherever_a_bundle_breaks_off_it_is_refused(good: Path, tmp_path: Path, room: Path) -> None:
    data = good.read_bytes()
    file = tmp_path / "x.labz"
    for length in [0, 1, 2, 10, 100, 600, *range(700, len(data), len(data) // 40), len(data) - 8, len(data) - 1]:
        file.write_bytes(data[:length])
        assert refused(file, room)


def test_whatever_byte_is_wrong_a_bundle_is_refused_or_comes_out_right(good: Path, tmp_path: Path, room: Path) -> None:
    data = good.read_bytes()
    dice = random.Random(1)
    file = tmp_path / "x.labz"
    right = Forgery.of(good)
    for _ in range(150):
        at = dice.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :])
        try:
            out = unbundle(file)
        except LabctlError:
            assert list(room.iterdir()) == []
            assert not store.Store().entries()
            continue
        # Some bytes of gzip's headers mean nothing; everything else must be as it was.
        for entry in right.table["files"]:
            content = right.members[right.index(f"lab/{entry['path']}")][1]
            assert (out.folder / entry["path"]).read_bytes() == content
        _forget(out.folder)


def _forget(folder: Path) -> None:
    shutil.rmtree(folder)
    for stored in store.Store().entries():
        shutil.rmtree(stored.folder)


def _digest(forgery: Forgery) -> str:
    """The digest of the first image, from its files."""
    image = forgery.table["images"][0]
    return store.digest_of({**image["left_out"], **{f["name"]: f["sha256"] for f in image["files"]}})


def _relock(forgery: Forgery, old: str, new: str) -> None:
    text = forgery.members[forgery.index("lab/lab.lock.yaml")][1].decode()
    assert old in text
    forgery.replace("lab/lab.lock.yaml", text.replace(old, new).encode())
