"""Temporary folders that name the process that made them, so that those of killed processes can be told and removed."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from labctl.host.processes import ProcessId

PREFIX = ".labctl-making-"
_NAME = re.compile(re.escape(PREFIX) + r"(\d+)-(\d+)-[0-9a-f]+(-.*)?")


def folder_name(subject: str) -> str:
    """A fresh name for a temporary folder of this process."""
    me = ProcessId.of(os.getpid())
    started = int(me.started * 100) if me else 0
    return f"{PREFIX}{os.getpid()}-{started}-{secrets.token_hex(4)}-{subject}"


def is_left_over(folder: Path) -> bool:
    """Whether this is such a folder, this user's, and its process is gone."""
    match = _NAME.fullmatch(folder.name)
    if match is None or folder.is_symlink() or not folder.is_dir():
        return False
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        return False
    return not ProcessId(int(match.group(1)), int(match.group(2)) / 100).alive()
