"""``labctl snapshot`` and ``reset`` as they are read: the tree, the list, and what an engine cannot do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labctl.__main__ import run
from labctl.lifecycle import checkpoint, converge, locate
from labctl.providers.base import ONE_MOMENT
from labctl.providers.fake.checkpoints import FakeCheckpoints
from labctl.providers.fake.provider import FakeProvider

pytestmark = pytest.mark.unit

LAB = """\
version: 1
name: here
networks: {n: {subnet: 10.9.0.0/24}}
machines:
  a: {image: debian-12, networks: [n]}
  b: {image: debian-12, networks: [n]}
"""
WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab in the current folder whose machines stand still 12 ms apart."""
    (tmp_path / "lab.yaml").write_text(LAB)
    monkeypatch.chdir(tmp_path)
    converge.up(locate.draft(Path(), provider="fake"))
    usual = FakeCheckpoints.pause

    def pause(self: FakeCheckpoints, machines: Any) -> dict[str, float]:
        usual(self, machines)
        return {name: 5.0 + 0.0123 * number for number, name in enumerate(machines)}

    monkeypatch.setattr(FakeCheckpoints, "pause", pause)


def save(*names: str) -> None:
    for name in names:
        checkpoint.save(locate.find(Path()), name)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    """What a command says, and what it says beside that."""
    capsys.readouterr()
    assert run(list(words)) == code
    told = capsys.readouterr()
    return told.out, told.err


def test_the_tree_shows_what_was_made_after_what(capsys: pytest.CaptureFixture[str]) -> None:
    save("first", "second", "third")
    checkpoint.restore(locate.find(Path()), "first")
    save("fourth")
    out, _ = said(capsys, "snapshot", "tree")
    about = rf"\({WHEN}, machines: a b, skew 12 ms\)"
    lines = [rf"first  {about}", rf"  second  {about}", rf"    third  {about}", rf"  fourth \*  {about}"]
    assert len(out.splitlines()) == len(lines)
    for line, wanted in zip(out.splitlines(), lines, strict=True):
        assert re.fullmatch(wanted, line)


@pytest.mark.parametrize(("damaged", "left"), [("first", ["second", "  third"]), ("second", ["first", "third"])])
def test_a_damaged_manifest_hides_none_of_its_children(
    capsys: pytest.CaptureFixture[str], damaged: str, left: list[str]
) -> None:
    save("first", "second", "third")
    found = next(one for one in checkpoint.listing(locate.find(Path())).checkpoints if one.name == damaged)
    path = locate.find(Path()).folder.path / "checkpoints" / f"{found.id}.json"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    out, err = said(capsys, "snapshot", "tree")
    assert [line.partition("  (")[0].removesuffix(" *") for line in out.splitlines()] == left
    assert str(path) in err


def test_the_list_shows_how_far_apart_the_machines_stood_still(capsys: pytest.CaptureFixture[str]) -> None:
    save("clean")
    out, _ = said(capsys, "snapshot", "list")
    assert "SKEW" in out
    assert " 12 ms " in out
    out, _ = said(capsys, "snapshot", "list", "--json")
    (one,) = json.loads(out)["checkpoints"]
    assert one["skew"] == pytest.approx(0.0123)
    assert one["completed"] >= one["created"]
    assert len(one["plan_digest"]) == 64
    assert one["checked"] is True


def test_what_has_no_checksum_is_said_in_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    save("clean")
    (path,) = (locate.find(Path()).folder.path / "checkpoints").glob("*.json")
    value = json.loads(path.read_text(encoding="utf-8")) | {"version": 1}
    path.write_text(json.dumps({key: text for key, text in value.items() if key != "checksum"}), encoding="utf-8")
    for command in ("list", "tree"):
        out, _ = said(capsys, "snapshot", command)
        assert "no checksum" in out


VERBS = [("snapshot", "save", "two"), ("snapshot", "restore", "fresh"), ("reset",)]


@pytest.mark.parametrize("words", VERBS)
def test_an_engine_whose_machines_are_not_of_one_moment_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    save("fresh")
    _, err = said(capsys, *words)
    assert "!" not in err
    can = replace(FakeProvider.capabilities(), consistency="one moves before the other")
    monkeypatch.setattr(FakeProvider, "capabilities", lambda *_: can)
    if words[1:2] == ("save",):
        words = ("snapshot", "save", "three")
    _, err = said(capsys, *words)
    assert "! one moves before the other.\n" in err


@pytest.mark.parametrize("words", VERBS)
def test_scripts_are_told_what_the_machines_have_in_common(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    save("fresh")
    out, _ = said(capsys, *words, "--json")
    assert json.loads(out)["consistency"] == ONE_MOMENT


def test_status_names_the_ways_out_of_a_restore_that_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save("clean")
    with monkeypatch.context() as during:
        during.setattr(FakeCheckpoints, "restore", lambda *_: None)
        _, err = said(capsys, "snapshot", "restore", "clean", code=1)
    assert "2 of 2 machines failed: a, b" in err
    _, err = said(capsys, "status")
    assert "The restore of checkpoint clean has failed" in err
    assert "labctl snapshot delete clean" in err
    assert "`labctl up` mends it" not in err
