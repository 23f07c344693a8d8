"""From YAML text to nodes, strictly.

Strict means: YAML 1.2 scalars, every duplicate key reported, no tags beyond the core ones, one document, and limits on
depth and on the number of values after aliases are followed, so that no file can cost more than a moment.
The merge key ``<<`` works as in YAML 1.1: a mapping's own keys win, and an earlier source wins over a later one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar, cast

import yaml

from labctl.spec import scalars
from labctl.spec.nodes import Entry, Mark, Node, Scalar
from labctl.spec.problems import MAX_PROBLEMS, Problem, SpecError, quoted

MAX_DEPTH = 32
MAX_VALUES = 100_000

_TOO_DEEP = f"values are nested deeper than {MAX_DEPTH} levels"
# Some builds of libyaml have a limit of their own (a thousand), and meet it first where they look ahead for a key.
_PARSERS_DEPTH = "exceeded maximum nesting depth"

# What an escape in double quotes can bring in, and no file, argument or guest can take: NUL, and half of a character.
_UNUSABLE = re.compile("[\0\ud800-\udfff]")

_STARTER = "`labctl init` writes a starter lab."

_Event = TypeVar("_Event", bound=yaml.Event)


class _Events:
    """The parser's events, one by one."""

    def __init__(self, text: str) -> None:
        # libyaml's parser is ten times faster than PyYAML's own; both give the same events.
        self._parser = yaml.CSafeLoader(text) if yaml.__with_libyaml__ else yaml.SafeLoader(text)

    def at(self, kind: type[yaml.Event]) -> bool:
        """Whether the next event is of this kind."""
        return bool(self._parser.check_event(kind))

    def take(self, kind: type[_Event]) -> _Event:
        """The next event, which YAML's grammar says is of this kind."""
        event = self._parser.get_event()
        if not isinstance(event, kind):
            raise TypeError(f"the YAML parser gave {event!r} where {kind.__name__} must come")
        return event


@dataclass(frozen=True, slots=True)
class _Built:
    """A node with the number of values in it and their depth, aliases followed."""

    node: Node
    values: int = 1
    height: int = 1


