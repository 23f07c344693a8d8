"""Class files: one lab, a roster, and what the class may take. Read as strictly as a lab file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from labctl import resources
from labctl.errors import UsageError
from labctl.spec import hours, roster, schema, source, values
from labctl.spec.admission import Admission
from labctl.spec.files import lab_file
from labctl.spec.hours import Hours
from labctl.spec.load import stop_at
from labctl.spec.nodes import plain
from labctl.spec.problems import MAX_PROBLEMS, Finding, SpecError, nearest, quoted
from labctl.spec.roster import Sheet, Student

FILE_NAME = "class.yaml"
SCHEMA_FILE = "schemas/class.schema.json"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a class may take at once; None for no limit. memory in bytes. idle: seconds without anybody logged in."""

    instances: int | None = None
    memory: int | None = None
    idle: int | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """An instance of the lab and who has it. instance: a student's id, or the name of a team."""

    instance: str
    students: tuple[Student, ...]

    @property
    def people(self) -> str:
        """Who sits there, for people: names, or ids where there are none."""
        return ", ".join(student.name or student.id for student in self.students)


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """One class file. lab: the lab's file, absolute; it need not exist. seats: in the order of the roster. login: where
    keys of the roster are let in; it has none itself. hours: when it is open, None for always. roster: its
    file, None where it stands in the class file.
    """

    file: Path
    name: str
    lab: Path
    seats: tuple[Seat, ...]
    description: str = ""
    limits: Limits = field(default_factory=Limits)
    login: Admission | None = None
    hours: Hours | None = None
    roster: Path | None = None

    def admission(self, seat: Seat) -> Admission | None:
        """What lets the students of a seat into their instance; None where none of them has a key."""
        keys = tuple(dict.fromkeys(student.key for student in seat.students if student.key))
        return replace(self.login, keys=keys) if self.login is not None and keys else None


def class_file(target: Path) -> Path:
    """The class file that a CLASS argument (a folder or a file) means; it need not exist."""
    return (target / FILE_NAME if target.is_dir() else target).absolute()


def load(target: Path) -> ClassSpec:
    """Read a class file, or the ``class.yaml`` of a folder, and its roster.

    Raises SpecError with all problems of the first phase that found any: YAML, schema, the roster's own file, rules.
    """
    file = class_file(target)
    if target.is_dir() and not file.exists():
        raise UsageError(f"there is no {FILE_NAME} in {target}", hint="It names a lab and a roster; see the README.")
    document = source.read(file, "class")
    data = plain(document.root)
    stop_at(document, schema.findings(data, _schema()), document.root)
    stop_at(document, schema.refusals(data, _schema()), document.root)
    sheet = _sheet(document, data["roster"])
    students = roster.students(sheet)
    stop_at(document, _rules(data, students), document.root)
    return ClassSpec(
        file,
        data["name"],
        _lab(file, data["lab"]),
        _seats(students, data.get("groups", {})),
        data.get("description", ""),
        _limits(data.get("limits", {})),
        _login(data.get("login")),
        Hours.of(data["hours"]) if "hours" in data else None,
        file.parent / data["roster"] if isinstance(data["roster"], str) else None,
    )


def schema_text() -> str:
    """The JSON Schema of class files, as it ships."""
    return resources.text(SCHEMA_FILE)


@cache
def _schema() -> schema.Schema:
    known: schema.Schema = json.loads(schema_text())
    return known


def _sheet(document: source.Document, written: Any) -> Sheet:
    """The roster, checked by itself: its form, then that no id is there twice."""
    if isinstance(written, str):
        try:
            sheet = roster.read(lab_file(document.file.parent, written))
        except UsageError as error:
            hint = "" if "missing" in error.brief else error.hint
            said = error.brief.replace("the lab's file", "the roster").replace("the lab's folder", "the class's folder")
            problem = document.place(Finding(("roster",), said, hint=hint), document.root)
            raise SpecError([problem]) from error
    else:
        sheet = roster.inline(document)
    form = {"$ref": "#/$defs/students", "$defs": _schema()["$defs"]}
    for findings in (schema.findings(sheet.rows, form), schema.refusals(sheet.rows, form)):
        _stop_sheet(sheet, findings)
    _stop_sheet(sheet, roster.twice(sheet))
    return sheet


def _stop_sheet(sheet: Sheet, findings: Iterator[Finding]) -> None:
    if problems := [sheet.place(finding) for finding in islice(findings, MAX_PROBLEMS)]:
        raise SpecError(problems)


def _rules(data: Mapping[str, Any], students: tuple[Student, ...]) -> Iterator[Finding]:
    """What a schema cannot say of teams and keys."""
    ids = {student.id for student in students}
    team_of: dict[str, str] = {}
    for team, members in data.get("groups", {}).items():
        if team in ids:
            said = f"{quoted(team)} is a student's id, and both would name an instance"
            yield Finding(("groups", team), said, on_key=True)
        for index, member in enumerate(members):
            if member not in ids:
                said = f"{quoted(member)} is not on the roster"
                yield Finding(("groups", team, index), said, nearest=nearest(member, ids))
            elif member in team_of:
                said = f"{quoted(member)} is in {team_of[member]} already, and nobody has two instances"
                yield Finding(("groups", team, index), said)
            team_of.setdefault(member, team)
    if "login" not in data and any(student.key for student in students):
        hint = "login: {machines: [attacker]} lets their owners in there; or leave the keys out."
        yield Finding((), "the roster has keys, and nothing says where they let anybody in", hint=hint)
    yield from _wrong_hours(data.get("hours", {}))


def _wrong_hours(data: Mapping[str, Any]) -> Iterator[Finding]:
    zone = data.get("timezone", "")
    if zone and not hours.is_zone(zone):
        said = f"this host knows no time zone {quoted(zone)}"
        yield Finding(("hours", "timezone"), said, nearest=nearest(zone, hours.zones()))
    for index, entry in enumerate(data.get("open", ())):
        if entry["from"] == entry["to"]:
            said = f"there is no time from {entry['from']} to {entry['to']}"
            yield Finding(("hours", "open", index, "to"), said, hint="A whole day is from 00:00 to 24:00.")


def _seats(students: tuple[Student, ...], groups: Mapping[str, list[str]]) -> tuple[Seat, ...]:
    """A seat per team and per student without one, each where its first student stands on the roster."""
    team_of = {member: team for team, members in groups.items() for member in members}
    found: dict[str, list[Student]] = {}
    for student in students:
        found.setdefault(team_of.get(student.id, student.id), []).append(student)
    return tuple(Seat(instance, tuple(who)) for instance, who in found.items())


def _lab(file: Path, written: str) -> Path:
    path = file.parent / written
    return (path / source.FILE_NAME if path.is_dir() else path).absolute()


def _limits(data: Mapping[str, Any]) -> Limits:
    memory = data.get("memory")
    return Limits(
        data.get("instances"),
        None if memory is None else values.parse_size(memory),
        _seconds(data["idle"]) if "idle" in data else None,
    )


def _seconds(written: str) -> int:
    number, unit = (written[:-1], 3600) if written.endswith("h") else (written.removesuffix("min"), 60)
    return int(number) * unit


def _login(data: Mapping[str, Any] | None) -> Admission | None:
    if data is None:
        return None
    return Admission(tuple(data["machines"]), data.get("user", "student"), data.get("sudo", False))
