"""The providers under the contract, and what each needs to be looked at from outside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from labctl.host.folders import runtime_root
from labctl.plan.model import LabPlan
from labctl.providers.base import BootImage, Provider
from labctl.providers.fake.provider import FakeProvider
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.provider import QemuProvider
from tests.contract.subject import Subject
from tests.contract.under_vagrant import LibvirtSubject, VirtualBoxSubject
from tests.support.images import debian


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
        return provider._notes.read()[machine].boots

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


SUBJECTS = {
    "fake": FakeSubject,
    "qemu-bridge": lambda: QemuSubject("bridge"),
    "qemu-hub": lambda: QemuSubject("hub"),
    "virtualbox": VirtualBoxSubject,
    "libvirt": LibvirtSubject,
}
# Minutes each, like all tests of the engines under Vagrant.
_UNDER_VAGRANT = (pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(1800))


def all_but(*names: str) -> list[Any]:
    """The other subjects as pytest's parameters, with the marks that they need."""
    return [
        pytest.param(name, marks=_UNDER_VAGRANT if name in ("virtualbox", "libvirt") else ())
        for name in SUBJECTS
        if name not in names
    ]
