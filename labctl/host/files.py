"""Files that are whole or not there: atomic writes, private folders, digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from labctl.errors import HostError

_READABLE = 32 << 10  # characters of JSON that somebody may still read


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace ``path`` by ``content`` in one step that survives a crash. Raises HostError on a full disk.

    durable: also one of the host, for which the disk is waited for. What tells of processes needs no such care: they
    are gone then.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise explained(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        raise explained(path, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def append(path: Path, content: bytes) -> None:
    """Add to the end of a log. Raises HostError on a full disk."""
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise explained(path, error) from error


def write_json(path: Path, value: Any, *, mode: int = 0o644, durable: bool = True) -> None:
    """``write_atomic`` of a value as JSON: indented, unless it is so long that nobody reads it."""
    # Python's fast encoder does not indent, and the plan of ninety machines has ten million characters with indents
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    if len(text) <= _READABLE:
        text = json.dumps(value, indent=2, sort_keys=True)
    write_atomic(path, text + "\n", mode=mode, durable=durable)


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can enter (0700), with its parents, and return it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise explained(path, error) from error
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def allocated(folder: Path) -> int:
    """Bytes that a folder's files take on the disk: holes take none, a file with several names counts once."""
    found: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.lstat()
            # Windows does not say how many blocks
            found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size
    return sum(found.values())


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it; no error where it is not there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def explained(path: Path, error: OSError) -> HostError:
    """A failed write as an error for people: a full disk, or what the system says."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(
            f"the disk is full: cannot write {path}", hint="Free some space and repeat the command; nothing was lost."
        )
    return HostError(f"cannot write {path}: {error.strerror}")
