"""The door for students: the lines for sshd, the file that they stand in, and what may be asked for."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from labctl.errors import HostError, LabctlError, UsageError
from labctl.lifecycle import converge, locate
from labctl.lifecycle.classroom import door, keys_file, verbs
from tests.support.classes import LAB, Room

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVyZ2VudGx5LW5lZWRzLWEta2V5LWZvci1sYWJz"
OTHER = KEY.replace("VyZ2", "VyZ3")
TEACHERS = b'ssh-rsa AAAA teacher\xe9\n# a note\nfrom="192.0.2.0/24" ssh-rsa BBBB second'


@pytest.fixture
def keyed(room: Room) -> Room:
    students = f"[{{id: s01, key: '{KEY} ada@desk\"'}}, {{id: s02, key: {OTHER}}}, s03]"
    room.write("login: {machines: [a]}\n", roster=students)
    return room


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "home" / ".ssh" / "authorized_keys"
    found.parent.mkdir(parents=True)
    found.write_bytes(TEACHERS)
    return found


def taken(line: str) -> tuple[list[str], str]:
    """A line as sshd and the account's shell take it: the words of the command, and the key. See auth-options.c."""
    found = re.fullmatch(r'restrict,command="((?:\\"|[^"])*)" (.*)', line)
    assert found is not None
    return shlex.split(found[1].replace('\\"', '"')), found[2]


def test_each_key_has_a_line_that_names_its_own_instance(keyed: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_STATE_DIR", '/srv/it\'s "here" \\')
    monkeypatch.setattr(sys, "executable", '/opt/a "b" $(c)\\"/python')
    argv, key = taken(door.lines(keyed.spec)[0])
    python = ['/opt/a "b" $(c)\\"/python', "-P", "-m", "labctl"]
    state = ["env", 'LABCTL_STATE_DIR=/srv/it\'s "here" \\']
    assert argv == [*state, *python, "class", "enter", "monday", "two", "s01"]
    assert key == f"{KEY} monday/s01"
    assert [taken(line)[0][-1] for line in door.lines(keyed.spec)] == ["s01", "s02"]


def test_a_path_that_would_end_the_line_is_refused(keyed: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/a\nb/python")
    with pytest.raises(UsageError, match="no line of authorized_keys"):
        door.lines(keyed.spec)


def test_a_key_of_two_opens_their_teams_instance_or_is_refused(keyed: Room) -> None:
    students = f"[{{id: s01, key: {KEY} one}}, {{id: s02, key: {KEY} two}}]"
    keyed.write("login: {machines: [a]}\n", roster=students)
    with pytest.raises(UsageError, match="s01 and s02 have the same key"):
        door.lines(keyed.spec)
    keyed.write("login: {machines: [a]}\ngroups: {team: [s01, s02]}\n", roster=students)
    (line,) = door.lines(keyed.spec)
    assert taken(line)[0][-1] == "team"


def test_a_class_without_login_has_no_door(room: Room) -> None:
    with pytest.raises(UsageError, match="lets no student in"):
        door.lines(room.spec)


def test_the_lines_of_others_stay_as_they_are(file: Path) -> None:
    file.chmod(0o640)
    keys_file.put("monday", ["one"], file)
    keys_file.put("tuesday", ["two"], file)
    keys_file.put("monday", ["three", "four"], file)
    assert file.read_bytes().startswith(TEACHERS + b"\n# begin: students of the class monday")
    lines = file.read_text(errors="replace").splitlines()
    assert lines.index("three") == lines.index("four") - 1 < lines.index("two")
    assert "one" not in lines
    assert file.stat().st_mode & 0o777 == 0o640
    keys_file.remove("monday", file)
    keys_file.remove("tuesday", file)
    assert file.read_bytes() == TEACHERS + b"\n"
    assert (keys_file.where("monday"), keys_file.where("tuesday")) == (None, None)


def test_a_file_that_is_not_there_is_made_for_this_account_alone(tmp_path: Path) -> None:
    file = tmp_path / ".ssh" / "authorized_keys"
    keys_file.remove("monday", file)
    assert not file.exists()
    keys_file.put("monday", ["one"], file)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_lines_that_go_to_another_file_do_not_stay_in_the_first(file: Path, tmp_path: Path) -> None:
    keys_file.put("monday", ["one"], file)
    keys_file.put("monday", ["one"], tmp_path / "other")
    assert file.read_bytes() == TEACHERS + b"\n"
    assert keys_file.where("monday") == tmp_path / "other"
    keys_file.remove("monday", file)  # there are none: the others are renewed all the same
    assert keys_file.where("monday") == tmp_path / "other"


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    keys_file.put("monday", ["one"], link)
    assert link.is_symlink()
    assert "one" in file.read_text(errors="replace").splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "# begin: students of the class monday, written by labctl\nmine\n",
        "mine\n# end: students of the class monday\n",
        "# end: students of the class monday\nmine\n# begin: students of the class monday, written by labctl\n",
        2 * "# begin: students of the class monday, written by labctl\n# end: students of the class monday\n",
    ],
)
def test_marks_that_somebody_has_broken_are_not_guessed_at(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(HostError, match="not one beginning and one end"):
        keys_file.put("monday", ["one"], file)
    assert file.read_text() == text


def test_class_up_renews_the_lines_where_they_were_put(keyed: Room, file: Path) -> None:
    keyed.up()
    assert file.read_bytes() == TEACHERS
    keys_file.put("monday", door.lines(keyed.spec), file)
    keyed.write("login: {machines: [a]}\n", roster=f"[{{id: s04, key: {OTHER}}}]")
    keyed.up()
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.startswith("restrict")]
    assert [taken(line)[0][-1] for line in lines] == ["s04"]
    keyed.write(roster="[s04]")
    keyed.up()
    assert "restrict" not in file.read_text(errors="replace")


