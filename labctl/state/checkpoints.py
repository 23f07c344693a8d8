"""Manifests of an instance's checkpoints: what each holds, whether it is whole, and which came from which.

A manifest ends with a checksum of all before it, which is looked at before anything else in it is believed: one that
names no witnesses any more would make of a proof a warning. The states themselves have none. They lie in the machines'
disks, which change as long as the machines run, so that neither size nor time of a file says anything of a state and
only the engine can tell it from the rest; SHA-256 of the 110 MiB of a small guest takes a tenth of a second.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from labctl import __version__
from labctl.errors import StateError, UsageError
from labctl.host.files import private_folder, write_atomic
from labctl.plan.model import LabPlan
from labctl.plan.show import from_json, to_json
from labctl.spec.problems import choices
from labctl.state.record import InstanceFolder

VERSION = 2
_WITHOUT_CHECKSUM = 1  # the version that labctl wrote before; it is read all the same
_CHECKSUM = ', "checksum": "'
_ID = re.compile(r"[0-9a-f]{12}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What can name a checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A named state of all machines of an instance.

    complete: all of it is there; without it labctl was interrupted while it saved or deleted it. parent: the id of the
    checkpoint that the instance went on from. created: seconds since the epoch. files: as in the record. machines: name
    to ``running`` or ``stopped``. skew: seconds between the first and the last machine standing still; None where fewer
    than two ran. witnesses: machines in which labctl left a mark to know the state again by. sealed: whether the
    management path was cut. automatic: labctl has made it by itself. origin: the id that it had on the host that it
    came from in a file, ``""`` for one that was saved here first. images: machine to the digest of the image that its
    disk was made from, where the engine knows it. plan_digest: names the plan. completed: when all of it was there, in
    seconds since the epoch. The last three are empty in what an earlier labctl wrote.
    """

    id: str
    name: str
    plan: LabPlan
    parent: str | None = None
    complete: bool = False
    created: float = field(default_factory=time.time)
    files: Mapping[str, str] = field(default_factory=dict)
    machines: Mapping[str, Literal["running", "stopped"]] = field(default_factory=dict)
    skew: float | None = None
    witnesses: tuple[str, ...] = ()
    sealed: bool = False
    automatic: bool = False
    origin: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    plan_digest: str = ""
    completed: float | None = None
    labctl: str = __version__
    version: int = VERSION

    @property
    def key(self) -> str:
        """What engines call it."""
        return f"labctl-{self.id}"

    @property
    def checked(self) -> bool:
        """Whether its manifest had a checksum to be held against."""
        return self.version > _WITHOUT_CHECKSUM


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The manifests of one instance. Nothing is made before the first ``write``."""

    folder: InstanceFolder

    def all(self) -> tuple[Checkpoint, ...]:
        """Every checkpoint that can be read, whole or not, the oldest first."""
        found = [one for one in self._look() if isinstance(one, Checkpoint)]
        return tuple(sorted(found, key=lambda one: (one.created, one.id)))

    def damaged(self) -> tuple[StateError, ...]:
        """What is wrong with each manifest that cannot be read; the others are not touched by it."""
        return tuple(one for one in self._look() if isinstance(one, StateError))

    def whole(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that can be restored, the oldest first."""
        return tuple(one for one in self.all() if one.complete)

    def find(self, name: str) -> Checkpoint:
        """The whole checkpoint of this name. Raises UsageError that lists those there are.

        Raises StateError where it may be the one whose manifest cannot be read.
        """
        found = self.whole()
        for one in found:
            if one.name == name:
                return one
        for error in self.damaged():
            raise error
        hint = choices("Checkpoints", [one.name for one in found], name) if found else "labctl snapshot save makes one."
        where = f"{self.folder.lab}/{self.folder.instance}"
        raise UsageError(f"{where} has no checkpoint called {name!r}", hint=hint)

    def write(self, checkpoint: Checkpoint) -> Checkpoint:
        """Keep a manifest, and give it back as it is kept."""
        private_folder(self._path)
        checkpoint = replace(checkpoint, version=VERSION)
        value = {one.name: getattr(checkpoint, one.name) for one in fields(checkpoint)}
        value["plan"] = to_json(checkpoint.plan)
        text = json.dumps(value, sort_keys=True)
        write_atomic(self._path / f"{checkpoint.id}.json", f"{text[:-1]}{_ending(text)}", mode=0o600)
        return checkpoint

    def remove(self, checkpoint: Checkpoint) -> None:
        """Forget a manifest; its children become its parent's."""
        for child in self.all():
            if child.parent == checkpoint.id:
                self.write(replace(child, parent=checkpoint.parent))
        if self.current() == checkpoint.id:
            self.set_current(checkpoint.parent)
        (self._path / f"{checkpoint.id}.json").unlink(missing_ok=True)

    def current(self) -> str | None:
        """The id of the checkpoint that the instance goes on from; None before the first."""
        return self._noted("current")

    def set_current(self, identifier: str | None) -> None:
        """Note what the instance goes on from."""
        self._note("current", identifier)

    def restoring(self) -> str | None:
        """The id of the checkpoint that was being restored when labctl was interrupted, or None."""
        return self._noted("restoring")

    def set_restoring(self, identifier: str | None) -> None:
        """Note that a restore begins, or with None that it has ended."""
        (self._path / "failed").unlink(missing_ok=True)
        self._note("restoring", identifier)

    def failure(self) -> str:
        """Why the restore that is noted as begun failed; ``""`` where it did not, or was only interrupted."""
        try:
            return (self._path / "failed").read_text(encoding="utf-8").strip() if self.restoring() else ""
        except FileNotFoundError:
            return ""

    def set_failure(self, why: str) -> None:
        """Note that the restore that is noted as begun has failed, which another one would most likely do, too."""
        write_atomic(self._path / "failed", f"{why}\n", mode=0o600)

    @property
    def _path(self) -> Path:
        return self.folder.path / "checkpoints"

    def _noted(self, name: str) -> str | None:
        try:
            text = (self._path / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        return text if _ID.fullmatch(text) else None

    def _note(self, name: str, identifier: str | None) -> None:
        if identifier is None:
            (self._path / name).unlink(missing_ok=True)
        else:
            private_folder(self._path)
            write_atomic(self._path / name, f"{identifier}\n", mode=0o600)

    def _look(self) -> Iterator[Checkpoint | StateError]:
        for path in sorted(self._path.glob("*.json")):
            if _ID.fullmatch(path.stem):
                try:
                    yield self._read(path)
                except StateError as error:
                    yield error

    def _read(self, path: Path) -> Checkpoint:
        try:
            return _understood(path.stem, path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StateError) as error:
            if isinstance(error, _OtherVersionError):
                raise
            raise StateError(
                f"the manifest of a checkpoint is damaged: {path}",
                details=str(error),
                hint="Nothing was changed. Remove this file to give that checkpoint up; the others are not touched.",
            ) from error


class _OtherVersionError(StateError):
    """A manifest that another labctl wrote."""


@lru_cache(maxsize=64)
def _understood(identifier: str, text: str) -> Checkpoint:
    """A manifest's content; the same text is looked at once in a command, however often it asks.

    Raises ValueError, KeyError, TypeError, AttributeError, StateError where it is none.
    """
    value: dict[str, Any] = json.loads(text)
    version = value["version"]
    if version not in (VERSION, _WITHOUT_CHECKSUM):
        raise _OtherVersionError(
            f"the checkpoint {identifier} has version {version}, not {VERSION}",
            hint=f"Use the labctl that wrote it ({value.get('labctl', 'unknown')}).",
        )
    if version == VERSION or "checksum" in value:
        body, _, _ = text.rpartition(_CHECKSUM)
        if text != f"{body}{_ending(body + '}')}":
            said = f"it says that it is {value.get('name')!r}, of {', '.join(value.get('machines', ()))}"
            raise ValueError(f"it was altered, its checksum is of another content; {said}")
        del value["checksum"]
    states = dict(value["machines"])
    if not set(states.values()) <= {"running", "stopped"}:
        raise ValueError(f"machines: {states}")
    read = {"plan": from_json(value["plan"]), "machines": states, "witnesses": tuple(value["witnesses"])}
    return Checkpoint(**{**value, **read, "id": identifier})


def _ending(text: str) -> str:
    """What stands in a manifest in the place of the last brace of its content."""
    return f'{_CHECKSUM}{hashlib.sha256(text.encode()).hexdigest()}"}}\n'


def digest_of(plan: LabPlan) -> str:
    """Names a plan: 64 hexadecimal digits, the same for equal plans."""
    return hashlib.sha256(json.dumps(to_json(plan), sort_keys=True).encode()).hexdigest()


def new_id() -> str:
    """A name for a checkpoint that no other has."""
    return secrets.token_hex(6)


def check_name(name: str) -> None:
    """Raises UsageError for what cannot name a checkpoint."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a checkpoint", hint="Use letters, digits and ._- with a letter or digit first."
        )
