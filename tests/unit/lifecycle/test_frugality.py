"""What can go: checkpoints that are of no use, and what no lab uses in the cache."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.host.files import allocated
from labctl.images.store import Store, Stored
from labctl.lifecycle import cache, checkpoint, converge, frugality, inspect, locate
from labctl.lifecycle.locate import Running
from labctl.providers.fake.provider import FakeProvider

pytestmark = pytest.mark.unit

SPEC = "version: 1\nname: two\ndefaults: {image: debian-12}\nmachines:\n  a: {}\n  b: {}\n"
DAY = 24 * 3600


class Lab:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "lab.yaml"
        self.up(SPEC)

    def up(self, text: str) -> None:
        self.file.write_text(text)
        draft = locate.draft(self.file, provider="fake")
        converge.up(draft, keep_fresh=True)

    @property
    def now(self) -> Running:
        return locate.find(self.file)

    @property
    def names(self) -> list[str]:
        return [one.name for one in checkpoint.listing(self.now).checkpoints]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    for name in ("first", "second", "third"):
        checkpoint.save(made.now, name)
    return made


def lose(lab: Lab, name: str) -> None:
    """What happens to a checkpoint when one of its machines is made anew."""
    found = next(one for one in checkpoint.listing(lab.now).checkpoints if one.name == name)
    (lab.now.folder.engine / f"b.{found.key}").unlink()


def test_what_is_of_use_stays(lab: Lab) -> None:
    assert frugality.prune(lab.now) == ()
    assert lab.names == ["fresh", "first", "second", "third"]


def test_a_checkpoint_that_cannot_be_restored_goes_whoever_made_it(lab: Lab) -> None:
    lose(lab, "second")
    (gone,) = frugality.prune(lab.now)
    assert (gone.name, gone.why) == ("second", "cannot be restored any more: b made anew or gone")
    assert lab.names == ["fresh", "first", "third"]


def test_a_fresh_of_other_machines_goes_and_what_was_named_stays(lab: Lab) -> None:
    lab.up(SPEC.replace("b: {}", "b: {memory: 1 GiB}"))
    assert [one.name for one in frugality.prune(lab.now)] == ["fresh"]
    assert lab.names == ["first", "second", "third"]


def test_the_newest_that_were_named_stay_where_it_is_said_how_many(lab: Lab) -> None:
    assert [one.name for one in frugality.prune(lab.now, 1)] == ["first", "second"]
    assert lab.names == ["fresh", "third"]
    assert [one.name for one in frugality.prune(lab.now, 0)] == ["third"]
    assert lab.names == ["fresh"]


def test_those_that_cannot_be_restored_do_not_count_among_the_newest(lab: Lab) -> None:
    lose(lab, "third")
    assert [one.name for one in frugality.prune(lab.now, 1)] == ["first", "third"]
    assert lab.names == ["fresh", "second"]


def test_what_would_go_is_said_and_nothing_goes(lab: Lab) -> None:
    assert [one.name for one in frugality.doomed(lab.now, 0)] == ["first", "second", "third"]
    assert len(lab.names) == 4


def test_fewer_than_none_is_refused(lab: Lab) -> None:
    with pytest.raises(UsageError):
        frugality.doomed(lab.now, -1)


def test_sizes_are_those_of_all_machines_together(lab: Lab) -> None:
    found = checkpoint.listing(lab.now).checkpoints
    taken = frugality.sizes(lab.now)
    assert taken.keys() == {one.id for one in found}
    files = [lab.now.folder.engine / f"{name}.{found[0].key}" for name in "ab"]
    assert taken[found[0].id].own == sum(path.stat().st_size for path in files)


def test_status_and_list_say_what_an_instance_takes(lab: Lab) -> None:
    assert inspect.status(lab.now).disk == allocated(lab.now.folder.engine)
    assert [one.disk for one in inspect.listing()] == [allocated(lab.now.folder.engine)]


def test_a_file_with_several_names_counts_once_and_holes_count_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "one").write_bytes(b"x" * (1 << 20))
    os.link(folder / "one", folder / "two")
    with (folder / "hole").open("wb") as file:
        file.truncate(1 << 30)
    assert 1 << 20 <= allocated(folder) < 2 << 20
    assert allocated(folder / "none") == 0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with images of different age and origin."""
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(name: str, days: float, source: str = "recipe", packages: tuple[str, ...] = ()) -> Stored:
    """An image that was made so many days ago."""
    images = Store()
    with images.draft(name) as draft:
        (draft / "disk.qcow2").write_bytes(b"x" * 8192)
        made = time.time() - days * DAY
        return images.keep(draft, Stored(Path(), name, "k" * 12, source, made, details={"packages": list(packages)}))


