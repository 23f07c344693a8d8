"""The table of contents of a bundle: what is in it, how large, with which digests. Whoever reads one believes nothing.

Form: JSON, checked against its schema before any value is used. Version 2 is that of a bundle with a checkpoint, so
that a labctl that could not restore it says so, and version 3 where proofs of secrets are with that, or where it is for
a class; all others are version 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, NoReturn

from labctl import __version__
from labctl.errors import LabctlError
from labctl.images.transfer import Parcel, Part
from labctl.lifecycle.manifest_schema import FORMAT, SCHEMA, VERSION

MAX_BYTES = 16 << 20
"""Of the table itself: thousands of files and packages fit in."""

# One part of a path, as every file system takes it: no separators, no control characters, no dot or blank at its end.
_PART = re.compile(r'[^\x00-\x1f\x7f/\\:*?"<>|]{1,255}')


@dataclass(frozen=True, slots=True)
class LabFile:
    """A file of the lab's folder. path: relative, with ``/``. size is in bytes."""

    path: str
    size: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True, slots=True)
class CarriedDisk:
    """A disk with one snapshot of a machine in it. size is in bytes."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CarriedMachine:
    """A machine's part of a checkpoint. marked: it has a mark to know the state again by. needs: as in ``Crate``."""

    name: str
    state: Literal["running", "stopped"]
    marked: bool
    disks: tuple[CarriedDisk, ...]
    needs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Carried:
    """A checkpoint on its way. id: its id where it was saved, which its marks have. created: seconds since the epoch.

    instance: the one that it was saved of, after which NICs have their MACs. proofs: of its secrets, as in ``Record``.
    """

    id: str
    name: str
    instance: str
    created: int
    sealed: bool
    machines: tuple[CarriedMachine, ...]
    proofs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blob:
    """A content in the archive; equal contents are in it once. packed: it would not become smaller."""

    name: str
    size: int
    sha256: str
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's table of contents. labctl: the version that wrote it. of_class: for which it is, ``""`` for none."""

    lab: str
    provider: str
    files: tuple[LabFile, ...]
    images: tuple[Parcel, ...]
    checkpoint: Carried | None = None
    labctl: str = __version__
    of_class: str = ""

    def blobs(self) -> Iterator[Blob]:
        """What follows the table in the archive, in this order: the lab's files, those of images, the checkpoint's."""
        for file in self.files:
            yield Blob(f"lab/{file.path}", file.size, file.sha256)
        seen = set[str]()
        for parcel in self.images:
            for part in parcel.parts:
                if part.sha256 not in seen:
                    seen.add(part.sha256)
                    yield Blob(f"images/{part.sha256}", part.size, part.sha256, packed=parcel.is_box)
        seen = set()
        for disk in (disk for one in self.checkpoint.machines for disk in one.disks) if self.checkpoint else ():
            if disk.sha256 not in seen:
                seen.add(disk.sha256)
                yield Blob(f"checkpoint/{disk.sha256}", disk.size, disk.sha256)

    @property
    def version(self) -> int:
        """The lowest version that has a word for all of it."""
        if self.of_class or (self.checkpoint is not None and self.checkpoint.proofs):
            return 3
        return 1 if self.checkpoint is None else 2

    def to_bytes(self) -> bytes:
        """The table as it stands in the archive. The same contents give the same bytes."""
        value = {
            "format": FORMAT,
            "version": self.version,
            "labctl": self.labctl,
            "lab": self.lab,
            "provider": self.provider,
            "files": [
                {"path": f.path, "size": f.size, "sha256": f.sha256, "executable": f.executable} for f in self.files
            ],
            "images": [_parcel_json(parcel) for parcel in self.images],
            "checkpoints": [_carried_json(self.checkpoint)] if self.checkpoint else [],
            **({"class": self.of_class} if self.of_class else {}),
        }
        return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read(data: bytes) -> Manifest:
    """A table of contents from what an archive says. Raises LabctlError for anything that is not exactly one."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_float=_no_number, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        refuse(f"its table of contents is no JSON ({error})")
    version = value.get("version") if isinstance(value, dict) and value.get("format") == FORMAT else VERSION
    if isinstance(version, int) and version > VERSION:
        raise LabctlError(
            f"this bundle has version {version}, and this labctl reads version {VERSION}",
            hint="Use the labctl that made it, or a newer one.",
        )
    from jsonschema import Draft202012Validator

    wrong = next(Draft202012Validator(SCHEMA).iter_errors(value), None)
    if wrong is not None:
        place = "/".join(str(step) for step in wrong.absolute_path)
        refuse(f"its table of contents is wrong at {place or 'the top'}: {wrong.message[:200]!r}")
    files = tuple(LabFile(f["path"], f["size"], f["sha256"], f["executable"]) for f in value["files"])
    if problem := strange_paths([file.path for file in files]):
        refuse(problem)
    images = tuple(_parcel(entry, value["provider"]) for entry in value["images"])
    if len({(parcel.image, parcel.packages) for parcel in images}) != len(images):
        refuse("it has an image twice")
    checkpoint = _carried(value["checkpoints"][0]) if value["checkpoints"] else None
    parts: list[Part | CarriedDisk] = [part for parcel in images for part in parcel.parts]
    parts += [disk for one in checkpoint.machines for disk in one.disks] if checkpoint else []
    sizes: dict[str, int] = {}
    for part in parts:
        if sizes.setdefault(part.sha256, part.size) != part.size:
            refuse(f"it says two sizes of the content {part.sha256[:12]}")
    of_class = value.get("class", "")
    found = Manifest(value["lab"], value["provider"], files, images, checkpoint, value["labctl"], of_class)
    if found.version != value["version"]:
        refuse("its version and what is in it do not go together")
    return found


def strange_paths(paths: list[str]) -> str:
    """What is wrong with the paths of a lab's files, or ``""``.

    They must stay below one folder on every operating system, be there once (also where case does not count), and be in
    no folder whose name begins with a dot: such folders belong to tools, which run what they find there.
    """
    seen: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        if not all(_PART.fullmatch(part) and part[-1] not in ". " for part in parts):
            return f"{path!r} is no path that every system takes"
        if any(part.startswith(".") for part in parts[:-1]):
            return f"{path!r} is in a hidden folder"
        if (other := seen.get(path.casefold())) is not None:
            return f"{path!r} and {other!r} are one file on some systems"
        seen[path.casefold()] = path
    for path in paths:
        for parent in PurePosixPath(path.casefold()).parents:
            if str(parent) in seen:
                return f"{seen[str(parent)]!r} is a file and a folder"
    return ""


def refuse(why: str) -> NoReturn:
    """A bundle cannot be used. Raises LabctlError."""
    raise LabctlError(
        f"this bundle cannot be used: {why}",
        hint="Nothing of it was kept. Copy it again, and ask whoever made it for its SHA-256 digest.",
    )


def _parcel_json(parcel: Parcel) -> dict[str, Any]:
    return {
        "image": parcel.image,
        "user": parcel.user,
        "cmdline": parcel.cmdline,
        "packages": list(parcel.packages),
        "files": [{"name": part.name, "size": part.size, "sha256": part.sha256} for part in parcel.parts],
        "left_out": dict(parcel.left_out),
        "versions": dict(parcel.versions),
    }


def _parcel(entry: dict[str, Any], provider: str) -> Parcel:
    return Parcel(
        entry["image"],
        provider,
        entry["user"],
        entry["cmdline"],
        tuple(entry["packages"]),
        tuple(Part(part["name"], part["size"], part["sha256"]) for part in entry["files"]),
        entry["left_out"],
        entry["versions"],
    )


def _carried_json(carried: Carried) -> dict[str, Any]:
    value = asdict(carried)
    if not carried.proofs:
        del value["proofs"]
    return value


def _carried(entry: dict[str, Any]) -> Carried:
    machines = tuple(
        CarriedMachine(**{**one, "disks": tuple(CarriedDisk(**disk) for disk in one["disks"])})
        for one in entry["machines"]
    )
    if len({one.name for one in machines}) != len(machines):
        refuse("it has a machine twice")
    return Carried(**{**entry, "machines": machines})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) != len(dict(pairs)):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no whole number")
