"""The cache: entries are whole or not there."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.events import Event
from labctl.host.processes import ProcessId
from labctl.images import leftovers
from labctl.images.store import MANIFEST, Store, Stored

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


def _make(store: Store, name: str = "d", key: str = "k" * 64, content: bytes = b"disk", created: float = 1.0) -> Stored:
    with store.draft(name) as draft:
        (draft / "disk.qcow2").write_bytes(content)
        (draft / "kernel").write_bytes(b"kernel")
        return store.keep(
            draft, Stored(Path(), name, key, "recipe", created, cmdline="quiet", details={"release": "x"})
        )


def _find(store: Store, heard: list[Event] | None = None) -> Stored | None:
    return store.find("d", "k" * 64, (heard if heard is not None else []).append)


def test_a_finished_entry_is_found_as_it_was_made(store: Store) -> None:
    made = _make(store)
    found = _find(store)
    assert found == made
    assert found.image().disk.read_bytes() == b"disk"
    assert found.image().kernel == found.folder / "kernel"
    assert found.image().initrd is None
    assert len(found.digest) == 64
    assert [path.name for path in store.root.iterdir()] == [made.folder.name]


def test_another_key_or_name_is_another_image(store: Store) -> None:
    _make(store)
    assert store.find("d", "other", lambda _: None) is None
    assert store.find("e", "k" * 64, lambda _: None) is None


def test_the_newest_of_equal_entries_counts_and_the_older_one_stays(store: Store) -> None:
    older, newer = _make(store, created=1.0), _make(store, content=b"newer", created=2.0)
    assert _find(store) == newer
    assert older.folder.exists()


def test_the_digest_follows_the_content(store: Store) -> None:
    assert _make(store).digest == _make(store).digest
    assert _make(store).digest != _make(store, content=b"else").digest


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "kernel").unlink(), "kernel is missing"),
        (lambda folder: os.truncate(folder / "disk.qcow2", 2), "has 2 bytes instead of 4"),
        (lambda folder: (folder / "disk.qcow2").write_bytes(b"DISK"), "was changed"),
    ],
)
def test_a_damaged_entry_is_noticed_and_removed(store: Store, harm: object, said: str) -> None:
    made, heard = _make(store), list[Event]()
    harm(made.folder)  # type: ignore[operator]
    assert _find(store, heard) is None
    assert said in heard[0].message
    assert not made.folder.exists()


def test_same_size_and_time_but_another_content_is_found_by_digest(store: Store) -> None:
    made = _make(store)
    path, before = made.folder / "disk.qcow2", (made.folder / "disk.qcow2").stat()
    path.write_bytes(b"DISK")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert made.damage() == ""
    assert made.damage(thorough=True) == "disk.qcow2 has another content"


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"version": 99}', '{"version": 1, "files": []}'])
def test_a_folder_without_a_right_manifest_is_no_entry(store: Store, manifest: str | None) -> None:
    made = _make(store)
    if manifest is None:
        (made.folder / MANIFEST).unlink()
    else:
        (made.folder / MANIFEST).write_text(manifest)
    assert store.entries() == ()
    assert _find(store) is None


def test_a_draft_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.draft("d") as draft:
        (draft / "disk.qcow2").write_bytes(b"half")
        raise RuntimeError
    assert list(store.root.iterdir()) == []


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(HostError, match="the disk is full"), store.draft("d"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(store.root.iterdir()) == []


def test_drafts_of_dead_processes_go_and_those_of_living_ones_stay(store: Store) -> None:
    store.root.mkdir()
    me = ProcessId.of(os.getpid())
    assert me is not None
    living = store.root / leftovers.folder_name("living")
    dead = store.root / f"{leftovers.PREFIX}{2**22 + 1}-100-abcd-dead"
    reused = store.root / f"{leftovers.PREFIX}{os.getpid()}-{int((me.started - 5000) * 100)}-abcd-reused"
    foreign = store.root / "something-else"
    for folder in (living, dead, reused, foreign):
        folder.mkdir()
        (folder / "file").write_text("")
    with store.draft("d"):
        assert living.exists()
        assert foreign.exists()
        assert not dead.exists()
        assert not reused.exists()


def test_remove_takes_all_versions_of_one_image(store: Store) -> None:
    first, second, other = _make(store), _make(store, key="j" * 64), _make(store, name="e")
    (first.folder / "kernel").unlink()
    assert set(store.remove("d")) == {first.folder, second.folder}
    assert store.entries() == (other,)


def test_who_waits_for_a_lock_hears_who_has_it(store: Store) -> None:
    heard: list[Event] = []
    waited = threading.Event()

    def wait() -> None:
        with store.lock("d", "k", heard.append):
            waited.set()

    with store.lock("d", "k", lambda _: None):
        other = threading.Thread(target=wait)
        other.start()
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not waited.is_set()
    other.join(10)
    assert waited.is_set()
    assert f"process {os.getpid()}, since " in heard[0].message
