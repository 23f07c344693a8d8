"""Checkpoints of notes: copies in files beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from labctl.errors import ProviderError
from labctl.host.files import write_json
from labctl.providers.base import Checkpoints, MachineState, SnapshotSize
from labctl.providers.fake.notes import FakeMachine, Notes


class FakeCheckpoints(Checkpoints):
    """Every verb of checkpoints, without a single process."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def pause(self, machines: Sequence[str]) -> Mapping[str, float]:
        return {name: self._move(name, "running", "paused") for name in machines}

    def resume(self, machines: Sequence[str]) -> None:
        for name in machines:
            self._move(name, "paused", "running")

    def prepare(self) -> None:
        """Nothing: notes need nothing around them."""

    def save(self, machine: str, key: str) -> None:
        write_json(self._file(machine, key), asdict(self._notes.read()[machine]))

    def restore(self, machine: str, key: str) -> None:
        try:
            value = json.loads(self._file(machine, key).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ProviderError(f"{machine} has no snapshot {key}") from error
        self._notes.put(FakeMachine.of(value))

    def delete(self, machine: str, key: str) -> None:
        self._file(machine, key).unlink(missing_ok=True)

    def keys(self, machine: str) -> frozenset[str]:
        return frozenset(path.name.rpartition(".")[2] for path in self._notes.folder.glob(f"{machine}.labctl-*"))

    def sizes(self, machine: str) -> Mapping[str, SnapshotSize]:
        return {key: SnapshotSize(self._file(machine, key).stat().st_size, 0) for key in self.keys(machine)}

    def _file(self, machine: str, key: str) -> Path:
        return self._notes.folder / f"{machine}.{key}"

    def _move(self, name: str, before: MachineState, after: MachineState) -> float:
        if self._notes.read()[name].state == before:
            self._notes.change(name, state=after)
        return time.monotonic()
