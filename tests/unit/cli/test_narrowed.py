"""A command line is read by the one command that it names: as it would be read among all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from labctl.cli.app import app, narrowed

pytestmark = pytest.mark.unit


def paths(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that lead to each command and each group, the top among them."""
    yield words
    for name, one in getattr(command, "commands", {}).items():
        yield from paths(one, (*words, name))


def said(whole: typer.Typer, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """What it says to these words, whether or not it takes them."""
    try:
        whole(args=list(words), prog_name="labctl", standalone_mode=False)
    except Exception as error:  # Typer's own, which shows itself
        show: Any = getattr(error, "show", None)
        if show is None:
            raise
        show()
    return "".join(capsys.readouterr())


ALL = sorted(paths(typer.main.get_command(app)))
GROUPS = {words[:-1] for words in ALL if words}
# Nothing of this is carried out.
LINES = [(*words, end) for words in ALL for end in ("--help", "--nonsense")] + [
    (*group, "nonsense") for group in sorted(GROUPS)
]


def test_there_are_commands_and_groups() -> None:
    assert {("up",), ("snapshot",), ("snapshot", "save"), ("class", "up")} <= set(ALL)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_what_it_says_is_the_same(line: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert said(narrowed(line), line, capsys) == said(app, line, capsys) != ""


def test_the_others_are_not_made() -> None:
    command: Any = typer.main.get_command(narrowed(["class", "up", "course"]))
    assert list(command.commands) == ["class"]
    assert list(command.commands["class"].commands) == ["up"]
