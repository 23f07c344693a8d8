"""Wires: how the NICs of an instance's machines are joined, without the host being on them.

Two kinds behind one interface. ``bridge``: kernel bridges in a network namespace of the instance's own; behaves like a
switch. ``hub``: one more QEMU without a machine; works for any user on any system and floods.
"""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from labctl.errors import HostError, UsageError
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, MachinePlan, NetworkPlan
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.options import option

Kind = Literal["bridge", "hub"]

Opening = tuple[str, str]
"""A network, or ``""`` for the wires as a whole, and for people what is open there that no plan allows."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A machine's ends of its wires: device name to ``-netdev`` value, and the descriptors QEMU inherits.

    Whoever gets it closes the descriptors once QEMU has them.
    """

    netdevs: Mapping[str, str]
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a kind of wire holds. See ``labctl.providers.base.Capabilities`` for the words."""

    promiscuous: bool
    isolated_ports: bool
    egress: bool


class Wires(ABC):
    """The wires of one instance. All verbs are idempotent and may follow a crash at any point."""

    kind: ClassVar[Kind]
    abilities: ClassVar[Abilities]

    def __init__(self, layout: Layout, runner: Runner) -> None:
        self._layout = layout
        self._runner = runner

    @abstractmethod
    def prepare(self, plan: LabPlan) -> None:
        """Make the wires of the plan and remove others."""

    @abstractmethod
    def attach(self, plan: LabPlan, machine: MachinePlan) -> Attachment:
        """Make the ends for a machine that is about to start; none of its processes may be running."""

    def starting(self, machines: Sequence[MachinePlan]) -> contextlib.AbstractContextManager[None]:
        """Say which machines, none of which runs, are about to start while the block lasts.

        ``attach`` may make the ends of several of them at once; those that nobody asked for are gone after the block.
        """
        _ = machines
        return contextlib.nullcontext()

    def aside(self, machine: MachinePlan, folder: Path) -> contextlib.AbstractContextManager[Attachment]:
        """Ends like those of ``attach`` that lead nowhere, while the block lasts, for a machine that does not move.

        folder: for what they need meanwhile. The descriptors are closed after the block.
        """
        _ = folder
        ends = {
            interface.device: option("hubport", id=f"net-{interface.device}", hubid=1 + number)
            for number, interface in enumerate(machine.interfaces)
        }
        return contextlib.nullcontext(Attachment(ends))

    @abstractmethod
    def ports(self, plan: LabPlan) -> Mapping[str, str]:
        """What is plugged in where, as the engine of the wires reports it: port name to network name.

        A port name is what ``port_of`` gives. Empty where the wires are not there.
        """

    @abstractmethod
    def openings(self, plan: LabPlan) -> tuple[Opening, ...]:
        """What else the engine of the wires reports that lets something through which no plan allows.

        Ports are not repeated here. Raises LabctlError where it cannot be asked.
        """

    @abstractmethod
    def destroy(self) -> None:
        """Remove all wires of this instance, plan or no plan."""

    @abstractmethod
    def leftovers(self) -> tuple[str, ...]:
        """What of ours still exists, for people."""


def port_of(machine: str, device: str) -> str:
    """The name of a NIC's port, and of its tap: Linux device names are limited to 15 characters."""
    return "t" + hashlib.sha256(f"{machine}/{device}".encode()).hexdigest()[:12]


def bridge_of(network: NetworkPlan) -> str:
    """The name of a network's bridge."""
    return f"br{network.key}"


def choose(plan: LabPlan | None) -> Kind:
    """The kind of wires for a plan on this host. Raises HostError where the asked kind does not work here.

    ``providers: {qemu: {wires: …}}`` decides; ``auto``, the default, takes bridges where this host can make them.
    """
    asked = str(plan.settings.get("qemu", {}).get("wires", "auto")) if plan else "auto"
    if asked not in ("auto", "bridge", "hub"):
        raise UsageError(f"providers.qemu.wires is {asked!r}", hint="Use auto, bridge or hub.")
    if asked == "hub":
        return "hub"
    lack = bridge_lack()
    if asked == "bridge" and lack:
        raise HostError(
            f"this host cannot make bridge wires: {lack}", hint="Use `wires: hub`, or mend what is missing."
        )
    return "hub" if lack else "bridge"


def make(kind: Kind, layout: Layout, runner: Runner) -> Wires:
    """The wires of an instance."""
    from labctl.providers.qemu.bridge import BridgeWires  # they import this module
    from labctl.providers.qemu.hub import HubWires

    return BridgeWires(layout, runner) if kind == "bridge" else HubWires(layout, runner)


def abilities(kind: Kind) -> Abilities:
    """What a kind of wires can hold."""
    from labctl.providers.qemu.bridge import BridgeWires
    from labctl.providers.qemu.hub import HubWires

    return (BridgeWires if kind == "bridge" else HubWires).abilities


@cache
def bridge_lack() -> str:
    """Why this host cannot make bridge wires, or ``""``: from this host boot's note that it can, or by trying."""
    from labctl.providers.qemu.bridge_trial import lack

    return lack(Runner())
