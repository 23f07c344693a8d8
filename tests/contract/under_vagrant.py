"""The engines under Vagrant under the contract, each in a place of its own: this host may have neither."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import psutil
import pytest

from labctl.images import resolve_box
from labctl.plan.model import LabPlan, ManagementPlan
from labctl.providers.base import BootImage, Provider
from labctl.providers.vagrant.provider import LibvirtProvider, VirtualBoxProvider
from tests.contract.subject import Subject
from tests.support.libvirt import libvirtd
from tests.support.surroundings import Surroundings, surroundings
from tests.virtualbox.box import empty_box
from tests.virtualbox.harness import virtualbox_host
from tests.virtualbox.tree import UnavailableError, tree

_CLONE_NEWNET = 0x40000000  # of setns(2), which Python has from 3.12 on


class VagrantSubject(Subject):
    """What both have in common: a provider notes what its things are called, and only that tells them from others'."""

    own_steps = False

    def __init__(self) -> None:
        self._marks: dict[Path, set[str]] = {}

    @contextmanager
    def quickly(self, workdir: Path) -> Iterator[None]:
        """The engine's own programs are asked; Vagrant, which takes as long as all of them, is not."""
        log = workdir / "commands.log"
        before = log.read_text()
        yield
        added = log.read_text().removeprefix(before).splitlines()
        assert added
        assert not [line for line in added if "vagrant" in line]

    def _remember(self, workdir: Path) -> None:
        noted = workdir / "names.json"
        if noted.exists():
            names = json.loads(noted.read_text())
            marks = {name for name, _ in names["machines"].values()} | set(names["networks"])
            self._marks.setdefault(workdir, set()).update(marks)

    def traces(self, workdir: Path) -> list[str]:
        """The folder, and whatever the engine lists that has a name in it that was noted there."""
        found = [str(workdir)] if workdir.exists() else []
        marks = self._marks.get(workdir, ())
        return found + [line for line in self._listed() if any(mark in line for mark in marks)]

    def _listed(self) -> list[str]:
        """A line for each machine, disk and network of the engine."""
        raise NotImplementedError


