"""Keys that a class lets into some machines of an instance, beside what the lab file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from labctl.errors import UsageError
from labctl.spec.model import LabSpec, MachineSpec, UserSpec
from labctl.spec.problems import choices


@dataclass(frozen=True, slots=True)
class Admission:
    """An account on some of the lab file's machines, and the SSH public keys that open it, whole lines."""

    machines: tuple[str, ...]
    user: str = "student"
    sudo: bool = False
    keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Admission:
        """From the plain values of ``plain``."""
        return cls(tuple(value["machines"]), value["user"], value["sudo"], tuple(value["keys"]))

    def plain(self) -> dict[str, Any]:
        """Plain values, for a record."""
        return asdict(self)

    def applied(self, spec: LabSpec) -> LabSpec:
        """The lab with the account. Raises UsageError for a machine that it does not have."""
        unknown = [name for name in self.machines if name not in spec.machines]
        if unknown:
            raise UsageError(
                f"{spec.name} has no machine called {', '.join(unknown)} to let students log in to",
                hint=choices("Machines", spec.machines, *unknown),
            )
        changed = {name: self._opened(spec.machines[name]) for name in self.machines}
        return replace(spec, machines={**spec.machines, **changed})

    def _opened(self, machine: MachineSpec) -> MachineSpec:
        there = next((user for user in machine.users if user.name == self.user), UserSpec(self.user))
        keys = (*there.keys, *(key for key in self.keys if key not in there.keys))
        account = replace(there, keys=keys, sudo=there.sudo or self.sudo)
        if there in machine.users:
            return replace(machine, users=tuple(account if user == there else user for user in machine.users))
        return replace(machine, users=(*machine.users, account))
