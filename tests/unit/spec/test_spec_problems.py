"""How a problem looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labctl.errors import ExitCode
from labctl.spec.problems import Problem, SpecError, dotted, nearest, quoted, render_json, render_text

pytestmark = pytest.mark.unit


def at(column: int, line: str, **more: str) -> Problem:
    return Problem(Path("lab.yaml"), 3, column, "machines.web", "is wrong", source_line=line, **more)


def test_place_line_caret_nearest_allowed_hint() -> None:
    text = at(5, "    cpu: 1", nearest="cpus", allowed="cpus, memory", hint="Look.").render()
    assert text.splitlines() == [
        "lab.yaml:3:5: machines.web: is wrong",
        "        cpu: 1",
        "        ^",
        "  did you mean cpus?",
        "  allowed: cpus, memory",
        "  hint: Look.",
    ]


def test_the_caret_stands_below_its_column_after_tabs() -> None:
    _, line, caret = at(4, "\ta\tb: 1").render().splitlines()
    assert caret.index("^") == line.index("b")
    assert caret.replace("^", "").strip("\t ") == ""


@pytest.mark.parametrize("column", [1, 60, 500, 999, 1000])
def test_long_lines_are_cut_around_the_column(column: int) -> None:
    source = "".join(str(i % 10) for i in range(1, 1001))
    _, line, caret = at(column, source).render().splitlines()
    assert len(line) <= 124
    assert line[caret.index("^")] == source[column - 1]


def test_a_line_cannot_steer_the_terminal() -> None:
    text = at(1, "a\x1b[31m\u202eb", nearest="a\x1b[31m\u202e").render()
    assert "\x1b" not in text and "\u202e" not in text


def test_a_value_cannot_steer_the_terminal_or_flood_it() -> None:
    assert quoted("a\x1b[31m\n\u202e") == '"a\\x1b[31m\\n\\u202e"'
    assert len(quoted("x" * 10_000)) < 70
    assert len(quoted(10**200)) < 70


def test_paths() -> None:
    assert dotted(("machines", "web", "services", 0)) == "machines.web.services[0]"
    assert dotted(("machines", "a b", "x\n")) == 'machines["a b"]["x\\n"]'
    assert dotted(()) == ""


def test_the_nearest_word() -> None:
    assert nearest("memmory", ["cpus", "memory"]) == "memory"
    assert nearest("blub", ["cpus", "memory"]) == ""
    assert nearest("x" * 100_000, ["x" * 100_000]) == ""


def test_a_spec_error_tells_all_in_the_order_of_the_file() -> None:
    early = Problem(Path("lab.yaml"), 1, 1, "", "first")
    error = SpecError([at(9, ""), at(2, ""), early])
    assert [p.column for p in error.problems] == [1, 2, 9]
    assert error.brief == "lab.yaml has 3 problems"
    assert error.exit_code == ExitCode.USAGE
    assert error.details.splitlines()[0] == "lab.yaml:1:1: first"
    assert SpecError([early]).brief == "lab.yaml has a problem"


def test_a_spec_error_stays_readable() -> None:
    error = SpecError([at(column, "") for column in range(1, 120)])
    assert error.details.splitlines()[-1] == "… and 69 more"
    assert len(error.problems) == 119


def test_json_has_stable_keys() -> None:
    (value,) = render_json([at(1, "line")])
    assert list(value) == ["file", "line", "column", "path", "message", "allowed", "nearest", "hint", "source_line"]
    assert json.loads(json.dumps(value)) == value
    assert render_text([at(1, ""), at(2, "")]).count("is wrong") == 2