class VirtualBoxSubject(VagrantSubject):
    """Real machines with empty disks: nobody answers in them."""

    skew = 30.0  # interpreted machines leave VirtualBox's own service little of a host with two cores

    def provider(self, workdir: Path) -> Provider:
        self._remember(workdir)
        return VirtualBoxProvider(workdir)

    @contextmanager
    def furnished(self, home: Path) -> Iterator[None]:
        try:
            system = tree()
        except UnavailableError as reason:
            pytest.skip(str(reason))
        self._image = empty_box(system)
        shared = [self._image.disk.parent, home.parent]  # tests have folders of their own
        with (
            virtualbox_host(system, home / "place", shared=shared) as self._host,
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in self._host.environment.items():
                patch.setenv(name, value)
            yield

    def plan(self, plan: LabPlan) -> LabPlan:
        machines = tuple(replace(machine, memory=64 << 20) for machine in plan.machines)
        return replace(plan, provider="virtualbox", machines=machines)

    def image(self) -> BootImage:
        return self._image

    def kill(self, provider: Provider, plan: LabPlan, machine: str) -> None:
        _kill(self._process(plan, machine))
        _wait_for(lambda: _state(provider, plan, machine) != "running")

    def generation(self, provider: Provider, plan: LabPlan, machine: str) -> object:
        return self._process(plan, machine).pid

    def _process(self, plan: LabPlan, machine: str) -> psutil.Process:
        name = f"labctl.{plan.lab}.{plan.instance}.{machine}"
        (found,) = [
            process
            for process in psutil.Process(self._host.pid).children(recursive=True)
            if name in (argv := process.as_dict(["cmdline"])["cmdline"] or [])
            and any(word.endswith("/VBoxHeadless") for word in argv)
        ]
        return found

    def _listed(self) -> list[str]:
        said = "".join(self._host.run("VBoxManage", "list", what) for what in ("vms", "hdds", "natnets", "intnets"))
        return [*said.splitlines(), *(path.name for path in (self._host.home / "VirtualBox VMs").iterdir())]


class LibvirtSubject(VagrantSubject):
    """Real guests, of the box that labctl makes, on a host of the test's own with a libvirt daemon of its own."""

    real = True

    def __init__(self) -> None:
        super().__init__()
        self.settings = {"libvirt": {"driver": "qemu"}}

    def provider(self, workdir: Path) -> Provider:
        self._remember(workdir)
        return LibvirtProvider(workdir)

    @contextmanager
    def furnished(self, home: Path) -> Iterator[None]:
        _box()  # while there is a way to the mirror
        with surroundings(home) as self._host, libvirtd(self._host, home / "libvirt"), _inside(self._host):
            programs = home / "bin"
            programs.mkdir()
            for name in ("virsh", "vagrant"):
                _write_wrapper(programs / name, self._host)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
                patch.setenv("VAGRANT_HOME", str(home / "vagrant"))
                yield

    def plan(self, plan: LabPlan) -> LabPlan:
        """With a management network on which each machine has an address, and which no two instances share."""
        subnet = IPv4Network("192.168.201.0/24" if plan.instance == "default" else "192.168.202.0/24")
        seats = [IPv4Interface((subnet[number], subnet.prefixlen)) for number in range(2, 2 + len(plan.machines))]
        return replace(
            plan,
            provider="libvirt",
            management=ManagementPlan(subnet, subnet[1], subnet[1], seats[0], shared=True),
            machines=tuple(
                replace(machine, management_address=seat) for machine, seat in zip(plan.machines, seats, strict=True)
            ),
        )

    def image(self) -> BootImage:
        return _box()

    def kill(self, provider: Provider, plan: LabPlan, machine: str) -> None:
        _kill(self._process(plan, machine))
        _wait_for(lambda: _state(provider, plan, machine) != "running")

    def generation(self, provider: Provider, plan: LabPlan, machine: str) -> object:
        return self._process(plan, machine).pid

    def _process(self, plan: LabPlan, machine: str) -> psutil.Process:
        name = f"guest=labctl.{plan.lab}.{plan.instance}.{machine},"
        running = psutil.process_iter(["cmdline"])
        (found,) = [p for p in running if any(word.startswith(name) for word in p.info["cmdline"] or ())]
        return found

    def _listed(self) -> list[str]:
        virsh = ("virsh", "--quiet", "--connect", "qemu:///system")
        lists = (("list", "--all", "--name"), ("net-list", "--all", "--name"))
        return [line for words in lists for line in self._host.run(*virsh, *words).splitlines()]


@functools.cache
def _box() -> BootImage:
    box = resolve_box("debian-12", provider="libvirt").image()
    return BootImage(box.name, box.digest, box.disk, user=box.user)


@contextmanager
def _inside(host: Surroundings) -> Iterator[None]:
    """Let this thread, and what it starts, have the network of that host."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as here, Path(f"/proc/{host.host}/ns/net").open() as there:
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(here.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def _write_wrapper(path: Path, host: Surroundings) -> None:
    """A program that sees the daemon's socket, which only that host's mounts have."""
    real = shutil.which(path.name)
    assert real is not None, f"{path.name} is not installed; make setup installs it"
    path.write_text(f'#!/bin/sh\nexec nsenter --target={host.host} --mount --wd="$PWD" -- {real} "$@"\n')
    path.chmod(0o755)


def _kill(process: psutil.Process) -> None:
    process.kill()
    process.wait(10)


def _state(provider: Provider, plan: LabPlan, machine: str) -> str:
    return next(status.state for status in provider.observe(plan).machines if status.name == machine)


def _wait_for(happened: Callable[[], bool]) -> None:
    """The engine notices a moment later."""
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)
