"""What a class takes to computers without a network: the lab with its images in one file, and a token for each."""

from __future__ import annotations

from pathlib import Path

from labctl.errors import UsageError
from labctl.events import Listener, ignore
from labctl.lifecycle import archive, bundle
from labctl.lifecycle.bundle import Bundled
from labctl.lifecycle.classroom import key
from labctl.lifecycle.locate import DEFAULT_INSTANCE, draft_of
from labctl.spec.classfile import ClassSpec, Seat
from labctl.spec.load import load
from labctl.spec.model import LabSpec
from labctl.spec.secrets import token


def pack(
    spec: ClassSpec, output: Path | None = None, *, provider: str | None = None, listener: Listener = ignore
) -> Bundled:
    """Write the file, by default ``CLASS.labz`` in the current folder.

    Raises UsageError where it would hold what is the teacher's alone, and what ``bundle`` raises.
    """
    lab = load(spec.lab)
    root = lab.root.resolve()
    for file in (spec.file, spec.roster):
        if file is not None and file.resolve().is_relative_to(root):
            raise UsageError(
                f"{file} lies in the lab's folder, all of which goes to the students",
                hint="Give the lab a folder of its own, beside the class file and the roster.",
            )
    draft = draft_of(lab, instance=DEFAULT_INSTANCE, provider=provider)
    return bundle.bundle(draft, output or Path(f"{spec.name}{archive.SUFFIX}"), listener, of_class=spec.name)


def token_of(spec: ClassSpec, lab: LabSpec, seat: Seat) -> str:
    """A seat's token, ``""`` where the lab has no secrets. Makes the class's key where it has none."""
    return token(key.seed(key.make(spec), seat), lab.name) if lab.secrets else ""
