"""A host of its own for tests: a network namespace that plays this computer and a second one that plays the world.

Whatever labctl, its guests or a test sends from there reaches these two namespaces at most.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST, HOST6, WORLD, WORLD6 = "192.0.2.1", "2001:db8:77::1", "192.0.2.53", "2001:db8:77::53"
LAN = "192.168.177.1"  # another address of the host: private, as homes and offices have them
NEIGHBOUR = "192.168.177.2"  # somebody on that LAN
PORT = 8000  # where the world and the neighbour answer

_SERVER = Path(__file__).with_name("world.py")


@dataclass(frozen=True)
class Surroundings:
    """The two namespaces, each held by a process."""

    host: int
    world: int

    def enter(self, folder: Path) -> list[str]:
        """The start of an argv that runs the rest as on that host, in ``folder``."""
        return ["nsenter", f"--target={self.host}", "--net", "--mount", f"--wd={folder}", "--"]

    def run(self, *argv: str) -> str:
        """Run a program on that host."""
        return _run([*self.enter(Path("/")), *argv])


@contextmanager
def surroundings(folder: Path) -> Iterator[Surroundings]:
    """Make them; root only. The host asks the world for names."""
    assert os.geteuid() == 0, "these tests make network namespaces: run them as root"
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {WORLD}\n")
    with ExitStack() as stack:
        host = stack.enter_context(_holder("--net", "--mount", "--propagation", "slave"))
        world = stack.enter_context(_holder("--net"))
        found = Surroundings(host, world)
        outside = ["nsenter", f"--target={world}", "--net", "--"]
        found.run("mount", "--bind", str(resolver), "/etc/resolv.conf")
        found.run("mount", "-t", "sysfs", "sysfs", "/sys")  # it shows the devices of the namespace that mounts it
        for prefix in (found.enter(Path("/")), outside):
            _run([*prefix, "ip", "link", "set", "lo", "up"])
        found.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", str(world))
        for prefix, device, addresses in (
            (found.enter(Path("/")), "up0", (f"{HOST}/24", f"{HOST6}/64", f"{LAN}/24")),
            (outside, "down0", (f"{WORLD}/24", f"{WORLD6}/64", f"{NEIGHBOUR}/24")),
        ):
            for address in addresses:
                nodad = ["nodad"] if ":" in address else []
                _run([*prefix, "ip", "addr", "add", address, "dev", device, *nodad])
            _run([*prefix, "ip", "link", "set", device, "up"])
        found.run("ip", "route", "add", "default", "via", WORLD)
        stack.enter_context(_process([*outside, sys.executable, "-I", str(_SERVER), str(PORT)], ready=b"ready\n"))
        yield found


@contextmanager
def _holder(*flags: str) -> Iterator[int]:
    """A process in namespaces of its own, which end with it."""
    argv = ["unshare", *flags, "--", "sh", "-c", "echo ready; exec sleep 86400"]
    with _process(argv, ready=b"ready\n") as process:
        yield process.pid


@contextmanager
def _process(argv: Sequence[str], *, ready: bytes) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == ready, argv
            yield process
        finally:
            process.kill()


def _run(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout
