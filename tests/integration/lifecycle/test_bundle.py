"""A lab in one file: what goes in, what comes out on a computer that has nothing, and that it comes up there."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.errors import HostError, LabctlError, UsageError
from labctl.events import Event
from labctl.images import list_images, store
from labctl.images.pinning import BUNDLED
from labctl.lifecycle import bundle, converge, locate, lockfile, pins
from labctl.lifecycle.bundle import Bundled
from labctl.lifecycle.lab_folder import BUNDLE_MARK
from labctl.lifecycle.unbundle import unbundle
from labctl.providers import PROVIDERS
from tests.support.store import put, write_lab

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setitem(PROVIDERS, "fake", dataclasses.replace(PROVIDERS["fake"], images="qemu"))  # type: ignore[arg-type]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    put(versions={"curl": "7.88.1-10"})
    put(packages=["curl", "nginx-light"], content=b"derived", versions={"curl": "7.88.1-10"})
    return write_lab(tmp_path / "home/tiny")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somewhere else: another folder, an empty store."""
    folder = tmp_path / "room"
    folder.mkdir()
    return folder


def pack(lab: Path, output: Path) -> Bundled:
    return bundle.bundle(locate.draft(lab, provider="fake"), output)


def enter(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(room.parent / "room-cache"))


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(file: Path) -> list[str]:
    with tarfile.open(file) as tar:
        return tar.getnames()


def test_the_same_lab_gives_the_same_bytes(lab: Path, tmp_path: Path) -> None:
    one, two = pack(lab, tmp_path / "one.labz"), pack(lab, tmp_path / "two.labz")
    assert one.file.read_bytes() == two.file.read_bytes()
    shutil.copytree(lab, tmp_path / "other/tiny")
    assert pack(tmp_path / "other/tiny", tmp_path / "three.labz").sha256 == one.sha256
    (lab / "README.md").write_text("# other\n")
    assert pack(lab, tmp_path / "four.labz").sha256 != one.sha256


def test_the_table_of_contents_comes_first_and_equal_contents_are_in_it_once(lab: Path, tmp_path: Path) -> None:
    inside = names(pack(lab, tmp_path / "tiny.labz").file)
    assert inside[0] == "manifest.json"
    assert len([name for name in inside if name.startswith("images/")]) == 4  # two disks, one kernel, one initrd
    with tarfile.open(tmp_path / "tiny.labz") as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        table = json.load(file)
    assert (table["format"], table["version"], table["lab"], table["provider"]) == ("labctl-bundle", 1, "tiny", "fake")
    assert table["checkpoints"] == []


