"""Freight of notes: the copies that checkpoints are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from labctl.errors import ProviderError
from labctl.host.files import private_folder, write_json
from labctl.plan.model import LabPlan
from labctl.providers.base import MANAGEMENT, Crate, Freight, Job
from labctl.providers.fake.notes import FakeMachine, Notes


class FakeFreight(Freight):
    """Every verb of freight, without a single process."""

    def __init__(self, notes: Notes, job: Job) -> None:
        self._notes, self._job = notes, job

    def pack(self, machine: str, key: str, folder: Path) -> Crate:
        packed = folder / f"{machine}.0"
        shutil.copyfile(self._notes.folder / f"{machine}.{key}", packed)
        return Crate((packed,), self.offers(machine))

    def offers(self, machine: str) -> Mapping[str, str]:
        return {"memory": f"{self._job.plan.machine(machine).memory}"}

    def unpack(self, machine: str, key: str, crate: Crate, *, memory: bool) -> None:
        private_folder(self._notes.folder)
        try:
            saved = FakeMachine.of(json.loads(crate.disks[0].read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ProviderError(f"the note of {machine} that came is none", details=str(error)) from error
        if not memory:
            saved = replace(saved, state="stopped", marks=("", saved.marks[1]))
        write_json(self._notes.folder / f"{machine}.{key}", asdict(saved))
        crate.disks[0].unlink()
        self._notes.put(FakeMachine(machine))

    def settle(self, machines: Sequence[str], was: LabPlan) -> None:
        _ = was
        for name in machines:
            plan = self._job.plan.machine(name)
            wires = ((plan.management_mac, MANAGEMENT), *((i.mac, i.network) for i in plan.interfaces))
            self._notes.change(name, state="running", wires=wires)
