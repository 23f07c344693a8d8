"""A program that runs inside a network namespace, started by ``labctl.host.netns`` with ``python -I -S``.

It reads a JSON list of actions from standard input, carries them out in order, writes the output of the programs it ran
to standard output, and sends one file descriptor per tap over the socket whose number is its argument.
It imports nothing of labctl, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def tap(name: str) -> int:
    """Make a tap that lives as long as the returned descriptor; offloads (vnet_hdr) as QEMU expects them."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    return fd


def sysctl(key: str, value: str) -> None:
    """Set a kernel parameter of this namespace; one that this kernel does not have needs no setting."""
    try:
        with open("/proc/sys/" + key, "w") as file:  # noqa: PTH123 - pathlib takes longer to import than all else here
            file.write(value)
    except FileNotFoundError:
        pass


def main() -> int:
    """Carry out the actions; the exit status is that of the first program that failed."""
    taps = array.array("i")
    for kind, value in json.load(sys.stdin):
        if kind == "tap":
            try:
                taps.append(tap(value))
            except OSError as error:
                sys.stderr.write(f"tap {value}: {error}\n")
                return 1
        elif kind == "sysctl":
            sysctl(*value)
        else:
            argv, stdin = value
            done = subprocess.run(argv, input=stdin, text=True, stdout=subprocess.PIPE, check=False)
            sys.stdout.write(done.stdout)
            if done.returncode != 0:
                return done.returncode
    if taps:
        with socket.socket(fileno=int(sys.argv[1])) as channel:
            channel.sendmsg([b"taps"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, taps)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
