"""Which file is meant, and in whose language it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from labctl.errors import UsageError
from labctl.lifecycle.foreign import containerlab, kypo
from labctl.spec import source
from labctl.spec.nodes import plain

Kind = Literal["vagrant", "kypo", "containerlab"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_PATTERNS: Mapping[Kind, tuple[str, ...]] = {
    "vagrant": ("Vagrantfile", "vagrantfile"),
    "kypo": ("topology.yml", "topology.yaml"),
    "containerlab": ("*.clab.yml", "*.clab.yaml"),
}
_JUDGES: tuple[tuple[Kind, Callable[[Any], bool]], ...] = (
    ("containerlab", containerlab.recognises),
    ("kypo", kypo.recognises),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A description: its file, its kind, and its plain values (empty for a Vagrantfile, which is no data)."""

    kind: Kind
    file: Path
    data: Mapping[str, Any]


def find(path: Path, kind: Kind | None) -> Found:
    """The description that ``path``, a file or a folder, means. Raises UsageError, or SpecError for broken YAML."""
    file = _in_folder(path, kind) if path.is_dir() else path
    if kind == "vagrant" or (kind is None and _named_like_a_vagrantfile(file)):
        _text_of(file)
        return Found("vagrant", file, {})
    data = plain(source.read(file).root)
    guess = next((judged for judged, judge in _JUDGES if judge(data)), None)
    if guess is None or kind not in (None, guess):
        wanted = f"a topology of {kind}" if kind else "a description that labctl knows"
        raise UsageError(f"{file} is not {wanted}", hint=_HINT)
    return Found(guess, file, data)


_HINT = (
    "A Vagrantfile, a topology.yml of KYPO or CyberRangeCZ (hosts, routers, networks, net_mappings), "
    "or a *.clab.yml of containerlab (topology: nodes)."
)


def _in_folder(folder: Path, kind: Kind | None) -> Path:
    wanted = (kind,) if kind else KINDS
    # Sets of what is the same file: some file systems do not tell Vagrantfile from vagrantfile.
    found = {found.resolve(): found for k in wanted for p in _PATTERNS[k] for found in sorted(folder.glob(p))}
    if not found:
        raise UsageError(f"there is nothing to import in {folder}", hint=_HINT)
    if len(found) > 1:
        names = ", ".join(sorted(path.name for path in found.values()))
        raise UsageError(f"{folder} has more than one description: {names}", hint="Name the file.")
    return next(iter(found.values()))


def _named_like_a_vagrantfile(file: Path) -> bool:
    return file.name.lower().startswith("vagrantfile") or file.suffix in (".vagrantfile", ".rb")


def _text_of(file: Path) -> None:
    """Insist that a file is a text of bearable size."""
    try:
        if not file.is_file():
            raise UsageError(f"there is no file {file}")
        with file.open("rb") as stream:
            data = stream.read(source.MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > source.MAX_BYTES:
        raise UsageError(f"{file} is larger than {source.MAX_BYTES >> 20} MiB")
    if b"\0" in data:
        raise UsageError(f"{file} is a binary file, not a Vagrantfile")
    if not data.strip():
        raise UsageError(f"{file} is empty")
