"""Values as Ruby source. Nothing from a lab reaches a Vagrantfile but through these functions.

A text becomes a single-quoted literal, in which Ruby knows no interpolation and two escapes only: ``\\\\`` and ``\\'``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labctl.errors import UsageError

if TYPE_CHECKING:
    import jinja2

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/ -]*[A-Za-z0-9])?")
_KEY = re.compile(r"[a-z][a-z0-9_]*")


class Code(str):
    """Ruby source that may stand in a Vagrantfile as it is. Any operation on it gives a plain text again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Symbol:
    """A Ruby symbol, such as ``:id``."""

    name: str


def literal(value: object) -> Code:
    """A Ruby literal: text, number, true, false, nil, symbol, array, or hash with symbol keys.

    Raises UsageError for a text that no Ruby literal can hold unchanged: control characters other than tab and
    newline (Ruby drops a carriage return before a newline), and halves of surrogate pairs.
    """
    match value:
        case None:
            source = "nil"
        case bool():
            source = "true" if value else "false"
        case int():
            source = str(int(value))
        case str():
            source = _text(value)
        case Symbol(name):
            source = ":" + _key(name)
        case Mapping():
            source = "{" + options(value) + "}"
        case list() | tuple():
            source = "[" + ", ".join(literal(item) for item in value) + "]"
        case _:
            raise TypeError(f"{type(value).__name__} has no Ruby literal")
    return Code(source)


def options(value: Mapping[str, object]) -> Code:
    """Keyword arguments: ``name: 'web', cpus: 1``."""
    return Code(", ".join(f"{_key(name)}: {literal(item)}" for name, item in value.items()))


def comment(value: object) -> Code:
    """Names and addresses for a Ruby comment: letters, digits, spaces and ``._:/-`` only. Raises UsageError."""
    text = str(value)
    if not _WORD.fullmatch(text):
        raise UsageError(f"{text!r} cannot be a name in a Vagrantfile", hint="Names are letters, digits and hyphens.")
    return Code(text)


def environment() -> jinja2.Environment:
    """Jinja set so that a value without one of our filters, or a misspelt one, is an error and never output."""
    import jinja2

    made = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        finalize=_only_code,
        autoescape=False,  # noqa: S701 - the output is Ruby, and _only_code is stricter than escaping
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(ruby=literal, options=options, comment=comment)
    return made


def _only_code(value: Any) -> Any:
    import jinja2

    if isinstance(value, (Code, jinja2.Undefined)):  # Undefined raises its own, better error when it is printed
        return value
    raise TypeError(f"{value!r} reached the Vagrantfile without passing a filter")


def _text(value: str) -> str:
    for character in value:
        if (ord(character) < 0x20 and character not in "\t\n") or 0xD800 <= ord(character) <= 0xDFFF:
            raise UsageError(
                f"a text of the lab has the character U+{ord(character):04X}, which a Vagrantfile cannot hold",
                details=repr(value[:200]),
                hint="Remove it from the lab's file.",
            )
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _key(name: str) -> str:
    if not _KEY.fullmatch(name):
        raise ValueError(f"{name!r} is no Ruby keyword argument")
    return name