def test_a_file_that_cannot_be_renewed_keeps_nobody_down(keyed: Room, file: Path) -> None:
    keys_file.put("monday", [], file)
    file.write_text("# end: students of the class monday\n")
    assert {result.error for result in keyed.up().values()} == {None}
    assert [event.step for event in keyed.events if event.status == "warning"] == ["authorized-keys"]


def test_what_login_names_is_reached_and_nothing_else(keyed: Room) -> None:
    keyed.up()
    wanted = door.asked("monday", "two", "s01", "connect a")
    assert (wanted.lab.plan.instance, wanted.machine) == ("s01", "a")
    for said in ("connect b", "connect c", "connect", "", "a", "connect a b", "connect a;id", "id", "x" * 9999):
        with pytest.raises(UsageError):
            door.asked("monday", "two", "s01", said)


def test_an_entry_with_several_machines_lets_in_to_each(keyed: Room) -> None:
    lab = LAB.replace("a: {", "a: {count: 2, ")
    keyed.write("login: {machines: [a]}\n", roster=f"[{{id: s01, key: {KEY}}}]", lab=lab)
    keyed.up()
    assert door.asked("monday", "two", "s01", "connect a-2").machine == "a-2"


@pytest.mark.parametrize("instance", ["s03", "s09", "mine", "default"])
def test_an_instance_that_is_not_the_classs_or_lets_nobody_in_has_no_door(keyed: Room, instance: str) -> None:
    keyed.up()
    converge.up(locate.draft(keyed.folder / "lab", instance="mine", provider="fake"))
    with pytest.raises(UsageError, match="is not there"):
        door.asked("monday", "two", instance, "connect a")


def test_another_class_of_the_same_lab_has_no_way_to_it(keyed: Room) -> None:
    keyed.up()
    with pytest.raises(UsageError, match="is not there"):
        door.asked("tuesday", "two", "s01", "connect a")


def test_a_machine_that_is_down_does_not_answer(keyed: Room) -> None:
    keyed.up()
    verbs.down(keyed.chosen("s01"), jobs=1)
    with pytest.raises(LabctlError, match="a does not answer"):
        door.connect(door.asked("monday", "two", "s01", "connect a").lab, "a")


def test_a_flag_is_taken_as_it_is_said(keyed: Room) -> None:
    keyed.up()
    for said, flag in (("submit", None), ("submit FLAG{x}", "FLAG{x}"), ("submit  a b ", "a b")):
        wanted = door.asked("monday", "two", "s02", said)
        assert (wanted.lab.plan.instance, wanted.machine, wanted.flag) == ("s02", "", flag)
