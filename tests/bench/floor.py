"""What lies beneath: QEMU by hand on the image that the labs' machines have, with nothing of labctl's around it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from labctl.images import resolve
from labctl.providers.qemu.agent import agent

_MEMORY = 256  # MiB, as the labs' machines have
_SNAPSHOT = "floor"
# as labctl's own machines have without hardware virtualisation, so that what is compared is not the processor
_PROCESSOR = ("-accel", "tcg,tb-size=64", "-cpu", "Nehalem,+rdrand")
_PARAMETERS = "nowatchdog"


def boot(folder: Path) -> float:
    """Seconds from starting QEMU to the first answer of its guest agent."""
    return _agent_after(_argv(folder, "boot"), folder / "boot.sock")


def load(folder: Path) -> float:
    """Seconds from starting QEMU with ``-loadvm`` of a state that it saved itself to the agent's first answer."""
    argv, socket = _argv(folder, "load"), folder / "load.sock"
    with _running([*argv, "-monitor", "stdio"]) as process:
        assert process.stdin is not None
        with agent(socket, timeout=120):
            pass
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
        "qemu-system-x86_64", "-M", "q35", *_PROCESSOR, "-m", str(_MEMORY),
        "-nodefaults", "-display", "none",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", f"{image.cmdline} {_PARAMETERS}",
        "-drive", f"file={overlay},if=virtio,cache=unsafe", "-device", "virtio-serial-pci",
        "-chardev", f"socket,path={folder / name}.sock,server=on,wait=off,id=agent",
        "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    ]  # fmt: skip


def _agent_after(argv: list[str], socket: Path) -> float:
    began = time.perf_counter()
    with _running(argv), agent(socket, timeout=120):
        return time.perf_counter() - began


@contextlib.contextmanager
def _running(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
