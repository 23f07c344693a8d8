"""The user's terminal joined to a byte stream, for serial consoles."""

from __future__ import annotations

import os
import select
import socket
import sys
from pathlib import Path

from labctl.errors import HostError

LEAVE = b"\x1d"  # Ctrl-], as telnet and virsh have it


def attach(path: Path) -> None:
    """Join standard input and output to the unix socket ``path`` until Ctrl-] or the end of the stream.

    Raises HostError where nobody listens there or this system has no such terminals.
    """
    if os.name != "posix":
        raise HostError(
            "the console command needs a POSIX terminal", hint="Use labctl ssh, or labctl logs [LAB] MACHINE."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        try:
            stream.connect(str(path))
        except OSError as error:
            raise HostError(
                f"the console at {path} does not answer: {error.strerror}", hint="labctl status says whether it runs."
            ) from error
        if sys.stdin.isatty():
            _attach_raw(stream)
        else:
            _copy(stream)


def _attach_raw(stream: socket.socket) -> None:
    import termios
    import tty

    saved = termios.tcgetattr(sys.stdin.fileno())
    try:
        tty.setraw(sys.stdin.fileno())
        _copy(stream)
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, saved)


def _copy(stream: socket.socket) -> None:
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    watched: list[int | socket.socket] = [source, stream]
    while stream in watched:
        ready, _, _ = select.select(watched, [], [])
        if source in ready:
            typed = os.read(source, 4096)
            if LEAVE in typed:
                return
            if typed:
                stream.sendall(typed)
            else:
                watched.remove(source)  # piped input has ended; what the guest still says is wanted
        if stream in ready:
            said = stream.recv(65536)
            if not said:
                return
            os.write(sink, said)
