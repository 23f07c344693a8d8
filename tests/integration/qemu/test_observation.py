"""What a real QEMU says of a machine that was given more than its plan has."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.host.files import private_folder
from labctl.host.processes import ProcessId
from labctl.host.runner import Runner
from labctl.providers.base import BootImage
from labctl.providers.qemu import observation, streams
from labctl.providers.qemu.argv import Seat, machine_argv
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.options import option
from labctl.providers.qemu.record import MachineRecord
from tests.support import plans
from tests.support.guests import until

pytestmark = pytest.mark.integration

WEB = plans.machine("web", plans.interface("web", "eth0", "lan"), plans.interface("web", "wan0", "wan"))
PLAN = plans.lab([plans.network("lan"), plans.network("wan", subnet="10.2.0.0/24")], [WEB])


def strange(tmp_path: Path, *more: str) -> tuple[str, ...]:
    """What is strange in the machine, which does not move, if QEMU is told so much more."""
    layout, runner = Layout.of(tmp_path / "engine"), Runner()
    layout.prepare()
    files = layout.machine(WEB.name)
    private_folder(files.folder)
    streams.make_pipes(files.agent)
    runner.run(["qemu-img", "create", "-q", "-f", "qcow2", files.overlay, 1 << 20])
    wires = {nic.device: option("hubport", id=f"net-{nic.device}", hubid=n) for n, nic in enumerate(WEB.interfaces, 1)}
    seat = Seat("tcg", 0, files, wires, layout.process_mark(WEB.name), still=True)
    process = runner.spawn(
        [*machine_argv(PLAN, WEB, BootImage("none", "", files.overlay), seat), *more], output=files.log
    )
    try:
        until(files.monitor.exists, seconds=30)
        known = ProcessId.of(process.pid)
        assert known is not None
        return observation._running(layout, PLAN, MachineRecord(WEB.name, {}), known, {}).strange
    finally:
        process.kill()
        process.wait()


def test_a_machine_as_planned_has_nothing_strange(tmp_path: Path) -> None:
    assert strange(tmp_path) == ()


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ("-netdev user,id=x -device virtio-net-pci,netdev=x", ["virtio-net-pci", "type=nic", "type=user"]),
        ("-netdev user,id=x -device e1000,netdev=x,id=nic-x", ["e1000", "type=nic", "type=user"]),
        ("-netdev user,id=x", ["type=user"]),
        ("-virtfs local,path=/,mount_tag=host,security_model=none", ["virtio-9p-pci"]),
        ("-device qemu-xhci", ["qemu-xhci"]),
        ("-chardev null,id=x -device virtserialport,chardev=x", ["channel x"]),
    ],
)
def test_whatever_is_more_is_told(more: str, kinds: list[str], tmp_path: Path) -> None:
    told = strange(tmp_path, *more.split())
    assert len(told) == len(kinds), told
    assert all(kind in words for kind, words in zip(kinds, told, strict=True)), told
