"""What is wrong with a spec, said so that its author can mend it without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.errors import ExitCode, LabctlError

Keys = tuple[str | int, ...]
"""The way from the top of a document to a value: keys of mappings and indices of lists."""

MAX_PROBLEMS = 200
"""More than anybody reads: a file that is wrong all over costs no more than this."""

_SHOWN_WIDTH = 120
_SHOWN_IN_BRIEF = 50
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:-]+\Z")


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before it is placed: where in the document, not yet where in the file.

    on_key: the key itself is meant, not its value. allowed: what could stand there. nearest: what was probably meant.
    """

    keys: Keys
    message: str
    allowed: str = ""
    nearest: str = ""
    hint: str = ""
    on_key: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that the author has to change.

    line and column count from 1; both are 0 where the file as a whole is meant.
    """

    file: Path
    line: int
    column: int
    path: str
    message: str
    allowed: str = ""
    nearest: str = ""
    hint: str = ""
    source_line: str = ""

    def render(self) -> str:
        """``file:line:column: path: message``, then the line with a caret, what is allowed, and the nearest match."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else str(self.file)
        lines = [f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"]
        if self.line and self.source_line.strip():
            lines += _pointed(self.source_line, self.column)
        if self.nearest:
            lines.append(f"  did you mean {_printable(self.nearest)}?")
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values; the keys are stable."""
        return {
            "file": str(self.file),
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "allowed": self.allowed,
            "nearest": self.nearest,
            "hint": self.hint,
            "source_line": self.source_line,
        }


class SpecError(LabctlError):
    """A spec that cannot be used; ``problems`` are all of one phase, in the order of the file."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
        count = len(self.problems)
        shown = [problem.render() for problem in self.problems[:_SHOWN_IN_BRIEF]]
        if count > len(shown):
            shown.append(f"… and {count - len(shown)} more")
        super().__init__(
            f"{self.problems[0].file} has {'a problem' if count == 1 else f'{count} problems'}",
            details="\n".join(shown),
        )


def render_text(problems: Iterable[Problem]) -> str:
    """All problems for people, one below the other."""
    return "\n".join(problem.render() for problem in problems)


def render_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """All problems as plain values."""
    return [problem.to_json() for problem in problems]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that ``word`` was probably meant to be, or ``""``."""
    if len(word) > 63:
        return ""
    import difflib  # only an error needs it

    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), "")


def choices(kind: str, known: Iterable[str], *words: str) -> str:
    """A hint for words that are not known: what was probably meant, and all there is. kind: such as ``Machines``."""
    known = list(known)
    meant = listed(dict.fromkeys(close for word in words if (close := nearest(word, known))))
    return f"{f'Did you mean {meant}? ' if meant else ''}{kind}: {listed(known)}."


def quoted(value: object) -> str:
    """A value as it may stand in a message: one short line without control characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = _printable(str(value))
    if len(text) > 60:
        text = text[:57] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def dotted(keys: Keys) -> str:
    """A path for people: ``machines.web.services[0]``."""
    parts: list[str] = []
    for key in keys:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif _PLAIN_KEY.match(key) and len(key) <= 64:
            parts.append(f".{key}")
        else:
            parts.append(f"[{quoted(key)}]")
    return "".join(parts).removeprefix(".")


def listed(words: Iterable[str]) -> str:
    """Words as a list in a sentence."""
    return ", ".join(words)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _pointed(line: str, column: int) -> list[str]:
    """The line, cut to a readable width around the column, and a caret below it."""
    at = column - 1
    start = 0 if len(line) <= _SHOWN_WIDTH else max(0, at - _SHOWN_WIDTH // 2)
    window = line[start : start + _SHOWN_WIDTH]
    # One column of source stays one column of output: what cannot be printed becomes a replacement character.
    clean = "".join(char if char.isprintable() else "\t" if char == "\t" else "\ufffd" for char in window)
    padding = "".join("\t" if char == "\t" else " " for char in clean[: at - start])
    return [f"    {clean}", f"    {padding}^"]
