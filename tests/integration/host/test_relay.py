"""The program that joins its standard input and output with a socket."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from labctl.host import relay

pytestmark = pytest.mark.integration

MUCH = bytes(range(256)) * (1 << 15)  # 8 MiB: more than fits in between


@contextmanager
def joined() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """The program, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    argv = [sys.executable, "-I", "-S", relay.__file__, str(theirs.fileno())]
    pipe = subprocess.PIPE
    with ours, subprocess.Popen(argv, stdin=pipe, stdout=pipe, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()


def received(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def test_much_goes_both_ways_at_once_and_the_ends_are_told() -> None:
    with joined() as (process, ours):

        def speak() -> None:
            ours.sendall(MUCH)
            found.append(received(ours))
            ours.close()

        found: list[bytes] = []
        thread = threading.Thread(target=speak)
        thread.start()
        out, _ = process.communicate(MUCH[::-1], timeout=60)
        thread.join(60)
        assert (process.returncode, out == MUCH, found == [MUCH[::-1]]) == (0, True, True)


def test_it_ends_with_the_other_end_although_nobody_has_closed_its_input() -> None:
    with joined() as (process, ours):
        ours.sendall(b"bye")
        ours.close()
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b"bye"


def test_it_is_small() -> None:
    with joined() as (process, ours):
        ours.sendall(b"x")
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        assert psutil.Process(process.pid).memory_full_info().uss < 12 << 20
