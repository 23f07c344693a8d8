"""``import``: another tool's description of a lab becomes a ``lab.yaml`` and the files that it needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UsageError
from labctl.host.files import write_atomic
from labctl.lifecycle.foreign import containerlab, kypo, vagrant
from labctl.lifecycle.foreign.draft import Draft
from labctl.lifecycle.foreign.evaluate import Confinement, evaluate
from labctl.lifecycle.foreign.recognise import Found, Kind, find
from labctl.lifecycle.foreign.settle import settle
from labctl.lifecycle.foreign.vagrant_provision import Provisioning
from labctl.lifecycle.foreign.written import written
from labctl.spec.files import read_lab_file
from labctl.spec.load import load
from labctl.spec.problems import Problem, SpecError
from labctl.spec.source import FILE_NAME

_ORIGINS: Mapping[Kind, str] = {
    "vagrant": "Vagrantfile",
    "kypo": "topology of KYPO or CyberRangeCZ",
    "containerlab": "topology of containerlab",
}


@dataclass(frozen=True, slots=True)
class Translation:
    """A lab file, not yet written.

    files: what it names, content by path in the lab's folder. problems: what is left to mend, mostly nothing; the text
    says it too. confinement: how a Vagrantfile was kept from harm, None for what is no program.
    """

    kind: Kind
    source: Path
    text: str
    files: Mapping[str, bytes]
    problems: tuple[Problem, ...]
    confinement: Confinement | None = None


def translate(path: Path, kind: Kind | None, *, consent: Callable[[Path], bool]) -> Translation:
    """Read the description at ``path``, a file or a folder.

    consent: asked with its path before a Vagrantfile, which is a program, is run. Raises UsageError where there is
    nothing to translate or consent is refused, SpecError for broken YAML, HostError where Vagrant is missing.
    """
    found = find(path, kind)
    root = found.file.resolve().parent
    confinement = None
    draft = Draft(_name(found), _ORIGINS[found.kind])
    provisioning = Provisioning(draft, root)
    if found.kind == "vagrant":
        if not consent(found.file):
            raise UsageError(
                f"{found.file} is a program, and reading it means running it",
                hint="Read it first; then repeat the command with --run-vagrantfile.",
            )
        described, confinement = evaluate(found.file)
        vagrant.fill(draft, described, provisioning)
    elif found.kind == "kypo":
        kypo.fill(draft, found.data)
    else:
        containerlab.fill(draft, found.data)
    settle(draft)
    files = {name: read_lab_file(root, name) for name in sorted(provisioning.files)}
    text = written(draft)
    problems = _problems(text, files)
    if problems:
        text = written(draft, [f"{p.path}: {p.message}" if p.path else p.message for p in problems])
    return Translation(found.kind, found.file, text, files, problems, confinement)


def write(translation: Translation, folder: Path, *, force: bool) -> list[Path]:
    """Write the lab into a folder, which is made where it is missing, and give what was written.

    Raises UsageError, before anything is written, where a file is there with another content and not ``force``.
    """
    wanted = {folder / name: content for name, content in translation.files.items()}
    wanted[folder / FILE_NAME] = translation.text.encode()
    changed = {path: content for path, content in wanted.items() if not _holds(path, content)}
    taken = [path for path in changed if path.exists() or path.is_symlink()]
    if taken and not force:
        raise UsageError(
            f"{taken[0]} exists already", hint="Choose another folder, or --force to replace it; nothing was changed."
        )
    for path in changed:
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{path} leads out of {folder}", hint="A link in that folder does; nothing was changed.")
    for path, content in changed.items():
        write_atomic(path, content)
    return list(wanted)


def _name(found: Found) -> str:
    """The lab's name: the source's own, or its folder's."""
    own = found.data.get("name")
    return own if isinstance(own, str) and own else found.file.resolve().parent.name


def _problems(text: str, files: Mapping[str, bytes]) -> tuple[Problem, ...]:
    """What labctl says of the lab as it will be."""
    with tempfile.TemporaryDirectory(prefix="labctl-import-") as made:
        root = Path(made)
        for name, content in {**files, FILE_NAME: text.encode()}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            load(root / FILE_NAME)
        except SpecError as error:
            return error.problems
    return ()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and not path.is_symlink() and path.read_bytes() == content
    except OSError:
        return False
