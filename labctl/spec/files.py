"""Files that a spec names, read from the lab's folder and from nowhere else."""

from __future__ import annotations

from pathlib import Path

from labctl.errors import UsageError

MAX_FILE_BYTES = 64 << 20


def lab_file(root: Path, name: str) -> Path:
    """The file ``name`` of a lab, links resolved. Raises UsageError where it is missing or outside the lab's folder."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise UsageError(
            f"{name} leads out of the lab's folder", hint="Copy the file into the lab; links may not leave it."
        )
    if not path.is_file():
        raise UsageError(f"the lab's file {name} is missing", hint=f"It was looked for at {path}.")
    return path


def read_lab_file(root: Path, name: str) -> bytes:
    """The content of a lab's file, at most 64 MiB. Raises UsageError."""
    path = lab_file(root, name)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"the lab's file {name} is larger than {MAX_FILE_BYTES >> 20} MiB")
    return path.read_bytes()
