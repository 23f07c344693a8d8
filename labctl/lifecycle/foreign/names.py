"""Names that labctl's language takes, made out of names that any tool takes."""

from __future__ import annotations

import re
import unicodedata

from labctl.spec.rules.names import MAX_LABEL, RESERVED


def as_name(text: str, fallback: str) -> str:
    """``text`` as a DNS label: accents go, what else cannot stand becomes a hyphen. fallback: a label, for the rest."""
    ascii_text = unicodedata.normalize("NFKD", text[: 4 * MAX_LABEL]).encode("ascii", "ignore").decode().lower()
    label = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-") or fallback
    return _cut(label if label[0].isalpha() else f"{fallback}-{label}", MAX_LABEL)


class Names:
    """The names of one lab; machines and networks share them."""

    def __init__(self) -> None:
        self._taken = set(RESERVED)

    def free(self, text: str, fallback: str, limit: int = MAX_LABEL) -> bool:
        """Whether ``take`` would give the name that ``text`` makes, without a number."""
        return _cut(as_name(text, fallback), limit) not in self._taken

    def take(self, text: str, fallback: str, limit: int = MAX_LABEL) -> str:
        """A name like ``text`` that nobody has yet, of ``limit`` characters at most."""
        wanted = as_name(text, fallback)
        name, number = _cut(wanted, limit), 2
        while name in self._taken:
            suffix = f"-{number}"
            name, number = _cut(wanted, limit - len(suffix)) + suffix, number + 1
        self._taken.add(name)
        return name


def _cut(label: str, limit: int) -> str:
    return label[:limit].rstrip("-")
