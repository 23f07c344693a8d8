"""What differs between the engines under Vagrant: asked of the engine itself, because Vagrant knows little of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.agent import GuestAgent
from labctl.providers.base import BootImage, Capabilities, Checkpoints, Observed


@dataclass(frozen=True, slots=True)
class Names:
    """What an instance's things are called in the engine, noted before any of them is made.

    machines: machine name to (name in the engine, UUID or ``""`` where the engine chooses). networks: of the lab, and
    the management network where labctl makes one.
    """

    machines: Mapping[str, tuple[str, str]]
    networks: tuple[str, ...]


class Engine(ABC):
    """An engine under Vagrant. All verbs are idempotent."""

    name: ClassVar[str]
    parallel: ClassVar[bool]
    """Whether several machines may be worked on at once."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @classmethod
    @abstractmethod
    def capabilities(cls) -> Capabilities:
        """What the engine can hold."""

    @abstractmethod
    def names(self, plan: LabPlan) -> Names:
        """What a plan's things are called."""

    @abstractmethod
    def prepare(self, plan: LabPlan) -> None:
        """Make what must be there before Vagrant starts machines."""

    def settle(self, plan: LabPlan, machine: str) -> None:
        """Make what is around a running machine what the plan says, wherever it may have been started or meddled with.

        Raises LabctlError.
        """
        _ = plan, machine

    def clear(self, noted: Path, kept: str) -> None:
        """Remove what a Vagrant that was killed has left of a machine that it was still making; remove the note.

        noted: the Vagrantfile's note of that. kept: the UUID of the machine itself, ``""`` where Vagrant knows none.
        Raises ProviderError.
        """
        _ = kept
        noted.unlink()

    def variables(self, images: Collection[BootImage]) -> Mapping[str, str]:
        """What the Vagrantfile asks the environment for, besides what is the same for every engine."""
        _ = images
        return {}

    @abstractmethod
    def observe(self, plan: LabPlan, known: Names) -> Observed:
        """Machines and NICs of the plan as the engine reports them; what else of ``known`` is there is left over."""

    @abstractmethod
    def address(self, plan: LabPlan, machine: str) -> tuple[str, int] | None:
        """Host and port of a running machine's SSH server as seen from here; None while the engine knows none."""

    @abstractmethod
    def agent(self, plan: LabPlan, machine: str) -> GuestAgent | None:
        """The guest agent of a machine, by a way that is open when it is sealed; None where there is none."""

    @abstractmethod
    def wake(self, plan: LabPlan, machine: str) -> None:
        """Let a paused machine go on. Vagrant cannot: it finds the ports taken that the machine itself holds."""

    @abstractmethod
    def joined(self, plan: LabPlan, machine: str) -> bool:
        """Whether a machine's management NIC is plugged in."""

    @abstractmethod
    def join(self, plan: LabPlan, machine: str, joined: bool) -> None:
        """Join a running or paused machine to its management NIC, or cut it off; read back. Raises ProviderError."""

    @abstractmethod
    def checkpoints(self, plan: LabPlan, forget: Callable[[str], None]) -> Checkpoints:
        """Snapshots of the plan's machines. ``forget`` is told of machines whose connections a restore has ended."""

    @abstractmethod
    def remove(self, machines: Mapping[str, tuple[str, str]]) -> None:
        """End machines and remove them with their disks, also disks whose machine was never made."""

    @abstractmethod
    def remove_networks(self, names: tuple[str, ...]) -> None:
        """Remove networks."""
