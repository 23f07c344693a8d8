"""How QEMU's options are written."""

from __future__ import annotations


def option(first: str = "", /, **values: object) -> str:
    """A QEMU option group, ``first,name=value,…``. A comma in a value is doubled, so that no value becomes an option.

    Underscores in names stand for dashes, a double underscore for a dot.
    """
    parts = [escaped(first)] if first else []
    parts += [f"{name.replace('__', '.').replace('_', '-')}={escaped(value)}" for name, value in values.items()]
    return ",".join(parts)


def escaped(value: object) -> str:
    """A value in which no comma ends it."""
    return str(value).replace(",", ",,")