class Composer:
    """Composes one text. Small faults are collected; one that leaves no sense in the rest ends it."""

    def __init__(self, file: Path, lines: tuple[str, ...], what: str = "lab") -> None:
        self._file = file
        self._what = what
        self._lines = lines
        self._problems: list[Problem] = []
        self._anchors: dict[str, _Built] = {}
        self._values = 0

    def compose(self, text: str) -> Node:
        """The one document of ``text``. Raises SpecError with everything that is wrong."""
        try:
            root = self._document(_Events(text))
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        if self._problems:
            raise SpecError(self._problems)
        return root

    def _document(self, events: _Events) -> Node:
        events.take(yaml.StreamStartEvent)
        if events.at(yaml.StreamEndEvent):
            self._stop(Mark(0, 0), "the file is empty", _STARTER if self._what == "lab" else "")
        events.take(yaml.DocumentStartEvent)
        root = self._value(events, 1).node
        events.take(yaml.DocumentEndEvent)
        if not events.at(yaml.StreamEndEvent):
            mark = _mark(events.take(yaml.DocumentStartEvent))
            self._stop(
                mark, f"a second document begins here; a {self._what} is one document", "Remove the line with ---."
            )
        return root

    def _value(self, events: _Events, depth: int) -> _Built:
        if events.at(yaml.AliasEvent):
            return self._alias(events.take(yaml.AliasEvent), depth)
        event = events.take(yaml.NodeEvent)
        mark = _mark(event)
        self._limit(mark, depth, 1)
        if isinstance(event, yaml.ScalarEvent):
            built = _Built(Node(self._scalar(event, mark), mark))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event.tag, "seq", mark)
            built = self._list(events, mark, depth)
        else:
            self._check_tag(cast(yaml.MappingStartEvent, event).tag, "map", mark)
            built = self._mapping(events, mark, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = built
        return built

    def _alias(self, event: yaml.AliasEvent, depth: int) -> _Built:
        mark = _mark(event)
        built = self._anchors.get(str(event.anchor))
        if built is None:
            self._stop(
                mark,
                f"the alias {quoted(event.anchor)} has no anchor before it",
                "Its anchor, &name, comes first and cannot contain it.",
            )
        self._limit(mark, depth - 1 + built.height, built.values)
        return built

    def _list(self, events: _Events, mark: Mark, depth: int) -> _Built:
        items: list[_Built] = []
        while not events.at(yaml.SequenceEndEvent):
            items.append(self._value(events, depth + 1))
        events.take(yaml.SequenceEndEvent)
        return _built(Node(tuple(item.node for item in items), mark), items)

    def _mapping(self, events: _Events, mark: Mark, depth: int) -> _Built:
        entries: dict[str, Entry] = {}
        inherited: dict[str, Entry] = {}
        first: dict[str, Mark] = {}
        parts: list[_Built] = []
        while not events.at(yaml.MappingEndEvent):
            key, key_mark, plain = self._key(events, depth)
            value = self._value(events, depth + 1)
            parts.append(value)
            if key in first:
                self._note(
                    key_mark,
                    f"the key {quoted(key)} is there twice; the first is on line {first[key].line}",
                    "Remove one of the two.",
                )
            elif plain and key == "<<":
                inherited = self._inherited(value.node)
            else:
                entries[key] = Entry(key_mark, value.node)
            first.setdefault(key, key_mark)
        events.take(yaml.MappingEndEvent)
        return _built(Node({**inherited, **entries}, mark), parts)

    def _key(self, events: _Events, depth: int) -> tuple[str, Mark, bool]:
        """A key, its place, and whether it is plain (unquoted) text."""
        if not (events.at(yaml.ScalarEvent) or events.at(yaml.AliasEvent)):
            mark = _mark(events.take(yaml.NodeEvent))
            self._stop(
                mark, "a key must be text, not a list or a mapping", "Text that begins with { or [ needs quotes."
            )
        event = events.take(yaml.NodeEvent)
        mark = _mark(event)
        self._limit(mark, depth + 1, 1)
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(mark, "a key cannot be an alias", "Write the key out.")
        value = self._scalar(event, mark)
        if not isinstance(value, str):
            self._note(mark, f"a key must be text; {quoted(value)} is not", "Put the key in quotes.")
        if event.anchor is not None:
            self._anchors[event.anchor] = _Built(Node(value, mark))
        return event.value, mark, bool(event.implicit[0]) and event.tag is None

    def _inherited(self, node: Node) -> dict[str, Entry]:
        """The entries that a merge key brings."""
        sources = node.value if isinstance(node.value, tuple) else (node,)
        entries: dict[str, Entry] = {}
        for source in reversed(sources):
            if isinstance(source.value, Mapping):
                entries.update(source.value)
            else:
                self._note(source.mark, "the merge key << takes a mapping or a list of mappings", "Write <<: *name.")
        return entries

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Scalar:
        tag = event.tag
        if bad := _UNUSABLE.search(event.value):
            self._note(mark, f"the escaped character {quoted(bad.group())} can stand in no text")
        if tag in (None, "!"):
            # implicit[0] is true for plain text, and false for quoted text and blocks.
            result = scalars.resolve(event.value) if event.implicit[0] and tag is None else event.value
        else:
            result = scalars.tagged(str(tag), event.value)
        if isinstance(result, scalars.Unusable):
            self._note(mark, result.message, result.hint)
            return event.value
        return result

    def _check_tag(self, tag: str | None, kind: str, mark: Mark) -> None:
        if tag not in (None, "!", scalars.CORE_TAG + kind):
            wrong = scalars.unknown_tag(str(tag))
            self._note(mark, wrong.message, wrong.hint)

    def _limit(self, mark: Mark, depth: int, values: int) -> None:
        self._values += values
        if depth > MAX_DEPTH:
            self._stop(mark, _TOO_DEEP)
        if self._values > MAX_VALUES:
            self._stop(mark, f"the file has more than {MAX_VALUES} values once its aliases are followed")

    def _note(self, mark: Mark, message: str, hint: str = "") -> None:
        line = self._line(mark.line)
        self._problems.append(Problem(self._file, mark.line, mark.column, "", message, hint=hint, source_line=line))
        if len(self._problems) == MAX_PROBLEMS:
            raise SpecError(self._problems)

    def _stop(self, mark: Mark, message: str, hint: str = "") -> NoReturn:
        self._note(mark, message, hint)
        raise SpecError(self._problems)

    def _syntax(self, error: yaml.MarkedYAMLError) -> NoReturn:
        message, at = str(error.problem), error.problem_mark
        if _PARSERS_DEPTH in message:
            self._stop(_place(at), _TOO_DEEP)
        hint = next((hint for symptom, hint in _SYNTAX_HINTS if symptom in message), "")
        line = self._line(at.line + 1) if at else ""
        if error.context_mark and not line.strip():
            # The text ended too early: what was never closed says more than the end of the file.
            message, at = f"{error.context}, {message}", error.context_mark
        elif at and "\t" in line[: at.column + 1] and not line[: at.column + 1].strip():
            hint = "A tab cannot indent YAML; use spaces."
        self._stop(_place(at), f"this is not valid YAML: {message}", hint)

    def _line(self, number: int) -> str:
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""


# What the parser says, in the words of libyaml or of PyYAML, and what most often lies behind it.
_SYNTAX_HINTS = (
    ("mapping values are not allowed", "Text with a colon and a space needs quotes; or the indentation is wrong."),
    ("did not find expected key", "Check the indentation of this line and of the one above it."),
    ("expected <block end>", "Check the indentation of this line and of the one above it."),
    ("could not find expected ':'", "A key needs a colon and a space after it."),
    ("cannot start any token", "Text that begins with this character needs quotes."),
    ("did not find expected ',' or", "A bracket or brace is not closed, or a comma is missing."),
    ("expected ',' or", "A bracket or brace is not closed, or a comma is missing."),
    ("found unexpected end of stream", "A quote is not closed."),
    ("unknown escape character", "Inside double quotes a backslash begins an escape; use single quotes."),
)


def _built(node: Node, parts: list[_Built]) -> _Built:
    return _Built(node, 1 + sum(part.values for part in parts), 1 + max((part.height for part in parts), default=0))


def _mark(event: yaml.Event) -> Mark:
    return _place(event.start_mark)


class _ParserMark(Protocol):
    line: int
    column: int


def _place(mark: _ParserMark | None) -> Mark:
    """A mark of the parser, which counts from 0."""
    return Mark(mark.line + 1, mark.column + 1) if mark else Mark(0, 0)
