"""Reading values of which nothing is known: what is not of the wanted kind counts as not written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TRUE = frozenset({"true", "yes", "on", "1"})


def text(value: Any) -> str:
    """A scalar as text; nothing, a list or a mapping as ``""``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def truth(value: Any) -> bool:
    """Whether a value says yes, in any of the words that YAML ever had for it."""
    return value is True or text(value).strip().lower() in _TRUE


def whole(value: Any) -> int | None:
    """A whole number, also one written as text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    written = text(value).strip()
    return int(written) if written.isascii() and written.isdigit() and len(written) <= 12 else None
