"""Programs that pass on, without the kernel's forwarding, what is for others: no setting says so."""

from __future__ import annotations

_PROGRAM = """
import socket
here, there = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in range(2))
here.bind(("{here}", 3)), there.bind(("{there}", 0))
own, out = here.getsockname()[4], there.getsockname()[4]
while True:
    frame = here.recv(2000)
    if frame[:6] == own and frame[12:14] == bytes((8, 0)):
        there.send(bytes.fromhex("{to}") + out + frame[12:])
"""


def program(here: str, there: str, mac: str) -> str:
    """For a Python: what comes to its own address on one device goes out by the other, to that MAC address."""
    return _PROGRAM.format(here=here, there=there, to=mac.replace(":", ""))


DATAGRAMS = """
import socket, sys
here, there = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
here.bind(("", int(sys.argv[1])))
there.connect((sys.argv[2], int(sys.argv[3])))
while True:
    there.send(here.recv(2000))
"""
"""For a Python; its arguments are its own port, and the address and port to pass datagrams on to."""
