"""What lies beneath: QEMU by hand on the image that the labs' machines have, with nothing of labctl's around it.

The accelerator with the limit of its cache, the processor, the memory and the kernel's parameters are taken from the
command line that labctl gives to its own machines, so that what is compared is not another computer.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from labctl.errors import GuestError
from labctl.images import Image, resolve
from labctl.providers.base import BootImage
from labctl.providers.qemu.accelerator import accelerator
from labctl.providers.qemu.agent import Agent
from labctl.providers.qemu.argv import BINARY, Seat, machine_argv
from labctl.providers.qemu.layout import MachineFiles
from tests.bench.labs import MEMORY
from tests.support import plans

_SNAPSHOT = "floor"
_SECONDS = 300.0


def boot(folder: Path) -> float:
    """Seconds from starting QEMU to the first answer of its guest agent."""
    return _agent_after(_argv(folder, "boot"), folder / "boot.sock")


def load(folder: Path) -> float:
    """Seconds from starting QEMU with ``-loadvm`` of a state that it saved itself to the agent's first answer."""
    argv, socket = _argv(folder, "load"), folder / "load.sock"
    with _running([*argv, "-monitor", "stdio"]) as process:
        assert process.stdin is not None
        _await_agent(process, socket)
        process.stdin.write(f"savevm {_SNAPSHOT}\nquit\n".encode())
        process.stdin.flush()
        process.wait(60)
    return _agent_after([*argv, "-loadvm", _SNAPSHOT], socket)


def _argv(folder: Path, name: str) -> list[str]:
    image = resolve("debian-12")
    overlay = folder / f"{name}.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", "qcow2", str(overlay)], check=True
    )
    return [
        BINARY, "-M", "q35", *_as_labctl(image), "-nodefaults", "-display", "none",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd),
        "-drive", f"file={overlay},if=virtio,cache=unsafe", "-device", "virtio-serial-pci",
        "-chardev", f"socket,path={folder / name}.sock,server=on,wait=off,id=agent",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    ]  # fmt: skip


def _as_labctl(image: Image) -> list[str]:
    """What a machine of labctl's with this image has of the options that decide how fast a guest is."""
    guest = BootImage(image.name, image.digest, image.disk, image.kernel, image.initrd, image.cmdline, image.user)
    files = MachineFiles(Path("machine"), Path("socket"))
    machine = plans.machine("floor", memory=MEMORY << 20)
    seat = Seat(accelerator(image.kernel).name, 0, files, {}, "floor")
    argv = machine_argv(plans.lab((), (machine,)), machine, guest, seat)
    given = dict(itertools.pairwise(argv))
    return [
        "-m",
        str(MEMORY),
        *(part for name in ("-accel", "-cpu", "-smp", "-append") for part in (name, given[name])),
    ]


def _agent_after(argv: list[str], socket: Path) -> float:
    began = time.perf_counter()
    with _running(argv) as process:
        _await_agent(process, socket)
        return time.perf_counter() - began


def _await_agent(process: subprocess.Popen[bytes], socket: Path) -> None:
    """Ask the guest's agent until it answers; QEMU listens only a moment after its start."""
    while True:
        try:
            session = Agent(socket)
            break
        except GuestError:
            if process.poll() is not None:
                raise
            time.sleep(0.005)
    try:
        session.synchronise(_SECONDS)
    finally:
        session.close()


@contextlib.contextmanager
def _running(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
