"""The files of a lab's folder: what a copy of the lab consists of, and whether a folder is such a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UsageError
from labctl.host import files
from labctl.lifecycle import manifest, manifest_schema
from labctl.lifecycle.archive import SUFFIX
from labctl.lifecycle.manifest import LabFile
from labctl.spec.model import FileStep, LabSpec, ScriptStep
from labctl.spec.source import FILE_NAME

LOCK_NAME = "lab.lock.yaml"
BUNDLE_MARK = ".from-bundle"
"""A file that says that the lab came in a bundle and nobody here has allowed its checks to run."""

CLASS_MARK = ".for-class"
"""A file that says for which class the lab came: its secrets come from students' tokens."""
TEACHERS = "teacher"
"""A folder that a class does not get."""

_NEVER = ("class.key", "__pycache__", ".DS_Store", ".pytest_cache", BUNDLE_MARK, CLASS_MARK)


@dataclass(frozen=True, slots=True)
class Collected:
    """A lab's files. sources: where each is on this host. skipped: what was left out, each with a reason for people."""

    files: tuple[LabFile, ...]
    sources: tuple[Path, ...]
    skipped: tuple[str, ...]


def collect(spec: LabSpec, replaced: Sequence[Path] = (), *, without: str = "") -> Collected:
    """Everything that the lab's folder holds, or, for a file not called ``lab.yaml``, what that file names.

    The lab's file is called ``lab.yaml`` in it. Hidden folders (``.git``, ``.vagrant``), bundles, and links that lead
    out of the folder are left out, and so is ``replaced``. without: a folder of the lab's that stays at home, too.
    Raises UsageError where a file cannot travel.
    """
    root, skipped = spec.root, list[str]()
    found: dict[str, Path] = {FILE_NAME: spec.file}
    whole = spec.file.name == FILE_NAME
    for path in _walk(root, skipped) if whole else _beside(spec, skipped):
        name = path.relative_to(root).as_posix()
        if path not in replaced and name != LOCK_NAME and name.split("/")[0] != without:
            found.setdefault(name, path)
    for name in _named(spec):
        path = (root / name).resolve()
        found.setdefault(Path(os.path.normpath(name)).as_posix(), path)
    names = sorted(found)
    if problem := manifest.strange_paths(names):
        raise UsageError(f"the lab cannot be bundled: {problem}", hint="Rename it, or move it out of the lab's folder.")
    if len(names) > manifest_schema.MAX_FILES - 1:
        raise UsageError(f"the lab's folder has {len(names)} files; a bundle takes {manifest_schema.MAX_FILES - 1}")
    return Collected(tuple(_fact(name, found[name]) for name in names), tuple(found[n] for n in names), tuple(skipped))


def holds(folder: Path, wanted: Sequence[LabFile]) -> str:
    """What keeps a folder from being a copy of a lab, or ``""``: the first file that is missing or another one.

    Files that are there beside the lab's own, such as notes, do not matter.
    """
    for file in wanted:
        path = folder / file.path
        if not path.is_file() or path.is_symlink():
            return f"{file.path} is missing in it"
        if path.stat().st_size != file.size or files.digest(path) != file.sha256:
            return f"{file.path} is another one in it"
    return ""


def _walk(root: Path, skipped: list[str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        for name in sorted(folders):
            if name.startswith(".") or name in _NEVER:
                folders.remove(name)
            elif (here / name).is_symlink():
                folders.remove(name)
                skipped.append(f"{(here / name).relative_to(root)}: a link to a folder")
        folders.sort()
        for name in sorted(names):
            path = here / name
            if name in _NEVER or name.endswith(SUFFIX):
                continue
            if not path.is_file():
                skipped.append(f"{path.relative_to(root)}: no plain file")
            elif not path.resolve().is_relative_to(root.resolve()):
                skipped.append(f"{path.relative_to(root)}: a link that leads out of the lab's folder")
            else:
                yield path


def _beside(spec: LabSpec, skipped: list[str]) -> Iterator[Path]:
    """What belongs to a lab that shares its folder with others: its checks. What it names comes in any case."""
    if spec.checks is not None:
        yield from _walk(spec.root / spec.checks, skipped)


def _named(spec: LabSpec) -> Iterator[str]:
    """The files that the spec's steps name."""
    for machine in spec.machines.values():
        for step in machine.provision:
            if isinstance(step, FileStep | ScriptStep) and step.source is not None:
                yield step.source


def _fact(name: str, path: Path) -> LabFile:
    found = path.stat()
    return LabFile(name, found.st_size, files.digest(path), bool(found.st_mode & 0o100))
