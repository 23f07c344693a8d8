"""One labctl at a time changes an instance; the others are told who, since when, and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from labctl.errors import BusyError, HostError
from labctl.host.files import private_folder, write_json
from labctl.host.folders import state_root
from labctl.host.words import command_line

_GLANCE = 0.2  # seconds: longer than ``holder`` takes to look


@contextlib.contextmanager
def locked(lab: str, instance: str, *, wait: float = _GLANCE) -> Iterator[None]:
    """Hold the lock of an instance. The operating system drops it when the process ends, however it ends.

    wait: seconds to wait for another holder. Raises BusyError that says who holds it.
    """
    with _held(f"{lab}.{instance}", f"changing {lab}/{instance}", wait):
        yield


@contextlib.contextmanager
def class_locked(name: str) -> Iterator[None]:
    """Hold the lock of a class: one labctl at a time counts what its instances take of the host. Raises BusyError."""
    with _held(f"class {name}", f"bringing up the class {name}", _GLANCE):
        yield


@contextlib.contextmanager
def _held(key: str, doing: str, wait: float) -> Iterator[None]:
    """key: names the lock; no name of a lab or an instance has a space. doing: what its holder does, for people."""
    folder = private_folder(state_root() / ".locks")
    lock = FileLock(folder / f"{key}.lock")
    note = folder / f"{key}.json"
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise _busy(doing, note) from error
    try:
        who = {"pid": os.getpid(), "since": time.time(), "command": " ".join(["labctl", *command_line()])}
        with contextlib.suppress(HostError):  # a full disk must not keep anybody from making room on it
            write_json(note, who, mode=0o600)
        yield
    finally:
        lock.release()


def holder(lab: str, instance: str) -> str:
    """Who changes an instance at this moment, for people; ``""`` where nobody does."""
    folder = private_folder(state_root() / ".locks")
    try:
        FileLock(folder / f"{lab}.{instance}.lock").acquire(timeout=0).lock.release()
    except Timeout:
        return _busy(f"changing {lab}/{instance}", folder / f"{lab}.{instance}.json").brief
    return ""


def _busy(doing: str, note: Path) -> BusyError:
    brief = f"another labctl is {doing}"
    try:
        who = json.loads(note.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(who["since"]))
        brief += f": process {who['pid']} (`{who['command']}`), since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the holder has not written its note yet; the brief says enough
    return BusyError(
        brief, hint="Wait until it is done and repeat the command. If it hangs, stop that process; nothing is lost."
    )
