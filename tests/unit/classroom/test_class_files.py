"""Class files and rosters: what teachers write, in whatever tool and script, and what they are told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from labctl.errors import UsageError
from labctl.spec import classfile, schema
from labctl.spec.classfile import load
from labctl.spec.hours import Hours, Period
from labctl.spec.problems import Problem, SpecError
from tests.support.classes import Room

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVyZ2VudGx5LW5lZWRzLWEta2V5LWZvci1sYWJz ada@desk"
SCHEMA = json.loads(classfile.schema_text())


def problems(room: Room) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        load(room.folder)
    return caught.value.problems


def roster(room: Room, content: str | bytes, name: str = "students.csv") -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (room.folder / name).write_bytes(data)
    room.write(roster=name)


def people(room: Room) -> list[tuple[str, str]]:
    return [(seat.instance, seat.students[0].name) for seat in load(room.folder).seats]


def test_a_class_has_a_seat_for_each_student_in_the_order_of_the_roster(room: Room) -> None:
    room.write(roster="[s02, {id: s01, name: Ada}]")
    spec = load(room.folder)
    assert [(seat.instance, seat.people) for seat in spec.seats] == [("s02", "s02"), ("s01", "Ada")]
    assert spec.lab == room.folder / "lab" / "lab.yaml"
    assert spec == load(room.folder / "class.yaml")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_spreadsheet_may_write_its_roster_as_it_likes(room: Room, delimiter: str, end: str, mark: bytes) -> None:
    rows = ["ID, Name", "s01,Ada Lovelace", "", ",", 's02,"de Groot; Wim, jr"', "   ", "s03,"]
    text = end.join(
        row.replace(",", delimiter) if '"' not in row else row.replace("s02,", f"s02{delimiter}") for row in rows
    )
    roster(room, mark + text.encode())
    assert people(room) == [("s01", "Ada Lovelace"), ("s02", "de Groot; Wim, jr"), ("s03", "")]


@pytest.mark.parametrize(
    "name",
    ["Zoë O’Connor-Łukasiewicz", "D'Angelo", "李小龙", "Παπαδόπουλος", "علی‌رضا", "X", "<b>&amp;", "$(reboot)", "`id`"],
)
def test_names_are_for_people_in_any_script(room: Room, name: str) -> None:
    roster(room, f'id,name\ns01,"{name}"\n')
    assert people(room) == [("s01", name)]


def test_a_name_has_one_form_however_its_accents_were_typed(room: Room) -> None:
    roster(room, "id,name\ns01,Zoe\u0308\n")
    assert people(room) == [("s01", "Zoë")]


@pytest.mark.parametrize("name", ["a\u202eb", "a\u2066b", "a\x1b[2Jb", '"a\nb"'])
def test_a_name_that_would_steer_a_terminal_is_refused(room: Room, name: str) -> None:
    roster(room, f"id,name\ns01,{name}\n")
    assert problems(room)[0].line == 2


@pytest.mark.parametrize("name", ["../../x", "a/b", "S01", "1a", "a b", "a_b", "", ".", "é", "a" * 41, "-a", "a-", "*"])
def test_an_id_that_cannot_name_an_instance_is_refused_where_it_stands(room: Room, name: str) -> None:
    roster(room, f"id,name\ns01,Ada\n{name},Bob\n")
    (problem,) = problems(room)
    assert (problem.line, problem.column) == (3, 1)
    assert "is not an id" in problem.message
    assert problem.file == room.folder / "students.csv"


def test_an_id_in_capitals_is_answered_with_the_small_one(room: Room) -> None:
    roster(room, "id\nS01\n")
    assert problems(room)[0].nearest == "s01"


def test_equal_ids_are_refused_with_both_lines(room: Room) -> None:
    roster(room, "id,name\ns01,Ada\n\ns02,Bob\ns01,Eve\n")
    (problem,) = problems(room)
    assert (problem.line, problem.message) == (5, 'the id "s01" is there twice; the first is in line 2')
    roster(room, "- s01\n- {id: s02}\n- {name: Eve, id: s01}\n", "students.yaml")
    (problem,) = problems(room)
    assert (problem.line, problem.message) == (3, 'the id "s01" is there twice; the first is in line 1')


def test_the_line_of_a_problem_is_right_after_a_cell_with_line_breaks(room: Room) -> None:
    roster(room, 'id,x-note,name\ns01,"two\nlines",Ada\nS02,,Bob\n')
    (problem,) = problems(room)
    assert (problem.line, problem.source_line) == (4, "S02,,Bob")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,naem\ns01,Ada\n", 'unknown column "naem"'),
        ("name\nAda\n", 'there is no column "id"'),
        ("id,id\ns01,s02\n", 'the column "id" is there twice'),
        ("id,name\ns01,Lovelace,Ada\n", "3 values in 2 columns"),
        ('id,name\ns01,"Ada\n', "this is not a CSV file"),
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("id\n", "this is empty"),
        (b"id,name\ns01,Zo\xeb\n", "this is not UTF-8 text"),
        (b"PK\x03\x04\0\0", "this is a binary file"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_said(room: Room, text: str | bytes, said: str) -> None:
    roster(room, text)
    assert said in problems(room)[0].message


def test_columns_of_other_tools_are_passed_over_where_they_say_so(room: Room) -> None:
    roster(room, "x-mail,id\na@b.example,s01\n")
    assert people(room) == [("s01", "")]


def test_five_hundred_students_are_read(room: Room) -> None:
    roster(room, "id,name\n" + "".join(f"s{number},Student {number}\n" for number in range(500)))
    assert len(load(room.folder).seats) == 500


@pytest.mark.parametrize("name", ["../students.csv", "/etc/passwd.csv", "a/../../b.csv"])
def test_a_roster_outside_the_class_folder_is_refused(room: Room, name: str) -> None:
    (room.folder.parent / "students.csv").write_text("id\ns01\n")
    room.write(roster=name)
    assert problems(room)[0].path == "roster"


def test_a_link_does_not_lead_to_a_roster_outside_either(room: Room) -> None:
    (room.folder.parent / "outside.csv").write_text("id\ns01\n")
    (room.folder / "students.csv").symlink_to(room.folder.parent / "outside.csv")
    room.write(roster="students.csv")
    assert "leads out of the class's folder" in problems(room)[0].message


def test_a_roster_that_is_missing_is_said_at_its_name(room: Room) -> None:
    room.write(roster="nobody.csv")
    (problem,) = problems(room)
    assert (problem.line, problem.message) == (4, "the roster nobody.csv is missing")


def test_a_team_has_one_instance_where_its_first_student_stands(room: Room) -> None:
    room.write("groups: {team-a: [s03, s02]}\n")
    assert [(seat.instance, [s.id for s in seat.students]) for seat in load(room.folder).seats] == [
        ("s01", ["s01"]),
        ("team-a", ["s02", "s03"]),
    ]


@pytest.mark.parametrize(
    ("groups", "said", "meant"),
    [
        ("{team: [s01, s022]}", '"s022" is not on the roster', "s02"),
        ("{team: [s01], other: [s01]}", '"s01" is in team already', ""),
        ("{s01: [s02]}", '"s01" is a student\'s id', ""),
        ("{team: []}", "this is empty", ""),
        ("{team: [s01, s01]}", '"s01" is there twice', ""),
        ("{Team A: [s01]}", '"Team A" is not an id', "team-a"),
    ],
)
def test_what_is_wrong_with_teams_is_said_where_it_stands(room: Room, groups: str, said: str, meant: str) -> None:
    room.write(f"groups: {groups}\n")
    (problem,) = problems(room)
    assert said in problem.message
    assert problem.nearest == meant
    assert problem.line == 5


def test_keys_need_a_login_to_open_anything(room: Room) -> None:
    room.write(roster=f"[s01, {{id: s02, key: {KEY}}}]")
    assert "nothing says where they let anybody in" in problems(room)[0].message
    room.write("login: {machines: [a]}\n", roster=f"[s01, {{id: s02, key: {KEY}}}]")
    spec = load(room.folder)
    assert spec.admission(spec.seats[0]) is None
    admitted = spec.admission(spec.seats[1])
    assert admitted is not None
    assert (admitted.machines, admitted.user, admitted.sudo, admitted.keys) == (("a",), "student", False, (KEY,))


def test_limits_are_read_with_their_units(room: Room) -> None:
    room.write("limits: {instances: 3, memory: 2 GiB}\n")
    assert (load(room.folder).limits.instances, load(room.folder).limits.memory) == (3, 2 << 30)
    room.write("limits: {memory: 2048}\n")
    assert problems(room)[0].nearest == "2048 MiB"


@pytest.mark.parametrize(("written", "seconds"), [("90 min", 5400), ("2 h", 7200), ("45min", 2700), ("1h", 3600)])
def test_idle_times_are_read_with_their_units(room: Room, written: str, seconds: int) -> None:
    room.write(f"limits: {{idle: {written}}}\n")
    assert load(room.folder).limits.idle == seconds


HOURS = "hours: {timezone: Europe/Berlin, open: [{days: [mon, wed], from: 08:00, to: 18:00}]}\n"


def test_opening_hours_are_read(room: Room) -> None:
    room.write(HOURS)
    found = load(room.folder).hours
    assert found == Hours((Period((0, 2), 480, 1080),), "Europe/Berlin")
    room.write("hours: {open: [{days: [sun], from: 22:00, to: 24:00}, {days: [sat], from: '22:00', to: '06:00'}]}\n")
    found = load(room.folder).hours
    assert found == Hours((Period((6,), 1320, 1440), Period((5,), 1320, 1800)))
    room.write()
    assert load(room.folder).hours is None


@pytest.mark.parametrize(
    ("of", "to", "said", "meant"),
    [
        ("Europe/Berlin", "Europe/Berlni", 'this host knows no time zone "Europe/Berlni"', "Europe/Berlin"),
        ("Europe/Berlin", "../../etc/passwd", '"../../etc/passwd" is not', ""),
        ("18:00", "08:00", "there is no time from 08:00 to 08:00", ""),
        ("18:00", "18", "expected text", ""),
        ("18:00", "24:01", '"24:01" is not', ""),
        ("08:00", "24:00", '"24:00" is not', ""),
        ("08:00", "8:00", '"8:00" is not', ""),
        ("[mon, wed]", "[monday]", '"monday" is not one of the choices', "mon"),
        ("[mon, wed]", "[mon, mon]", '"mon" is there twice', ""),
        ("[mon, wed]", "[]", "this is empty", ""),
        ("open:", "opn:", 'unknown key "opn"', "open"),
    ],
)
def test_what_is_wrong_with_opening_hours_is_said(room: Room, of: str, to: str, said: str, meant: str) -> None:
    room.write(HOURS.replace(of, to))
    found = problems(room)
    assert any(said in problem.message and problem.nearest == meant for problem in found), found
    assert {problem.line for problem in found} == {5}


def test_an_unknown_key_is_answered_with_the_nearest(room: Room) -> None:
    room.write("limts: {instances: 3}\n")
    assert problems(room)[0].nearest == "limits"


def test_an_empty_class_file_does_not_speak_of_labs(room: Room) -> None:
    (room.folder / "class.yaml").write_text("")
    assert "init" not in problems(room)[0].render()


def test_a_folder_without_a_class_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no class\.yaml"):
        load(tmp_path)


def nodes(node: Any, where: str = "#") -> list[tuple[str, dict[str, Any]]]:
    found = [(where, node)]
    for group in ("properties", "patternProperties", "$defs"):
        for name, below in node.get(group, {}).items():
            found += nodes(below, f"{where}/{group}/{name}")
    for group in ("items", "propertyNames", "additionalProperties"):
        if isinstance(node.get(group), dict):
            found += nodes(node[group], f"{where}/{group}")
    return found


FIELDS = {where: node for where, node in nodes(SCHEMA) if re.search(r"/(properties|\$defs)/[^/]+$", where)}


@pytest.mark.parametrize("where", FIELDS)
def test_an_editor_can_explain_every_field_of_a_class_file(where: str) -> None:
    node = FIELDS[where]
    assert node["title"]
    assert node["description"].endswith(".")
    judge = jsonschema.Draft202012Validator({**node, "$defs": SCHEMA["$defs"]})
    for example in node["examples"]:
        assert list(schema.findings(example, {**node, "$defs": SCHEMA["$defs"]})) == []
        assert judge.is_valid(example)


def test_every_mapping_of_a_class_file_refuses_unknown_keys() -> None:
    for where, node in nodes(SCHEMA):
        if "properties" in node:
            assert node["additionalProperties"] is False, where
