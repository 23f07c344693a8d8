"""Files that ship with labctl: found in a checkout, an editable install and an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

from labctl.errors import LabctlError

_PACKAGE = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """Where the shipped file or folder ``name`` is, such as ``schemas/lab.schema.json`` or ``Vagrantfile.j2``.

    A wheel carries these files under ``labctl/_data``; a checkout has them at its top, beside the package.
    """
    for base in (_PACKAGE / "_data", _PACKAGE.parent):
        candidate = base / name
        if candidate.exists():
            return candidate
    raise LabctlError(
        f"labctl's own file {name} is missing", hint="Install labctl again; this installation is damaged."
    )


def text(name: str) -> str:
    """The content of a shipped text file."""
    return path(name).read_text(encoding="utf-8")
