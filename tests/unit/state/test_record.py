"""The record survives what happens to files, and says clearly what it cannot survive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labctl.errors import BusyError, StateError
from labctl.state.lock import locked
from labctl.state.record import InstanceFolder, Record, instances

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def make(lab: str = "dmz", instance: str = "default") -> InstanceFolder:
    folder = InstanceFolder(lab, instance)
    folder.write_record(Record(lab, instance, "fake", "/labs/dmz/lab.yaml", "up", files={"web": "abc"}))
    return folder


def test_a_record_comes_back_as_it_was_written() -> None:
    folder = make()
    record = folder.record()
    assert record is not None
    assert (record.lab, record.provider, record.phase, record.files) == ("dmz", "fake", "up", {"web": "abc"})


def test_what_was_never_made_has_no_record() -> None:
    assert InstanceFolder("nothing", "default").record() is None
    assert list(instances()) == []


def test_the_folder_is_private_and_explains_itself(state: Path) -> None:
    folder = make()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert "labctl destroy" in (folder.path / "README").read_text()


def test_every_instance_is_listed_in_order() -> None:
    make("dmz", "s02")
    make("dmz", "s01")
    make("apple", "default")
    assert [(f.lab, f.instance) for f in instances()] == [("apple", "default"), ("dmz", "s01"), ("dmz", "s02")]


@pytest.mark.parametrize("damage", ["", "{", "[]", "\x00\x00", '"text"'])
def test_a_damaged_record_is_an_error_with_a_way_out(damage: str) -> None:
    folder = make()
    (folder.path / "record.json").write_text(damage)
    with pytest.raises(StateError) as caught:
        folder.record()
    assert "labctl destroy" in caught.value.hint


def test_a_record_of_another_version_is_not_guessed_at() -> None:
    folder = make()
    data = json.loads((folder.path / "record.json").read_text())
    (folder.path / "record.json").write_text(json.dumps({**data, "version": 99}))
    with pytest.raises(StateError, match="version 99"):
        folder.record()


def test_an_unknown_field_of_a_later_labctl_is_left_out() -> None:
    folder = make()
    data = json.loads((folder.path / "record.json").read_text())
    (folder.path / "record.json").write_text(json.dumps({**data, "mood": "good"}))
    assert folder.record() is not None


def test_removing_the_last_instance_removes_the_labs_folder(state: Path) -> None:
    first, second = make("dmz", "a"), make("dmz", "b")
    first.remove()
    assert (state / "dmz").exists()
    second.remove()
    assert not (state / "dmz").exists()


def test_a_second_holder_is_told_who_holds_the_lock() -> None:
    with locked("dmz", "default"), pytest.raises(BusyError) as caught, locked("dmz", "default"):
        pytest.fail("both hold the lock")
    assert "process" in caught.value.brief
    assert "dmz/default" in caught.value.brief


def test_other_instances_are_not_locked() -> None:
    with locked("dmz", "a"), locked("dmz", "b"), locked("flat", "a"):
        pass