def test_hidden_folders_bundles_and_links_out_of_the_lab_stay_out(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (lab / "leak").symlink_to(tmp_path / "secret")
    (lab / "folder-leak").symlink_to(tmp_path)
    (lab / "inside").symlink_to("README.md")
    (lab / "broken").symlink_to("nowhere")
    (lab / "old.labz").write_bytes(b"x")
    (lab / "class.key").write_text("the answers")
    (lab / "checks/__pycache__").mkdir()
    (lab / "checks/__pycache__/x.pyc").write_bytes(b"x")
    done = pack(lab, lab / "tiny.labz")
    files = [name.removeprefix("lab/") for name in names(done.file) if name.startswith("lab/")]
    assert files == [
        "README.md",
        "checks/run.sh",
        "checks/test_web.py",
        "files/index.html",
        "inside",
        "lab.lock.yaml",
        "lab.yaml",
    ]
    assert [reason.split(":")[0] for reason in done.skipped] == ["folder-leak", "broken", "leak"]
    with tarfile.open(done.file) as tar:
        assert all(member.isreg() for member in tar)


def test_a_lab_file_among_others_takes_only_what_it_names(lab: Path, tmp_path: Path) -> None:
    (lab / "lab.yaml").rename(lab / "mine.yaml")
    (lab / "theirs.yaml").write_text("not mine")
    done = pack(lab / "mine.yaml", tmp_path / "tiny.labz")
    files = [name.removeprefix("lab/") for name in names(done.file) if name.startswith("lab/")]
    assert files == ["files/index.html", "lab.lock.yaml", "lab.yaml"]


def test_a_lab_comes_out_as_it_went_in_with_its_images_and_comes_up(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins.lock(locate.draft(lab, provider="fake"))
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    out = unbundle(done.file)
    assert (out.folder, out.lab, out.fresh) == (Path("tiny"), "tiny", True)
    assert out.added == ("debian-12", "debian-12 with curl, nginx-light")
    expected = {name: data for name, data in tree(lab).items() if not name.startswith(".")}
    out = tree(room / "tiny")
    assert b"--checks" in out.pop(BUNDLE_MARK)
    assert out == expected
    assert (room / "tiny/checks/run.sh").stat().st_mode & 0o777 == 0o755
    assert (room / "tiny/lab.yaml").stat().st_mode & 0o777 == 0o644
    assert [p.name for p in room.iterdir()] == ["tiny"]
    draft = locate.draft(room / "tiny", provider="fake")
    assert {s.state for s in pins.check(draft)} == {"locked"}
    assert not converge.up(draft, only_locked=True).unchanged


def test_what_came_in_an_archive_serves_its_own_lab_and_no_other(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    unbundle(done.file)
    assert {stored.source for stored in store.Store().entries()} == {BUNDLED}
    assert [one.cached for one in list_images() if one.name == "debian-12"] == [False]
    # Without --locked too, as long as there is nothing else that it could start from.
    draft = locate.draft(room / "tiny", provider="fake")
    assert len(pins.choose(draft).images) == 2
    (room / "tiny/lab.lock.yaml").unlink()
    assert pins.choose(draft).images == {}


def test_half_of_an_image_that_only_builds_need_stays_at_home_and_its_digest_is_the_same(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pack(lab, tmp_path / "tiny.labz")
    before = {stored.digest for stored in store.Store().entries()}
    enter(room, monkeypatch)
    unbundle(done.file)
    entries = store.Store().entries()
    assert {stored.digest for stored in entries} == before
    assert not [stored for stored in entries if "rootfs.tar" in stored.files]
    again = pack(room / "tiny", tmp_path / "again.labz")
    assert again.sha256 == done.sha256


def test_repeating_it_changes_nothing_and_notes_of_a_student_do_not_matter(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    unbundle(done.file)
    (room / "tiny/notes.txt").write_text("mine")
    before = {p: p.stat().st_mtime_ns for p in room.parent.joinpath("room-cache").rglob("*")}
    out = unbundle(done.file)
    assert (out.fresh, out.added) == (False, ())
    assert {p: p.stat().st_mtime_ns for p in room.parent.joinpath("room-cache").rglob("*") if p in before} == before
    assert (room / "tiny/notes.txt").read_text() == "mine"


def test_a_folder_with_another_content_is_in_the_way_and_stays_as_it_is(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    (room / "tiny").mkdir()
    unbundle(done.file)  # an empty one is no obstacle
    (room / "tiny/README.md").write_text("changed")
    before = tree(room)
    with pytest.raises(UsageError, match=r"README\.md is another one in it"):
        unbundle(done.file)
    (room / "other").mkdir()
    (room / "other/thing").write_text("x")
    with pytest.raises(UsageError, match=r"README\.md is missing in it"):
        unbundle(done.file, room / "other")
    (room / "file").write_text("x")
    with pytest.raises(UsageError, match="is in the way"):
        unbundle(done.file, room / "file")
    assert {name: data for name, data in tree(room).items() if name.startswith("tiny/")} == before
    assert unbundle(done.file, room / "new/place").folder == room / "new/place"


def test_the_pinned_images_go_in_though_there_are_newer_ones(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = {pin.digest for pin in pins.lock(locate.draft(lab, provider="fake")).pins}
    put(content=b"newer")
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    unbundle(done.file)
    assert {stored.digest for stored in store.Store().entries()} == pinned


def test_a_lab_whose_pinned_images_are_gone_is_not_bundled(lab: Path, tmp_path: Path) -> None:
    pins.lock(locate.draft(lab, provider="fake"))
    for stored in store.Store().entries():
        shutil.rmtree(stored.folder)
    put(content=b"newer")
    with pytest.raises(LabctlError, match="are not those of lab"):
        pack(lab, tmp_path / "tiny.labz")
    assert not (tmp_path / "tiny.labz").exists()


def test_entries_of_other_providers_travel_in_the_lock_file_too(lab: Path, tmp_path: Path) -> None:
    (lab / "lab.lock.yaml").write_text(
        f'version: 1\nproviders:\n  libvirt:\n    - image: debian-12\n      digest: "{"d" * 64}"\n'
    )
    done = pack(lab, tmp_path / "tiny.labz")
    with tarfile.open(done.file) as tar:
        tar.extract("lab/lab.lock.yaml", tmp_path / "x", filter="data")
    lock = lockfile.read(tmp_path / "x/lab/lab.lock.yaml")
    assert lock is not None
    assert sorted(lock.providers) == ["fake", "libvirt"]
    assert "fake" not in (lab / "lab.lock.yaml").read_text()


def test_an_image_that_changed_on_the_disk_is_noticed_while_it_is_packed(lab: Path, tmp_path: Path) -> None:
    stored = store.Store().entries("debian-12")[0]
    disk = stored.folder / "disk.qcow2"
    before = disk.stat()
    disk.write_bytes(disk.read_bytes()[:-1] + b"!")
    os.utime(disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(LabctlError, match="is not what it was"):
        pack(lab, tmp_path / "tiny.labz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "home"]


def test_no_other_file_is_overwritten(lab: Path) -> None:
    with pytest.raises(UsageError, match="is no bundle"):
        pack(lab, lab / "README.md")
    with pytest.raises(UsageError, match="there is no folder"):
        pack(lab, lab / "nowhere/tiny.labz")
    pack(lab, lab / "tiny.labz")
    pack(lab, lab / "tiny.labz")


@pytest.mark.parametrize("bad", ["files/a:b", "files/x\\y", "files/trailing."])
def test_a_lab_that_not_every_system_could_hold_is_refused(lab: Path, tmp_path: Path, bad: str) -> None:
    (lab / bad).write_text("x")
    with pytest.raises(UsageError, match="no path that every system takes"):
        pack(lab, tmp_path / "tiny.labz")


def test_names_that_differ_only_in_case_are_refused(lab: Path, tmp_path: Path) -> None:
    (lab / "readme.MD").write_text("x")
    with pytest.raises(UsageError, match="are one file on some systems"):
        pack(lab, tmp_path / "tiny.labz")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], check=False).returncode:
        pytest.fail("this test mounts a small file system; run it as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_leaves_nothing(
    lab: Path, tmp_path: Path, room: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab / "files/large").write_bytes(os.urandom(60 << 20))
    with pytest.raises(HostError, match="the disk is full"):
        pack(lab, small / "tiny.labz")
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    with pytest.raises(HostError, match="this bundle needs 12"):
        unbundle(done.file, small / "tiny")
    monkeypatch.setattr("labctl.lifecycle.unbundle._SPARE", -(1 << 40))  # as if others filled the disk in the meantime
    with pytest.raises(HostError, match="the disk is full"):
        unbundle(done.file, small / "tiny")
    assert list(small.iterdir()) == []
    assert not store.Store().entries()


def test_a_full_disk_under_the_image_store_is_an_error_and_leaves_nothing(
    lab: Path, tmp_path: Path, room: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(small))
    monkeypatch.setattr("labctl.lifecycle.unbundle._SPARE", -(1 << 40))
    with (small / "filler").open("wb") as file:
        file.write(bytes((40 << 20) - (100 << 10)))
    with pytest.raises(HostError, match="the disk is full"):
        unbundle(done.file)
    assert list(room.iterdir()) == []
    assert sorted(path.name for path in (small / "images").iterdir()) == []


def test_a_failure_at_the_very_end_takes_images_out_of_the_store_again(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)

    def fail(_draft: Path, _target: Path) -> None:
        assert len(store.Store().entries()) == 2
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("labctl.lifecycle.unbundle._move_in", fail)
    with pytest.raises(HostError, match="the disk is full"):
        unbundle(done.file)
    assert list(room.iterdir()) == []
    assert not store.Store().entries()


def test_an_image_that_was_built_here_goes_before_the_same_one_from_an_archive(
    lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pack(lab, tmp_path / "tiny.labz")
    enter(room, monkeypatch)
    unbundle(done.file)
    own = put(versions={"curl": "7.88.1-10"}, created=1.0)
    choice = pins.choose(locate.draft(room / "tiny", provider="fake"), only_locked=True)
    assert choice.images["debian-12", ()].digest == own.digest
    assert choice.images["debian-12", ()].disk.parent == own.folder


def test_an_interruption_leaves_nothing(lab: Path, tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = pack(lab, tmp_path / "tiny.labz")

    def interrupt(event: Event) -> None:
        if event.status == "progress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundle.bundle(locate.draft(lab, provider="fake"), tmp_path / "b.labz", interrupt)
    assert not list(tmp_path.glob("*b.labz*"))
    enter(room, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        unbundle(done.file, listener=interrupt)
    assert list(room.iterdir()) == []
    assert not store.Store().entries()


def test_the_command_line_bundles_and_brings_a_bundle_up(lab: Path, tmp_path: Path, room: Path) -> None:
    def labctl(*argv: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "labctl", *argv], check=False, capture_output=True, text=True, cwd=room, timeout=60
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    told = json.loads(labctl("bundle", str(lab), "--provider", "qemu", "--json"))
    assert told["images"] == ["debian-12", "debian-12 with curl, nginx-light"]
    assert (room / "tiny.labz").stat().st_size == told["size"]
    assert "has to be unpacked" in labctl("up", "tiny.labz", "--dry-run", code=2)
    # The fake engine of an installed labctl needs no images; the bundle's are checked and kept all the same.
    assert "tiny/default is up on fake" in labctl("up", "tiny.labz", "--provider", "fake")
    assert "nothing had to change" in labctl("up", "tiny.labz", "--provider", "fake")
    assert "there already; 0 of 2 images were new" in labctl("unbundle", "tiny.labz")
    assert "is no bundle" in labctl("unbundle", "tiny/lab.yaml", code=1)
    assert "cannot be read" in labctl("up", "gone.labz", code=1)


def test_checks_out_of_a_bundle_stay_marked_until_somebody_takes_the_mark_away(
    lab: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab / BUNDLE_MARK).write_text("a mark of the sender's")
    done = pack(lab, room / "tiny.labz")
    assert f"lab/{BUNDLE_MARK}" not in names(done.file)
    enter(room, monkeypatch)
    unbundle(done.file)
    mark = room / "tiny" / BUNDLE_MARK
    assert "came out of a bundle" in mark.read_text()
    again = unbundle(done.file)
    assert not again.fresh
    assert mark.exists()
    mark.unlink()
    unbundle(done.file)
    assert not mark.exists()
