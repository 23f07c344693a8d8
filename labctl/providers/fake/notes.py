"""What the fake provider has instead of machines: ``machines.json``."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from labctl.host.files import write_json
from labctl.providers.base import MachineState


@dataclass(frozen=True, slots=True)
class FakeMachine:
    """A machine as noted. disk counts the disks made, boots the starts; applied is its configuration.

    wires: MAC and network of each NIC. marks: of a checkpoint, in memory and on disk.
    """

    name: str
    state: MachineState = "stopped"
    disk: int = 1
    boots: int = 0
    wires: tuple[tuple[str, str], ...] = ()
    applied: str = ""
    sealed: bool = False
    marks: tuple[str, str] = ("", "")

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> FakeMachine:
        """A machine from its JSON."""
        wires = tuple((mac, wire) for mac, wire in value["wires"])
        return cls(**{**value, "wires": wires, "marks": (value["marks"][0], value["marks"][1])})


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes in one folder. Machines may be changed from several threads."""

    folder: Path
    _lock: threading.RLock = field(default_factory=threading.RLock, compare=False)

    def read(self) -> dict[str, FakeMachine]:
        """All machines by name."""
        if not self._file.exists():
            return {}
        values = json.loads(self._file.read_text(encoding="utf-8"))
        return {value["name"]: FakeMachine.of(value) for value in values}

    def write(self, machines: Mapping[str, FakeMachine]) -> None:
        """Replace all notes."""
        write_json(self._file, [asdict(machine) for machine in machines.values()])

    def change(self, name: str, **changes: Any) -> None:
        """Change some fields of a machine."""
        with self._lock:
            self.put(replace(self.read()[name], **changes))

    def put(self, machine: FakeMachine) -> None:
        """Note one machine anew."""
        with self._lock:
            self.write({**self.read(), machine.name: machine})

    @property
    def _file(self) -> Path:
        return self.folder / "machines.json"
