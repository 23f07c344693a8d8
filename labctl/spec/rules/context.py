"""What every rule gets: the spec, and where its parts were written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from labctl.spec.build import seats
from labctl.spec.model import InterfaceSpec, LabSpec, MachineSpec
from labctl.spec.problems import Keys
from labctl.spec.values import Address

Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)


@dataclass(frozen=True, slots=True)
class PlacedInterface:
    """An interface of a machine's entry, and where it was written."""

    machine: MachineSpec
    interface: InterfaceSpec
    keys: Keys
    written: Mapping[str, Any]

    def fixed(self) -> Iterator[tuple[Address, Keys]]:
        """The addresses that were written down, and where each stands."""
        for field in ("address", "address6"):
            address = getattr(self.interface, field)
            if address is not None and address != "auto":
                yield address, self.at(field)

    def at(self, field: str) -> Keys:
        """Where a setting stands: on its own key, or in the short form where the name's value is the address."""
        return (*self.keys, field) if field in self.written else self.keys


@dataclass(frozen=True)
class Context:
    """The spec, and ``data``: the plain document, defaults merged, that it was built from."""

    spec: LabSpec
    data: Mapping[str, Any]

    def written(self, machine: str) -> Mapping[str, Any]:
        """A machine's entry as written."""
        entry: Mapping[str, Any] = self.data["machines"][machine]
        return entry

    @cached_property
    def interfaces(self) -> tuple[PlacedInterface, ...]:
        """Every interface of every entry, in the spec's order."""
        return tuple(self._interfaces())

    def _interfaces(self) -> Iterator[PlacedInterface]:
        for machine in self.spec.machines.values():
            networks = self.written(machine.name).get("networks")
            for seat, interface in zip(seats(networks), machine.interfaces, strict=True):
                keys = ("machines", machine.name, "networks", *seat.keys)
                below = _below(networks, seat.keys)
                yield PlacedInterface(machine, interface, keys, below if isinstance(below, Mapping) else {})

    @cached_property
    def entry_of(self) -> Mapping[str, MachineSpec]:
        """Entries by every name that means them: the entry's own, and its copies'."""
        named = {copy: machine for machine in self.spec.machines.values() for copy in machine.copies()}
        return {**named, **self.spec.machines}

    @cached_property
    def components(self) -> Mapping[Family, Mapping[str, frozenset[str]]]:
        """By family: network name to all networks that a chain of routers joins with it, itself included."""
        return {family: self._joined(family) for family in FAMILIES}

    def _joined(self, family: Family) -> Mapping[str, frozenset[str]]:
        groups = {name: frozenset([name]) for name in self.spec.networks}
        for machine in self.spec.machines.values():
            if not machine.router:
                continue
            union = frozenset[str]().union(*(groups[name] for name in addressed(machine, family) if name in groups))
            groups.update(dict.fromkeys(union, union))
        return groups


def addressed(machine: MachineSpec, family: Family) -> list[str]:
    """The networks on which the machine has an address of this family."""
    field = "address" if family == 4 else "address6"
    return list(dict.fromkeys(i.network for i in machine.interfaces if getattr(i, field) is not None))


def _below(value: Any, keys: Keys) -> Any:
    for key in keys:
        value = value[key]
    return value
