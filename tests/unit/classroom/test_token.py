"""A lab on a student's own computer: their own secrets out of a token, and nothing of them kept but proofs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.host.words import command_line
from labctl.lifecycle import checkpoint, converge, export, fresh, locate, submitting, teardown, token
from labctl.lifecycle.arrival import Options, bring
from labctl.lifecycle.classroom import answers, luggage
from labctl.lifecycle.locate import Draft
from labctl.lifecycle.manifest import Manifest
from labctl.providers.base import Job
from labctl.providers.fake.provider import FakeProvider
from labctl.spec.load import load
from tests.support.classes import LAB, Room
from tests.support.forge import Forgery

pytestmark = pytest.mark.unit

SECRETS = "secrets: {root: {kind: flag, points: 5}, word: {kind: choice, of: [dragon, letmein]}}\n"
SPEC = SECRETS + LAB.replace("a: {", "a: {secrets: [root, word], provision: [{shell: 'true'}], ")


@pytest.fixture(autouse=True)
def _notes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_PROVIDER", "fake")


@pytest.fixture
def course(room: Room) -> Room:
    room.write(lab=SPEC)
    return room


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What machines were told at each ``up`` that changed any."""
    usual, found = FakeProvider.up, list[dict[str, str]]()

    def up(self: FakeProvider, job: Job) -> None:
        found.append(dict(job.secrets))
        usual(self, job)

    monkeypatch.setattr(FakeProvider, "up", up)
    return found


def pack(course: Room) -> Path:
    return luggage.pack(course.spec, course.folder / "monday.labz").file


def tokens(course: Room) -> dict[str, str]:
    lab = load(course.spec.lab)
    return {seat.instance: luggage.token_of(course.spec, lab, seat) for seat in course.spec.seats}


def known(course: Room) -> dict[str, dict[str, str]]:
    """The teacher's answers."""
    return {name: dict(secrets) for name, secrets in answers.sheet(course.spec, course.chosen())}


def arrive(file: Path, monkeypatch: pytest.MonkeyPatch, name: str = "laptop") -> Path:
    """The lab's folder on another computer."""
    place = file.parent / name
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("LABCTL_STATE_DIR", str(place / "state"))
    return place / bring(file, Options("default")).folder


def up(folder: Path, typed: str | None = None) -> dict[str, str]:
    draft = locate.draft(folder)
    outcome = converge.up(token.entered(draft, typed) if typed else draft)
    return {change.machine: change.action for change in outcome.changes}


def everything(folder: Path) -> str:
    files = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return "\n".join(path.read_text(errors="replace") for path in files)


def test_a_student_gets_their_own_secrets_and_no_file_keeps_them(
    course: Room, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, str]]
) -> None:
    file, mine, all_of_them = pack(course), tokens(course)["s02"], known(course)
    folder = arrive(file, monkeypatch)
    assert token.wanted(locate.draft(folder))
    assert up(folder, mine) == {"a": "create", "b": "create"}
    assert told == [all_of_them["s02"]]
    lab = locate.find(folder)
    text = everything(folder.parent)
    for value in (all_of_them["s02"]["root"], mine.replace("-", "")[:20], mine):
        assert value not in text
    with pytest.raises(UsageError, match="not known here") as caught:
        lab.secrets()
    assert "The teacher has them" in caught.value.hint
    assert submitting.submit(lab, all_of_them["s02"]["root"]).secret == "root"
    assert submitting.submit(lab, all_of_them["s01"]["root"]).secret == ""


def test_the_file_has_nobodys_answers_and_not_what_is_the_teachers(course: Room) -> None:
    (course.folder / "lab/teacher").mkdir()
    (course.folder / "lab/teacher/solve.sh").write_text("solution")
    (course.folder / "lab/checks").mkdir()
    (course.folder / "lab/checks/teacher").write_text("a check")
    file = pack(course)
    found = Forgery.of(file)
    assert (found.table["version"], found.table["class"]) == (3, "monday")
    assert [entry["path"] for entry in found.table["files"]] == ["checks/teacher", "lab.lock.yaml", "lab.yaml"]
    whole = json.dumps(found.table).encode() + b"".join(content for _, content in found.members)
    key = course.folder / "class.key"
    secrets = [*tokens(course).values(), *(one["root"] for one in known(course).values()), key.read_text().strip()]
    assert not [value for value in secrets if value.encode() in whole]


@pytest.mark.parametrize("where", ["class.yaml", "students.csv"])
def test_a_class_whose_own_files_are_in_the_labs_folder_is_not_handed_out(course: Room, where: str) -> None:
    lab = course.folder / "lab"
    if where == "class.yaml":
        (lab / "class.yaml").write_text("version: 1\nname: monday\nlab: .\nroster: [s01]\n")
        course.folder = lab
    else:
        (lab / "students.csv").write_text("id\ns01\n")
        course.write(roster="lab/students.csv", lab=SPEC)
    with pytest.raises(UsageError, match=f"{where} lies in the lab's folder"):
        pack(course)


def test_once_it_is_up_no_token_is_asked_for(
    course: Room, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, str]]
) -> None:
    mine = tokens(course)["s01"]
    folder = arrive(pack(course), monkeypatch)
    up(folder, mine)
    checkpoint.save(locate.find(folder), fresh.NAME)
    for change in (lambda: None, lambda: teardown.down(locate.find(folder)), lambda: fresh.reset(locate.find(folder))):
        change()
        assert not token.wanted(locate.draft(folder))
        assert set(up(folder).values()) == {"keep"}
    assert all(one == {} for one in told[1:])
    assert set(up(folder, mine).values()) == {"keep"}


