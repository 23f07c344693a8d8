"""What plain text means in YAML: the core schema of YAML 1.2.

``yes``, ``no``, ``on`` and ``off`` are text, ``010`` is ten, ``1:30`` and ``2026-11-23`` are text.
Source: YAML 1.2.2, chapter 10.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from labctl.spec.problems import quoted

CORE_TAG = "tag:yaml.org,2002:"

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INFINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_MAX_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Unusable:
    """A scalar that has no meaning here, and why."""

    message: str
    hint: str = ""


Resolved = str | int | float | bool | None | Unusable


def resolve(text: str) -> Resolved:
    """The value of plain (unquoted) text."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text):
        return True
    if _FALSE.match(text):
        return False
    # Numbers begin with one of these; most text does not, and is done here.
    return _number(text) if text[0] in "+-.0123456789" else text


def _number(text: str) -> Resolved:
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.match(text):
            if len(text) > _MAX_DIGITS:
                return Unusable("this number is too long", "Text that looks like a number needs quotes.")
            return int(text if base == 10 else text[2:], base)
    if _FLOAT.match(text):
        return float(text)
    if _INFINITE.match(text):
        return float(text.replace(".", "", 1))
    return text


def unknown_tag(tag: str) -> Unusable:
    """What is said of a tag that is not one of the core schema."""
    return Unusable(f"the tag {quoted(tag)} is not allowed", "Labs use plain YAML values without tags.")


def tagged(tag: str, text: str) -> Resolved:
    """The value of text with an explicit tag, which must be one of the core schema and fit the text."""
    if tag == CORE_TAG + "str":
        return text
    value = resolve(text)
    kinds: dict[str, tuple[type, ...]] = {
        CORE_TAG + "int": (int,),
        CORE_TAG + "float": (float, int),
        CORE_TAG + "bool": (bool,),
        CORE_TAG + "null": (type(None),),
    }
    if tag not in kinds:
        return unknown_tag(tag)
    if type(value) not in kinds[tag]:
        return Unusable(f"the tag !!{tag.removeprefix(CORE_TAG)} does not fit this text", "Leave the tag out.")
    return float(value) if isinstance(value, int) and tag == CORE_TAG + "float" else value
