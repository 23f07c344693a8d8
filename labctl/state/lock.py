"""One labctl at a time changes an instance; the others are told who, since when, and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from labctl.errors import BusyError
from labctl.host.files import private_folder, write_json
from labctl.host.folders import state_root


@contextlib.contextmanager
def locked(lab: str, instance: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of an instance. The operating system drops it when the process ends, however it ends.

    wait: seconds to wait for another holder. Raises BusyError that says who holds it.
    """
    folder = private_folder(state_root() / ".locks")
    lock = FileLock(folder / f"{lab}.{instance}.lock")
    note = folder / f"{lab}.{instance}.json"
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise _busy(lab, instance, note) from error
    try:
        write_json(
            note,
            {"pid": os.getpid(), "since": time.time(), "command": " ".join(["labctl", *sys.argv[1:]])},
            mode=0o600,
        )
        yield
    finally:
        lock.release()


def holder(lab: str, instance: str) -> str:
    """Who changes an instance at this moment, for people; ``""`` where nobody does."""
    try:
        with locked(lab, instance):
            return ""
    except BusyError as busy:
        return busy.brief


def _busy(lab: str, instance: str, note: Path) -> BusyError:
    brief = f"another labctl is changing {lab}/{instance}"
    try:
        who = json.loads(note.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(who["since"]))
        brief += f": process {who['pid']} (`{who['command']}`), since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the holder has not written its note yet; the brief says enough
    return BusyError(
        brief, hint="Wait until it is done and repeat the command. If it hangs, stop that process; nothing is lost."
    )
