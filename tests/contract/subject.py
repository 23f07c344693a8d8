"""What the contract suite knows of a provider under test."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labctl.plan.model import LabPlan
from labctl.providers.base import BootImage, Provider


class Subject(ABC):
    """A provider under test. settings: the lab's own settings for it."""

    settings: Mapping[str, Mapping[str, Any]] = {}
    own_steps = True  # whether labctl runs provisioning steps itself, and not a program under it
    skew = 1.0  # seconds between the first and the last machine standing still, on a busy host
    real = False  # whether there are guests that can be logged in to

    @contextmanager
    def furnished(self, home: Path) -> Iterator[None]:
        """Give the engine what it needs for as long as its labs are there; skip where that cannot be had."""
        _ = home
        yield

    @contextmanager
    def quickly(self, workdir: Path) -> Iterator[None]:
        """Insist that what is done meanwhile is no more than a look at what runs."""
        _ = workdir
        started = time.process_time()  # the clock on the wall would measure what else this host is at
        yield
        assert time.process_time() - started < 1.0

    def plan(self, plan: LabPlan) -> LabPlan:
        """A plan as labctl makes it for this engine, from one that was made for any."""
        return plan

    @abstractmethod
    def provider(self, workdir: Path) -> Provider:
        """A provider object, as a new labctl process would make it."""

    @abstractmethod
    def image(self) -> BootImage:
        """What its machines boot."""

    @abstractmethod
    def kill(self, provider: Provider, plan: LabPlan, machine: str) -> None:
        """End a machine behind labctl's back."""

    @abstractmethod
    def generation(self, provider: Provider, plan: LabPlan, machine: str) -> object:
        """Something that changes whenever the machine is started."""

    @abstractmethod
    def traces(self, workdir: Path) -> list[str]:
        """Whatever of an instance exists on this host."""
