"""What is done in a guest, as files beside the Vagrantfile and the provisioners that use them.

Texts of a lab stay out of the Vagrantfile: each becomes a script file of its own, whose name comes from the machine's
name and a number. Vagrant's ``args:`` is not used, because it puts arguments into a guest shell in double quotes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from labctl.errors import UsageError
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.vagrant import linux, windows
from labctl.spec.model import FileStep, PackagesStep, ScriptStep, ShellStep, Step

_STEP = "step "


@dataclass(frozen=True, slots=True)
class Provisioner:
    """One provisioner of Vagrant: runs ``path`` in the guest as root, or uploads it where ``destination`` is set.

    base: the folder that path is relative to, the Vagrantfile's own (``here``) or the lab's (``lab``). always: on each
    start instead of the first.
    """

    name: str
    base: Literal["here", "lab"]
    path: str
    destination: str | None = None
    always: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A machine's provisioners in order, and the files they read from beside the Vagrantfile: name to text."""

    provisioners: tuple[Provisioner, ...]
    files: Mapping[str, str]

    def names(self, *, steps: bool) -> tuple[str, ...]:
        """The provisioners that are steps of the lab, or those that make the machine before them."""
        return tuple(one.name for one in self.provisioners if one.name.startswith(_STEP) == steps)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of what is done: the text to run, after a file of the lab was uploaded."""

    name: str
    text: str
    upload: str | None = None
    always: bool = False


def script(plan: LabPlan, machine: MachinePlan) -> Script:
    """All that is done in ``machine``, in order: packages, its own configuration, then the steps of the lab.

    The configuration runs on each start, because a box may set up its NICs anew. Raises UsageError.
    """
    guest = windows if machine.os == "windows" else linux
    provisioners: list[Provisioner] = []
    files: dict[str, str] = {}
    for number, piece in enumerate(_pieces(plan, machine)):
        if piece.upload is not None:
            provisioners.append(Provisioner(f"{piece.name}: upload", "lab", piece.upload, guest.UPLOAD))
        path = f"provision/{machine.name}/{number:02}-{piece.name.split()[-1]}{guest.SUFFIX}"
        files[path] = _storable(piece.text)
        provisioners.append(Provisioner(piece.name, "here", path, always=piece.always))
    return Script(tuple(provisioners), files)


def _pieces(plan: LabPlan, machine: MachinePlan) -> Iterator[_Piece]:
    if machine.os == "windows":
        yield _Piece("machine", windows.set_up(machine), always=True)
    else:
        packages = (*machine.packages, *(("nftables",) if machine.router else ()))
        if packages:
            yield _Piece("packages", linux.install(packages))
        yield _Piece("machine", linux.set_up(plan, machine), always=True)
    for number, step in enumerate(machine.steps, start=1):
        piece = _step(machine, number, step)
        yield replace(piece, text=linux.told(piece.text)) if machine.secrets else piece


def _step(machine: MachinePlan, number: int, step: Step) -> _Piece:
    guest = windows if machine.os == "windows" else linux
    match step:
        case ShellStep(shell=text):
            return _Piece(f"{_STEP}{number} shell", guest.script(text + "\n"))
        case ScriptStep(source=source):
            return _Piece(f"{_STEP}{number} script", guest.run_script(number, step), upload=_lab_path(source))
        case FileStep(source=str(source)):
            return _Piece(f"{_STEP}{number} file", guest.place_file(step), upload=_lab_path(source))
        case FileStep():
            return _Piece(f"{_STEP}{number} file", guest.write_file(step))
        case PackagesStep():
            raise TypeError("packages are a field of the plan, not a step")


def _storable(text: str) -> str:
    """A text that a file and a shell can hold as it is."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("a text of the lab has a NUL or half a surrogate pair, which no script can hold")
    return text


def _lab_path(source: str) -> str:
    """A path inside the lab's folder. The plan's are, and this does not depend on it."""
    path = PurePosixPath(source)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in source or ":" in source:
        raise UsageError(f"{source!r} is not a path inside the lab's folder")
    return str(path)