def test_machines_that_are_made_anew_want_it_again(
    course: Room, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, str]]
) -> None:
    mine, root = tokens(course)["s01"], known(course)["s01"]["root"]
    folder = arrive(pack(course), monkeypatch)
    up(folder, mine)
    (folder / "lab.yaml").write_text(SPEC.replace("shell: 'true'", "shell: 'false'"))
    assert token.wanted(locate.draft(folder))
    with pytest.raises(UsageError, match="a would have to be told secrets again"):
        up(folder)
    assert len(told) == 1
    assert up(folder, mine)["a"] == "provision"
    assert told[1]["root"] == root
    assert root not in everything(folder.parent)


@pytest.mark.parametrize(("of", "to"), [("kind: flag,", "kind: flag, prefix: ACME,"), ("dragon", "monkey")])
def test_secrets_that_are_made_otherwise_want_it_again(
    course: Room, monkeypatch: pytest.MonkeyPatch, of: str, to: str
) -> None:
    mine = tokens(course)["s01"]
    folder = arrive(pack(course), monkeypatch)
    up(folder, mine)
    (folder / "lab.yaml").write_text(SPEC.replace(of, to))
    assert token.wanted(locate.draft(folder))
    (folder / "lab.yaml").write_text(SPEC.replace("points: 5", "points: 6"))
    assert not token.wanted(locate.draft(folder))


def test_what_is_wrong_with_a_token_is_said(course: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    all_tokens = tokens(course)
    folder = arrive(pack(course), monkeypatch)
    for typed in ("", "abc", all_tokens["s01"][:-1] + "?"):
        with pytest.raises(UsageError, match="no token for two"):
            token.entered(locate.draft(folder), typed)
    up(folder, all_tokens["s01"])
    (folder / "lab.yaml").write_text(SPEC.replace("shell: 'true'", "shell: 'false'"))
    with pytest.raises(UsageError, match="of somebody else"):
        up(folder, all_tokens["s02"])


def test_an_interrupted_up_goes_on_without_the_token_and_then_forgets_it(
    course: Room, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, str]]
) -> None:
    mine, root = tokens(course)["s01"], known(course)["s01"]
    folder = arrive(pack(course), monkeypatch)
    usual = FakeProvider.up

    def die(self: FakeProvider, job: Job) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(FakeProvider, "up", die)
        with pytest.raises(KeyboardInterrupt):
            up(folder, mine)
    assert FakeProvider.up is usual
    assert not token.wanted(locate.draft(folder))
    up(folder)
    assert told == [root]
    record = locate.find(folder).record
    assert (record.seed, record.forgets, list(record.proofs)) == ("", True, ["root"])


def test_a_lab_that_came_for_no_class_has_secrets_of_its_own(course: Room) -> None:
    draft = locate.draft(course.folder / "lab")
    assert not token.wanted(draft)
    converge.up(draft)
    assert locate.find(course.folder / "lab").secrets()["root"].startswith("FLAG{")
    assert not token.wanted(locate.draft(course.folder / "lab"))


def test_a_lab_without_secrets_wants_no_token(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(room)
    assert set(tokens(room).values()) == {""}
    assert not (room.folder / "class.key").exists()
    assert not token.wanted(locate.draft(arrive(file, monkeypatch)))


def test_a_checkpoint_of_it_can_be_exported(course: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, root = tokens(course)["s01"], known(course)["s01"]["root"]
    folder = arrive(pack(course), monkeypatch)
    up(folder, mine)
    checkpoint.save(locate.find(folder), "clean")
    file = export.export(locate.find(folder), locate.draft(folder), "clean", folder.parent / "x.labz").bundle.file
    there = arrive(file, monkeypatch, "elsewhere")
    assert submitting.submit(locate.find(there), root).secret == "root"


def test_a_file_cannot_bring_the_mark_of_a_class_by_itself(course: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the table of contents says that: its form is checked."""
    found = Forgery.of(pack(course))
    del found.table["class"]
    found.table["version"] = 1
    folder = arrive(found.write(course.folder / "x.labz"), monkeypatch)
    assert not (folder / ".for-class").exists()


@pytest.mark.parametrize("value", ["", "../x", "Monday", 1, None, "a" * 64])
def test_a_class_that_has_no_name_is_refused(course: Room, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    found = Forgery.of(pack(course))
    found.table["class"] = value
    with pytest.raises(Exception, match="this bundle cannot be used"):
        arrive(found.write(course.folder / "x.labz"), monkeypatch)


def test_a_draft_and_a_manifest_of_before_have_no_class() -> None:
    assert Manifest("a", "qemu", (), ()).of_class == ""
    assert not Draft.__dataclass_fields__["forgets"].default
    assert replace(Manifest("a", "qemu", (), ()), of_class="b").version == 3


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["up", "x.labz", "--token", "abcd"], "up x.labz --token …"),
        (["up", "--token=abcd", "x.labz"], "up --token=… x.labz"),
        (["submit", "lab", "--instance", "s01", "FLAG{x}"], "submit … --instance … …"),
        (["verify", "lab"], "verify lab"),
    ],
)
def test_a_command_line_in_a_file_has_no_secret(words: list[str], kept: str) -> None:
    assert " ".join(command_line(words)) == kept