def template(root: Path, name: str, image: Stored, days: float) -> Path:
    folder = root / "templates" / name
    folder.mkdir(parents=True)
    backing = str(image.folder / "disk.qcow2").encode()
    head = b"QFI\xfb" + struct.pack(">IQI", 3, 64, len(backing))
    (folder / "disk.qcow2").write_bytes(head.ljust(64, b"\0") + backing)
    moment = time.time() - days * DAY
    os.utime(folder, (moment, moment))
    return folder


def going(**options: bool) -> dict[str, str]:
    return {one.stock.folder.name: one.why for one in cache.contents(**options) if one.why}


def test_an_image_goes_where_it_is_old_and_a_newer_one_takes_its_place(store: Path) -> None:
    old, new = keep("debian-12", 30), keep("debian-12", 20)
    lone, other = keep("router", 30), keep("debian-12", 30, "packages", ("nginx",))
    keep("debian-12", 1, "packages", ("perl",))
    assert going() == {old.folder.name: "there is a newer one"}
    gone = cache.prune()
    assert [one.stock.folder for one in gone] == [old.folder]
    assert gone[0].stock.size >= 8192
    assert not old.folder.exists()
    assert all(one.folder.exists() for one in (new, lone, other))


def test_what_labctl_cannot_make_again_never_goes(store: Path) -> None:
    for source in ("download", "import", "bundle"):
        keep("kali", 100, source)
        keep("kali", 50, source)
    assert going(everything=True) == {}


def test_an_image_that_a_lab_uses_stays(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _new = keep("debian-12", 30), keep("debian-12", 20)
    Lab(tmp_path)
    monkeypatch.setattr(FakeProvider, "uses", lambda _: frozenset({old.folder / "disk.qcow2"}))
    assert old.folder.name not in going(everything=True)
    assert [one.users for one in cache.contents() if one.stock.folder == old.folder] == [("two/default",)]


def test_a_lab_that_cannot_be_asked_keeps_everything(store: Path, tmp_path: Path) -> None:
    old, _new = keep("debian-12", 30), keep("debian-12", 20)
    lab = Lab(tmp_path)
    record = lab.now.folder.path / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 99}))
    with pytest.raises(UsageError, match="two/default"):
        cache.prune(everything=True)
    assert old.folder.exists()


def test_a_template_goes_unused_or_with_its_image(store: Path) -> None:
    old, new = keep("debian-12", 30), keep("debian-12", 20)
    template(store, "unused", new, 15)
    template(store, "used", new, 3)
    template(store, "orphan", old, 3)
    assert going() == {
        old.folder.name: "there is a newer one",
        "unused": "not used for 14 days",
        "orphan": "its image is gone or goes",
    }
    cache.prune()
    assert sorted(path.name for path in (store / "templates").iterdir()) == ["used"]


def test_with_all_goes_what_is_made_again_but_nothing_that_was_made_just_now(store: Path) -> None:
    keep("debian-12", 1)
    young = keep("router", 0)
    assert young.folder.name not in going(everything=True)
    assert len(cache.prune(everything=True, dry_run=True)) == 1
    assert len(cache.prune(everything=True)) == 1
    assert [one.stock.folder for one in cache.contents()] == [young.folder]
