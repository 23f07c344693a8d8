"""Temporary folders that name the process that made them, so that those of killed ones can be told and cleared away."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

PREFIX = ".labctl-making-"
_NAME = re.compile(re.escape(PREFIX) + r"(\d+)-(\d+)-[0-9a-f]+(-.*)?")


def folder_name(subject: str) -> str:
    """A fresh name for a temporary folder of this process."""
    from labctl.host.processes import ProcessId  # psutil takes long to import, and most calls build nothing

    me = ProcessId.of(os.getpid())
    started = int(me.started * 100) if me else 0
    return f"{PREFIX}{os.getpid()}-{started}-{secrets.token_hex(4)}-{subject}"


def clear(base: Path, remove: Callable[[Path], None]) -> None:
    """Remove what killed processes of this user left in ``base``, and end programs that still work in it."""
    from labctl.host.processes import marked

    for folder in base.glob(f"{PREFIX}*"):
        if not is_left_over(folder):
            continue
        for process, _ in marked(folder.name):
            process.stop(grace=0)
        remove(folder)


def is_left_over(folder: Path) -> bool:
    """Whether this is such a folder, this user's, and its process is gone."""
    from labctl.host.processes import ProcessId

    match = _NAME.fullmatch(folder.name)
    if match is None or folder.is_symlink() or not folder.is_dir():
        return False
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        return False
    return not ProcessId(int(match.group(1)), int(match.group(2)) / 100).alive()
