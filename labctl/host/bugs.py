"""Bugs of labctl's own: one line for the user, and a file that they can send us."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from pathlib import Path

from labctl.errors import ExitCode, LabctlError
from labctl.host.words import command_line


class BugError(LabctlError):
    """An error that labctl did not expect. Its traceback is in a file."""

    exit_code = ExitCode.BUG


def as_bug(error: Exception) -> BugError:
    """The words for an error that nobody foresaw, with its traceback in a file where one can be kept."""
    brief = f"this is a bug in labctl: {type(error).__name__}: {error}"
    head = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {[*sys.argv[:1], *command_line()]!r} Python {sys.version}"
    text = "\n".join([head, "".join(traceback.format_exception(error))])
    try:
        path = Path(tempfile.mkdtemp(prefix="labctl-bug-")) / "traceback.txt"
        path.write_text(text, encoding="utf-8")
    except OSError:  # the disk is full, as it is on the days on which bugs come out
        return BugError(brief, details=text, hint="Please report it.")
    return BugError(brief, hint=f"The traceback is in {path}; please report it.")
