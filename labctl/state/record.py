"""The record of an instance: versioned, atomic, and enough to finish or to remove what a crash left."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from labctl import __version__
from labctl.errors import StateError
from labctl.host.files import private_folder, remove_tree, write_atomic, write_json
from labctl.host.folders import state_root
from labctl.plan.model import LabPlan
from labctl.plan.show import from_json, to_json

RECORD_VERSION = 1
Phase = Literal["changing", "arriving", "up", "down", "destroying"]
"""What labctl is at, or was when it was interrupted. arriving: a checkpoint out of a file is being unpacked."""

_ALL_THE_SAME = "labctl destroy removes the instance all the same."

_README = """\
This folder belongs to labctl. It holds one running copy (an instance) of one lab.

record.json    what the instance is and what labctl was doing last
plan.json      the plan that was carried out last
pending.json   the plans that were begun since then and not carried out to their end, if there are any
engine/        the provider's own files: disks, keys, sockets, logs of the machines
checkpoints/   what each checkpoint holds; the states themselves are with the machines' disks
commands.log   every program that labctl started for this instance
reports/       what `labctl verify` found
tidy.json      when `labctl class tidy` saw somebody logged in last
submissions.jsonl  which flags were handed in with `labctl submit`, and when

Remove it with `labctl destroy`, not by hand: the machines may still run.
"""


@dataclass(frozen=True, slots=True)
class Record:
    """What the instance is. spec_file: the lab.yaml it was made from. created: seconds since the epoch.

    files: machine name to a digest of the provisioning files it was given, which the plan only names. sealed: the
    instance is to run without its management path. owner: the class that it belongs to, ``""`` where it was made by
    hand. admission: whom that class lets in beside what the lab file says, as plain values; empty for nobody. seed:
    what its secrets are made from; ``""`` where they are not known here, because the instance came from elsewhere.
    proofs: by name what tells such a secret from another text, see ``labctl.spec.secrets``; where there is no seed.
    forgets: the seed came with a student's token, and is not kept once all machines have been told their secrets.
    left: the id of the checkpoint that the machines stand as, of which none has run since; ``""`` for none.
    """

    lab: str
    instance: str
    provider: str
    spec_file: str
    phase: Phase
    created: float = field(default_factory=time.time)
    files: Mapping[str, str] = field(default_factory=dict)
    sealed: bool = False
    owner: str = ""
    admission: Mapping[str, Any] = field(default_factory=dict)
    seed: str = ""
    proofs: Mapping[str, str] = field(default_factory=dict)
    forgets: bool = False
    left: str = ""
    labctl: str = __version__
    version: int = RECORD_VERSION


@dataclass(frozen=True, slots=True)
class InstanceFolder:
    """The folder of one instance. Nothing is created before ``write_record``."""

    lab: str
    instance: str

    @property
    def path(self) -> Path:
        """``<state root>/<lab>/<instance>``."""
        return state_root() / self.lab / self.instance

    @property
    def engine(self) -> Path:
        """The provider's own folder."""
        return self.path / "engine"

    @property
    def commands_log(self) -> Path:
        """One line per program started."""
        return self.path / "commands.log"

    @property
    def reports(self) -> Path:
        """Where verify keeps its reports."""
        return self.path / "reports"

    @property
    def submissions(self) -> Path:
        """What was handed in, one JSON object per line, without the words of it."""
        return self.path / "submissions.jsonl"

    def record(self) -> Record | None:
        """The record, or None where the instance does not exist. Raises StateError where it cannot be understood."""
        data = self._read("record.json")
        if data is None:
            return None
        if data.get("version") != RECORD_VERSION:
            raise StateError(
                f"the record of {self.lab}/{self.instance} has version {data.get('version')}, not {RECORD_VERSION}",
                hint=f"Use the labctl that wrote it ({data.get('labctl', 'unknown')}) to destroy the instance.",
            )
        known = {f.name for f in fields(Record)}
        return Record(**{key: value for key, value in data.items() if key in known})

    def write_record(self, record: Record) -> None:
        """Keep a record; makes the folder, its README and the provider's folder where they are missing."""
        private_folder(self.path)
        private_folder(self.engine)
        if not (self.path / "README").exists():
            write_atomic(self.path / "README", _README)
        write_json(self.path / "record.json", asdict(record), mode=0o600)

    def plan(self) -> LabPlan | None:
        """The plan that was carried out last, or None."""
        return next(iter(self._plans("plan.json")), None)

    def pending(self) -> LabPlan | None:
        """The plan that was being carried out when labctl was interrupted, or None."""
        begun = self.begun()
        return begun[-1] if begun else None

    def begun(self) -> tuple[LabPlan, ...]:
        """Every plan that was begun since one was carried out to its end, the oldest first.

        What runs may be of any of them: the second may have been interrupted before it undid what the first had made.
        """
        return self._plans("pending.json")

    def begin(self, plan: LabPlan) -> None:
        """Note that ``plan`` is about to be carried out."""
        begun = [*(one for one in self.begun() if one != plan), plan]
        write_json(self.path / "pending.json", {"begun": [to_json(one) for one in begun]}, mode=0o600)

    def finish(self, plan: LabPlan) -> None:
        """Note that ``plan`` has been carried out."""
        write_json(self.path / "plan.json", to_json(plan), mode=0o600)
        (self.path / "pending.json").unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget the instance; the lab's folder goes with its last one."""
        (self.path / "record.json").unlink(missing_ok=True)
        remove_tree(self.path)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()

    def _plans(self, name: str) -> tuple[LabPlan, ...]:
        """What a file has of plans: one, or those that were begun."""
        text = self._text(name)
        return () if text is None else _plans_in(self.path / name, text)

    def _read(self, name: str) -> dict[str, Any] | None:
        text = self._text(name)
        return None if text is None else _object_in(self.path / name, text)

    def _text(self, name: str) -> str | None:
        path = self.path / name
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error


@lru_cache(maxsize=8)
def _plans_in(path: Path, text: str) -> tuple[LabPlan, ...]:
    """A command asks for the same plan many times, and a plan of many machines takes a while to read."""
    data = _object_in(path, text)
    return tuple(from_json(one) for one in data.get("begun", [data]))


def _object_in(path: Path, text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _unreadable(path, error) from error
    if not isinstance(data, dict):
        raise StateError(f"{path} does not hold a record", hint=_ALL_THE_SAME)
    return data


def _unreadable(path: Path, error: Exception) -> StateError:
    return StateError(f"{path} cannot be read: {error}", hint=_ALL_THE_SAME)


def instances() -> Iterator[InstanceFolder]:
    """Every instance on this host with labctl's mark (a record), by lab and name."""
    for path in sorted(state_root().glob("*/*/record.json")):
        yield InstanceFolder(path.parent.parent.name, path.parent.name)
