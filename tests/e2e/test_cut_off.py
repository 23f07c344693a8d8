"""Programs in a guest whose cable is out: begun before, collected after, nothing goes by the cable meanwhile."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from labctl.errors import GuestError
from labctl.host.runner import Runner
from labctl.lifecycle import locate
from labctl.lifecycle.locate import Running
from labctl.providers.base import ExecResult
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.qmp import monitor
from labctl.providers.ssh import disconnect, run_as_root
from labctl.providers.vagrant import cut_off
from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LAB = """\
version: 1
name: cable
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  wire: {subnet: 10.9.0.0/28}
machines:
  one: {networks: {wire: 10.9.0.1}}
"""
SAYS = 'cat; cat "$1"; echo beside >&2; exit 3'


class Guest:
    """A guest reached by SSH only, whose management cable a test pulls by QEMU's monitor."""

    def __init__(self, lab: Running, folder: Path) -> None:
        self.lab, self.control = lab, folder / "ssh"
        self.plugged: list[bool] = []
        self.mac = lab.plan.machine("one").management_mac

    def execute(self, argv: Sequence[str], *, stdin: bytes, timeout: float) -> ExecResult:
        assert self.plugged[-1], "nothing may be asked while the cable is out"
        endpoint = self.lab.provider.endpoint(self.lab.plan, "one")
        command = shlex.join(argv)
        return run_as_root(endpoint, command, stdin=stdin, timeout=timeout, control=self.control, runner=Runner())

    def plug(self, joined: bool) -> None:
        if not joined and self.control.exists():
            disconnect(self.control, Runner())
        with monitor(Layout.of(self.lab.folder.engine).machine("one").monitor) as session:
            session.execute("set_link", name="nic-mgmt", up=joined)
        self.plugged.append(joined)


@pytest.fixture
def guest(labctl: Labctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Guest]:
    lab = labctl.home / "cable"
    lab.mkdir(exist_ok=True)
    (lab / "lab.yaml").write_text(LAB)
    command = Labctl(labctl.state, labctl.home)  # on this host, from which the test itself has to reach the guest
    command.run("up", lab)
    monkeypatch.setenv("LABCTL_STATE_DIR", str(labctl.state))
    yield Guest(locate.find(lab), tmp_path)
    command.destroy_all()


def test_a_program_runs_while_the_cable_is_out(guest: Guest) -> None:
    argv = ["sh", "-c", SAYS, "sh", "/sys/class/net/mgmt/carrier"]
    said = cut_off.run(guest.execute, guest.plug, guest.mac, argv, stdin=b"asked\n", seconds=1, timeout=30)
    assert said == ExecResult(3, b"asked\n0\n", b"beside\n")
    assert guest.plugged == [True, False, True, False]
    assert not guest.plugged[-1]


def test_what_was_at_work_when_somebody_looked_is_not_believed(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_off, "_PATIENCE", 0.0)
    asked = 0

    def execute(argv: Sequence[str], *, stdin: bytes, timeout: float) -> ExecResult:
        nonlocal asked
        asked += 1
        said = guest.execute(argv, stdin=stdin, timeout=timeout)
        if asked == 2:  # somebody has looked
            guest.execute(["touch", "/run/looked"], stdin=b"", timeout=60)
        return said

    slow = ["sh", "-c", "until [ -e /run/looked ]; do sleep 0.1; done; echo late"]
    with pytest.raises(GuestError, match="the cable was put in while it was at work"):
        cut_off.run(execute, guest.plug, guest.mac, slow, stdin=b"", seconds=1, timeout=60)
    assert guest.plugged.count(True) > 2
    assert not guest.plugged[-1]
    guest.plug(True)
    left = ["sh", "-c", "for one in /run/labctl-*/code; do echo $one; done"]
    assert guest.execute(left, stdin=b"", timeout=60).stdout == b"/run/labctl-*/code\n", "it was fetched all the same"


def test_a_guest_that_does_not_answer_is_an_error_and_its_cable_stays_out(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(argv: Sequence[str], *, stdin: bytes, timeout: float) -> ExecResult:
        raise GuestError("no connection")

    with monkeypatch.context() as impatient, pytest.raises(GuestError, match="no connection"):
        impatient.setattr(cut_off, "_REACH_SECONDS", 2.0)
        cut_off.run(silent, guest.plug, guest.mac, ["true"], stdin=b"", seconds=1, timeout=30)
    assert guest.plugged == [True, False]
    with pytest.raises(GuestError, match="could not be started"):
        cut_off.run(guest.execute, guest.plug, "02:00:00:00:00:99", ["true"], stdin=b"", seconds=1, timeout=30)
    assert not guest.plugged[-1]
