"""This command line as it may stand in files: without what users keep to themselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_HIDDEN = "…"


def command_line(argv: Sequence[str] | None = None) -> list[str]:
    """The words after ``labctl``: a token is hidden, and so is all that may be a flag."""
    words = list(sys.argv[1:] if argv is None else argv)
    for number, word in enumerate(words):
        if number and words[number - 1] == "--token":
            words[number] = _HIDDEN
        elif word.startswith("--token="):
            words[number] = f"--token={_HIDDEN}"
        elif number and words[0] == "submit" and not word.startswith("-"):
            words[number] = _HIDDEN
    return words
