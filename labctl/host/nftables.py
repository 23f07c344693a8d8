"""Packet filters as nft lists them, compared line by line.

A planned filter goes through the same nft first, in a network namespace where it touches nothing: what is compared was
written by one and the same program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

LISTED = "unshare --net sh -c 'nft -f - && nft --stateless list ruleset'"
"""Shell text that lists the filter on its standard input as the kernel would show it."""

_MOST = 3  # lines that are told


def tables(ruleset: str) -> Mapping[str, str]:
    """Name, with its family, to content of each table that nft lists."""
    return dict(re.findall(r"^table (\S+ \S+) \{\n(.*?)^\}", ruleset, re.MULTILINE | re.DOTALL))


def lines(table: str) -> list[str]:
    """The lines of a table's content."""
    return [line.strip() for line in table.splitlines() if line.strip() not in ("", "}")]


def differences(there: Sequence[str], planned: Sequence[str]) -> Iterator[str]:
    """What tells the lines of two tables apart, for people: what goes on after "the filter …"."""
    for what, found in (
        ("has", [line for line in there if line not in planned]),
        ("lacks", [line for line in planned if line not in there]),
    ):
        if found:
            yield f"{what} {'; '.join(found[:_MOST])}"
    if sorted(there) == sorted(planned) and there != planned:
        yield "has its rules in another order"
