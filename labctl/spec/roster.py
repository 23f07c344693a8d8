"""Rosters: who is in a class, from a CSV file, a YAML file or the class file itself.

Students' names are for people, in whatever script they are written; only ids name anything.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labctl.spec import source
from labctl.spec.nodes import plain
from labctl.spec.problems import Finding, Problem, SpecError, dotted, listed, nearest

COLUMNS = ("id", "name", "key")
_DELIMITERS = ",;\t"  # spreadsheets write what their country's settings say


@dataclass(frozen=True, slots=True)
class Student:
    """One student. name: for people, maybe ``""``. key: an SSH public key, a whole line, or ``""``."""

    id: str
    name: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A roster as it was written: plain values, not checked yet. place: of a finding whose keys begin at the list."""

    rows: Any
    place: Callable[[Finding], Problem]


def inline(document: source.Document) -> Sheet:
    """The list under ``roster`` of a class file."""

    def place(finding: Finding) -> Problem:
        return document.place(replace(finding, keys=("roster", *finding.keys)), document.root)

    return Sheet(plain(document.root)["roster"], place)


def read(file: Path) -> Sheet:
    """A roster's file, CSV or YAML by its name. Raises SpecError where it is neither."""
    if file.suffix.lower() == ".csv":
        return _csv(file)
    document = source.read(file, "roster")
    return Sheet(plain(document.root), lambda finding: document.place(finding, document.root))


def students(sheet: Sheet) -> tuple[Student, ...]:
    """The students of a sheet that passed the schema."""
    rows = ({"id": row} if isinstance(row, str) else row for row in sheet.rows)
    return tuple(
        Student(row["id"], unicodedata.normalize("NFC", row.get("name", "")), row.get("key", "")) for row in rows
    )


def twice(sheet: Sheet) -> Iterator[Finding]:
    """Ids that stand there more than once, with the line of the first."""
    first: dict[str, tuple[str | int, ...]] = {}
    for index, row in enumerate(sheet.rows):
        name, keys = (row, (index,)) if isinstance(row, str) else (row["id"], (index, "id"))
        if name in first:
            line = sheet.place(Finding(first[name], "")).line
            yield Finding(keys, f'the id "{name}" is there twice; the first is in line {line}')
        else:
            first[name] = keys


@dataclass(frozen=True, slots=True)
class _Table:
    """A CSV file's rows with their places. columns: per row, where each cell begins (line and column from 1)."""

    file: Path
    lines: Sequence[str]
    rows: list[dict[str, str]] = field(default_factory=list)
    places: list[dict[str, tuple[int, int]]] = field(default_factory=list)

    def problem(self, line: int, column: int, finding: Finding) -> Problem:
        shown = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        said = (finding.message, finding.allowed, finding.nearest, finding.hint)
        return Problem(self.file, line, column, dotted(finding.keys), *said, source_line=shown)

    def place(self, finding: Finding) -> Problem:
        index = finding.keys[0] if finding.keys else None
        if not isinstance(index, int):
            return self.problem(1, 1, finding)
        cells = self.places[index]
        key = str(finding.keys[1]) if len(finding.keys) > 1 else ""
        return self.problem(*cells.get(key, next(iter(cells.values()))), replace(finding, keys=finding.keys[1:]))


def _csv(file: Path) -> Sheet:
    text = source.read_text(file, "CSV")
    table = _Table(file, source.split_lines(text))
    try:
        _fill(table)
    except csv.Error as error:
        raise SpecError([table.problem(0, 0, Finding((), f"this is not a CSV file: {error}"))]) from error
    return Sheet(table.rows, table.place)


def _fill(table: _Table) -> None:
    """Read the rows. Empty lines, and lines of delimiters alone as spreadsheets leave them, are passed over."""
    first = next((line for line in table.lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    # csv counts the lines that it is given, so it is given those that problems count
    reader = csv.reader([f"{line}\n" for line in table.lines], delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    problems: list[Problem] = []
    begins = 1
    for cells in reader:
        line, begins = begins, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = [cell.strip().lower() for cell in cells]
            problems += _wrong_columns(table, line, columns)
        elif len(cells) > len(columns):
            said = f"{len(cells)} values in {len(columns)} columns"
            problems.append(table.problem(line, 1, Finding((), said, hint="A value with a comma needs quotes.")))
        elif not problems:
            _row(table, line, columns, cells)
    if columns is None:
        problems.append(table.problem(0, 0, Finding((), "the file is empty", hint="Its first line is: id,name")))
    if problems:
        raise SpecError(problems)


def _row(table: _Table, line: int, columns: Sequence[str], cells: Sequence[str]) -> None:
    known = [(column, cell.strip()) for column, cell in zip(columns, cells, strict=False)]
    given = {column: cell for column, cell in known if column in COLUMNS and (cell or column == "id")}
    written = table.lines[line - 1]
    table.rows.append(given)
    table.places.append({column: (line, max(0, written.find(cell)) + 1) for column, cell in known} or {"": (line, 1)})


def _wrong_columns(table: _Table, line: int, columns: Sequence[str]) -> Iterator[Problem]:
    written = table.lines[line - 1].lower()
    for number, column in enumerate(columns):
        at = max(0, written.find(column)) + 1
        if column in columns[:number]:
            yield table.problem(line, at, Finding((), f'the column "{column}" is there twice'))
        elif column not in COLUMNS and not column.startswith("x-"):
            said = f'unknown column "{column}"' if column else "a column has no name"
            meant = nearest(column, set(COLUMNS) - set(columns))
            hint = "Begin the name of a column that labctl is to pass over with x-."
            yield table.problem(line, at, Finding((), said, f"{listed(COLUMNS)}, x-…", meant, hint))
    if "id" not in columns:
        hint = "The first line names the columns, such as: id,name"
        yield table.problem(line, 1, Finding((), 'there is no column "id"', hint=hint))
