"""Each image is made once, and made again only where that was asked for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from labctl.events import Event
from labctl.host.runner import Runner
from labctl.images.store import Store, Stored
from labctl.images.workshop import Workshop

pytestmark = pytest.mark.unit


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def workshop(tmp_path: Path, heard: list[Event]) -> Workshop:
    return Workshop(Store(tmp_path / "images"), heard.append, Runner())


def _get(workshop: Workshop, since: float = 0.0, *, fail: bool = False) -> Stored:
    def make() -> Stored:
        with workshop.store.draft("d") as draft:
            (draft / "disk.qcow2").write_bytes(b"disk")
            if fail:
                raise RuntimeError("no power")
            return workshop.store.keep(draft, Stored(Path(), "d", "key", "recipe", time.time()))

    return workshop._once("d", "key", "making it", make, since)


def test_what_is_there_is_not_made_again(workshop: Workshop, heard: list[Event]) -> None:
    assert _get(workshop) == _get(workshop)
    assert [event.status for event in heard] == ["started", "done"]
    assert heard[-1].seconds is not None


def test_what_is_too_old_is_made_again_beside_the_old_one(workshop: Workshop) -> None:
    old = _get(workshop)
    new = _get(workshop, since=time.time())
    assert new.folder != old.folder
    assert old.folder.exists()
    assert _get(workshop) == new


def test_a_failure_is_told_and_the_next_one_tries_again(workshop: Workshop, heard: list[Event]) -> None:
    with pytest.raises(RuntimeError, match="no power"):
        _get(workshop, fail=True)
    assert [event.status for event in heard] == ["started", "failed"]
    assert _get(workshop).image().disk.exists()
