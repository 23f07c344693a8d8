"""The providers under the contract, and what each needs to be looked at from outside."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from labctl.host.folders import runtime_root
from labctl.plan.model import LabPlan
from labctl.providers.base import BootImage, Provider
from labctl.providers.fake.provider import FakeProvider
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.provider import QemuProvider
from tests.support.images import debian


class Subject(ABC):
    """A provider under test. settings: the lab's own settings for it."""

    settings: Mapping[str, Mapping[str, Any]] = {}
    real = False  # whether there are guests that can be logged in to

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


class FakeSubject(Subject):
    def provider(self, workdir: Path) -> FakeProvider:
        return FakeProvider(workdir)

    def image(self) -> BootImage:
        return BootImage("debian-12", "0" * 64, Path("disk.qcow2"))

    def kill(self, provider: Provider, plan: LabPlan, machine: str) -> None:
        assert isinstance(provider, FakeProvider)
        provider.kill(machine)

    def generation(self, provider: Provider, plan: LabPlan, machine: str) -> object:
        assert isinstance(provider, FakeProvider)
        return provider._read()[machine].boots

    def traces(self, workdir: Path) -> list[str]:
        return [str(workdir)] if workdir.exists() else []


class QemuSubject(Subject):
    real = True

    def __init__(self, wires: str) -> None:
        self.settings = {"qemu": {"wires": wires}}

    def provider(self, workdir: Path) -> QemuProvider:
        return QemuProvider(workdir)

    def image(self) -> BootImage:
        return debian()

    def kill(self, provider: Provider, plan: LabPlan, machine: str) -> None:
        status = next(s for s in provider.observe(plan).machines if s.name == machine)
        assert status.pid is not None
        process = psutil.Process(status.pid)
        process.kill()
        process.wait(10)

    def generation(self, provider: Provider, plan: LabPlan, machine: str) -> object:
        return next(s.pid for s in provider.observe(plan).machines if s.name == machine)

    def traces(self, workdir: Path) -> list[str]:
        """Folders, and processes with the instance's mark or folder in their arguments, holders of namespaces too."""
        mark = Layout.of(workdir).mark.removeprefix("labctl-")
        found = [str(path) for path in (workdir, runtime_root() / mark) if path.exists()]
        for process in psutil.process_iter(["cmdline", "status"]):
            argv = process.info["cmdline"] or []
            if process.pid != os.getpid() and process.info["status"] != "zombie" and any(mark in word for word in argv):
                found.append(" ".join(argv)[:200])
        return found


SUBJECTS = {"fake": FakeSubject, "qemu-bridge": lambda: QemuSubject("bridge"), "qemu-hub": lambda: QemuSubject("hub")}
