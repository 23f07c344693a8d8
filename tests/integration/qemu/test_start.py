"""How machines start: what is asked of their processes and guests, and what becomes of a template that fails.

A stand-in is the QEMU, because the real one neither hangs nor refuses on demand.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from labctl.events import Event
from labctl.host.files import remove_tree
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import BootImage, Job
from labctl.providers.qemu import observation, start, template
from labctl.providers.qemu import record as records
from labctl.providers.qemu.argv import BINARY
from labctl.providers.qemu.guest import _AWAIT_LOGIN, _LOGIN_SECONDS, _NO_LOGIN
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.lift import Lift
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.template import Template
from labctl.providers.qemu.vm import processes
from labctl.providers.qemu.wires import Abilities, Attachment, Opening, Wires
from labctl.providers.workers import Stop
from labctl.spec.model import DiskSpec
from tests.support import plans

pytestmark = pytest.mark.integration

STAND_IN = Path(__file__).with_name("stand_in.py")


class NoWires(Wires):
    """Of machines without NICs."""

    kind = "hub"
    abilities = Abilities(promiscuous=False, isolated_ports=False, egress=False)

    def prepare(self, plan: LabPlan) -> None:
        pass

    def attach(self, plan: LabPlan, machine: MachinePlan) -> Attachment:
        return Attachment({})

    def ports(self, plan: LabPlan) -> Mapping[str, str]:
        return {}

    def openings(self, plan: LabPlan) -> tuple[Opening, ...]:
        return ()

    def destroy(self) -> None:
        pass

    def leftovers(self) -> tuple[str, ...]:
        return ()


class Host:
    """A machine called web that is about to start, and a template for it."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.folder = folder / "bin", folder
        self.bin.mkdir()
        (self.bin / BINARY).write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
        (self.bin / BINARY).chmod(0o755)
        for name in ("disk", "kernel"):
            (folder / name).touch()
        self.layout = Layout.of(folder / "engine")
        self.layout.prepare()
        self.plan = plans.lab([], [plans.machine("web")])
        self.image = BootImage("debian-12", "d", folder / "disk", folder / "kernel", None, "quiet")
        self.events: list[Event] = []
        self.wires = NoWires(self.layout, Runner())

    def make_template(self) -> Template:
        found = template.of(self.plan, self.plan.machines[0], self.image, "tcg")
        found.folder.mkdir(parents=True)
        for path in (found.base.ram, found.base.state, found.disk):
            path.touch()
        return found

    def up(self, *copies: str) -> MachineRecord:
        (self.bin / "copies").write_text(" ".join(copies))
        Runner().run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.layout.key])
        job = Job(self.plan, {"web": "create"}, {"web": self.image}, self.folder)
        Lift(self.layout, self.wires, job, "tcg", Runner(), self.events.append, Stop()).machine("web")
        found = records.read(self.layout, "web")
        assert found is not None and found.complete and found.process is not None and found.process.alive()
        return found

    def calls(self) -> Counter[str]:
        return Counter((self.bin / "calls").read_text().splitlines())

    def warnings(self) -> list[str]:
        return [event.message for event in self.events if event.status == "warning"]

    def said(self) -> str:
        return observation.observe(self.layout, self.wires, self.plan).machines[0].details


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(start, "_START_SECONDS", 3.0)
    monkeypatch.setattr(start, "_END_SECONDS", 0.2)
    found = Host(tmp_path)
    yield found
    for _, process in list(processes(found.layout)):
        process.stop(grace=0)
    remove_tree(found.layout.runtime)


def test_a_copy_is_asked_no_more_than_once_and_nobody_knocks_at_its_ssh(host: Host) -> None:
    host.make_template()
    record = host.up()
    assert record.copied and host.warnings() == []
    assert host.calls() == {
        **{"copy ok": 1, "monitor": 1, "guest-sync-delimited": 1},
        **{"guest-file-open": 2, "guest-file-write": 1, "guest-file-read": 1, "guest-file-close": 2},
    }
    with socket.create_connection(("127.0.0.1", record.port)) as caller:
        assert caller.recv(1) == b"S", "somebody who knocks is noticed"
    assert host.calls()["login"] == 1
    assert host.said() == ""


@pytest.mark.parametrize("how", ["refuse", "fail", "hang"])
def test_a_copy_that_fails_once_is_tried_again(host: Host, how: str) -> None:
    found = host.make_template()
    assert host.up(how).copied
    assert host.calls()["boot"] == 0 and host.calls()["copy ok"] == 1
    assert host.warnings() == [] and found.there()


def test_a_template_outlives_a_host_that_is_too_busy_to_load_it(host: Host) -> None:
    found = host.make_template()
    record = host.up("hang", "hang")
    assert not record.copied and host.calls()["boot"] == 1
    assert host.warnings() == ["QEMU does not answer within 3 s; it boots instead"]
    assert host.said() == "booted: its template could not be loaded"
    assert found.there()


@pytest.mark.parametrize("how", ["refuse", "fail"])
def test_a_template_that_qemu_does_not_take_is_dropped(host: Host, how: str) -> None:
    found = host.make_template()
    assert not host.up(how, how).copied
    (said,) = host.warnings()
    assert ("the template is no good" if how == "refuse" else "QEMU could not load the state") in said
    assert host.said() == "booted: its template could not be loaded"
    assert not found.there()


def test_a_template_that_cannot_be_made_is_told_as_long_as_the_machine_runs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    Runner().run(["qemu-img", "create", "-q", "-f", "qcow2", host.image.disk, "1M"])
    monkeypatch.setattr(template, "_LEAST_FREE", 1 << 60)
    host.up()
    assert host.warnings() == ["there is no room on the disk for a template; it boots instead"]
    assert host.said() == "booted: its template could not be made"


def test_a_machine_with_disks_of_its_own_says_that_it_booted(host: Host) -> None:
    host.plan = plans.lab([], [plans.machine("web", disks=(DiskSpec("data", 1 << 20),))])
    Runner().run(["qemu-img", "create", "-q", "-f", "qcow2", host.folder / "disk", "1M"])
    host.up()
    assert host.said() == "booted: has disks of its own"
    assert host.warnings() == []


def test_machines_are_looked_at_together(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight that take half a second each: one after the other takes four."""
    plan = plans.lab([], [plans.machine(f"m{number}") for number in range(8)])
    slow = observation._machine

    def machine(*arguments: object) -> observation._Seen:
        time.sleep(0.5)
        return slow(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(observation, "_machine", machine)
    began = time.monotonic()
    seen = observation.observe(host.layout, host.wires, plan)
    assert time.monotonic() - began < 3
    assert [status.name for status in seen.machines] == [f"m{number}" for number in range(8)]


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", None])
def test_a_guest_is_asked_by_its_kernel_who_listens(family: str | None) -> None:
    """In a namespace of its own: what the guest's script says where somebody listens on port 22, and where nobody."""
    script = _AWAIT_LOGIN.replace(f"+ {_LOGIN_SECONDS}", "+ 1")
    assert script != _AWAIT_LOGIN
    listen = f"socket.create_server(('', 22), family=socket.{family})" if family else "None"
    program = f"import socket, subprocess, sys; s = {listen}; subprocess.run(['sh', '-e'], check=True)"
    argv = ["unshare", "--net", "--", sys.executable, "-c", program]
    done = subprocess.run(argv, input=script, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ("" if family else _NO_LOGIN)
