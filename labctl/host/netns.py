"""A network namespace of its own, kept open by one tiny process, and taps made in it.

Linux only. The host's interfaces, addresses and routes do not exist inside; nothing inside exists on the host.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.errors import HostError
from labctl.host.processes import ProcessId
from labctl.host.runner import Runner

_HELPER = Path(__file__).with_name("netns_helper.py")
_MAX_TAPS = 250  # SCM_MAX_FD is 253

Action = tuple[str, Any]
"""What the helper does inside: ``("tap", name)``, ``("sysctl", (key, value))`` or ``("run", (argv, stdin))``."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace. holder keeps it open; user says whether it belongs to a user namespace (no root needed)."""

    holder: ProcessId
    user: bool

    def run(self, actions: Sequence[Action], *, runner: Runner) -> tuple[str, list[int]]:
        """Carry out actions inside, in order. Gives the output of the programs run and a file descriptor per tap.

        The caller closes the descriptors; a tap vanishes with its last one. Raises CommandError if one fails.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            argv = [*self.enter(), sys.executable, "-I", "-S", _HELPER, theirs.fileno()]
            result = runner.run(argv, stdin=json.dumps(actions).encode(), pass_fds=[theirs.fileno()], timeout=30)
            wanted = sum(kind == "tap" for kind, _ in actions)
            return result.text, _receive(ours, wanted) if wanted else []

    def enter(self) -> list[str | int]:
        """The start of an argv that runs the rest inside."""
        user = ["--user", "--preserve-credentials"] if self.user else []
        return ["nsenter", f"--target={self.holder.pid}", *user, "--net", "--"]


def create(marker: Path, *, user: bool, runner: Runner, passing: bool = False) -> Namespace:
    """Make a namespace. marker: an existing file; the holder has its path as an argument, by which it is found again.

    user: make a user namespace around it, for those who are not root. passing: it ends with this process, however that
    ends. Raises HostError.
    """
    # tail -f is the smallest program that stays, does nothing, and carries a path of ours in its arguments
    owner = ["--user", "--map-root-user"] if user else []
    log = marker.with_suffix(".log")
    mortal = ["setpriv", "--pdeathsig", "SIGKILL", "--"] if passing else []
    process = runner.spawn(["unshare", *owner, "--net", "--", *mortal, "tail", "-n0", "-f", marker], output=log)
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        holder = ProcessId.of(process.pid)
        if holder and _inside(process.pid):
            return Namespace(holder, user)
        time.sleep(0.005)
    process.kill()
    process.wait()
    raise HostError("cannot make a network namespace", details=log.read_text(errors="replace")[-500:])


def _inside(pid: int) -> bool:
    """Whether the process has left our network namespace and become the holder."""
    try:
        return (
            Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            and Path(f"/proc/{pid}/comm").read_text().strip() != "unshare"
        )
    except OSError:
        return False


def _receive(channel: socket.socket, count: int) -> list[int]:
    fds = array.array("i")
    channel.settimeout(5)
    _data, ancillary, _flags, _address = channel.recvmsg(16, socket.CMSG_SPACE(_MAX_TAPS * fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if len(fds) != count:
        for fd in fds:
            os.close(fd)
        raise HostError(f"the network helper gave {len(fds)} of {count} taps")
    return list(fds)
