"""Flags that are handed in: right or wrong, whose, noted without their words, counted while they are right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.lifecycle import checkpoint, converge, export, fresh, locate, scoring, submitting
from labctl.lifecycle.arrival import Options, bring
from labctl.lifecycle.checking import Choice
from labctl.lifecycle.locate import Running
from labctl.verify.model import Verdict
from tests.support.classes import LAB, Room
from tests.support.forge import Forgery

pytestmark = pytest.mark.unit

SECRETS = (
    "{root: {kind: flag, points: 5}, mail: {kind: flag, prefix: ACME, points: 2}, word: {kind: choice, of: [a, b]}}"
)
SPEC = f"secrets: {SECRETS}\n" + LAB.replace("a: {", "a: {secrets: [root, mail, word], ")


@pytest.fixture
def lab(tmp_path: Path) -> Running:
    folder = tmp_path / "home/two"
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(SPEC)
    converge.up(locate.draft(folder, provider="fake"))
    return locate.find(folder)


def notes(lab: Running) -> str:
    return lab.folder.submissions.read_text()


def test_a_flag_is_right_once_and_the_same_afterwards(lab: Running) -> None:
    flag = lab.secrets()["mail"]
    first, second = (submitting.submit(lab, text) for text in (f" {flag}\n", flag))
    assert (first.secret, first.points, first.before) == ("mail", 2, False)
    assert (second.secret, second.before) == ("mail", True)
    assert submitting.found(lab) == ("mail",)


@pytest.mark.parametrize("text", ["FLAG{x}", "a", "b", "\udc80", "x" * 100_000, '{"secret": "root"}\n{}'])
def test_all_else_is_wrong_and_no_note_has_its_words(lab: Running, text: str) -> None:
    assert submitting.submit(lab, text).secret == ""
    (line,) = notes(lab).splitlines()
    assert json.loads(line) == {"at": json.loads(line)["at"], "secret": "", "of": ""}
    assert submitting.found(lab) == ()


def test_no_note_has_a_flag(lab: Running) -> None:
    known = lab.secrets()
    submitting.submit(lab, known["root"])
    texts = [path.read_text(errors="replace") for path in lab.folder.path.rglob("*") if path.is_file()]
    assert texts
    assert not any(known["root"] in text for text in texts)


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_is_no_flag(lab: Running, text: str) -> None:
    with pytest.raises(UsageError, match="nothing was handed in"):
        submitting.submit(lab, text)


def test_a_lab_without_flags_takes_none(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("secrets: {port: {kind: port}}\n" + LAB.replace("a: {", "a: {secrets: [port], "))
    converge.up(locate.draft(tmp_path, provider="fake"))
    with pytest.raises(UsageError, match="no flags to hand in"):
        submitting.submit(locate.find(tmp_path), "20000")


def test_points_of_flags_are_in_the_score(lab: Running) -> None:
    submitting.submit(lab, lab.secrets()["root"])
    found = scoring.score(lab, Choice())
    assert (found.earned, found.possible) == (5, 7)
    assert [(c.id, c.verdict) for c in found.checks] == [("secrets/root", Verdict.PASS), ("secrets/mail", Verdict.FAIL)]


def test_what_was_right_counts_no_more_when_the_flags_are_others(lab: Running) -> None:
    submitting.submit(lab, lab.secrets()["root"])
    lab.folder.write_record(replace(lab.record, seed="another"))
    assert submitting.found(locate.running(lab.folder)) == ()


def test_a_reset_takes_nothing_back(lab: Running) -> None:
    checkpoint.save(lab, fresh.NAME)
    submitting.submit(lab, lab.secrets()["root"])
    fresh.reset(lab)
    assert submitting.found(locate.running(lab.folder)) == ("root",)


def test_torn_and_strange_lines_are_passed_over(lab: Running) -> None:
    submitting.submit(lab, lab.secrets()["root"])
    lab.folder.submissions.write_text(notes(lab) + '[]\n{"secret": 1}\n{"secret": "mail"}\n{"secret": "ma')
    assert submitting.found(lab) == ("root",)


def test_a_neighbours_flag_is_wrong_and_noted_for_the_teacher(room: Room) -> None:
    room.write(lab=SPEC)
    room.up()
    one, two, three = (locate.find(room.folder / "lab", instance=name) for name in ("s01", "s02", "s03"))
    assert submitting.submit(one, two.secrets()["root"]).secret == ""
    assert submitting.submit(one, one.secrets()["root"]).secret == "root"
    submitting.submit(three, "FLAG{x}")
    assert submitting.borrowed(one) == scoring.score(one, Choice()).borrowed == ("s02",)
    assert submitting.borrowed(three) == ()


def elsewhere(lab: Running, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Running]:
    """The lab, brought to another computer by a file. Gives the file and what has come of it."""
    checkpoint.save(lab, "clean")
    draft = locate.draft(Path(lab.record.spec_file))
    file = export.export(lab, draft, "clean", lab.root.parent / "x.labz").bundle.file
    place = lab.root.parent / "there"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("LABCTL_STATE_DIR", str(place / "state"))
    bring(file, Options("default"))
    return file, locate.find(place / "two")


def test_a_copy_without_the_answers_knows_right_from_wrong(lab: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    known = lab.secrets()
    file, there = elsewhere(lab, monkeypatch)
    with pytest.raises(UsageError, match="are not known here"):
        there.secrets()
    assert converge.up(locate.draft(there.root)).unchanged
    there = locate.running(there.folder)
    assert submitting.submit(there, known["mail"]).secret == "mail"
    assert submitting.submit(there, "ACME{x}").secret == ""
    assert submitting.submit(there, known["word"]).secret == ""
    assert submitting.found(there) == ("mail",)
    table = Forgery.of(file).table
    assert (table["version"], sorted(table["checkpoints"][0]["proofs"])) == (3, ["mail", "root"])
    texts = [json.dumps(table), *(path.read_text(errors="replace") for path in there.folder.path.rglob("*.json*"))]
    assert not [name for name in ("root", "mail") if any(known[name] in text for text in texts)]
