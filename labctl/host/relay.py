"""A program that joins its standard input and output with a connected socket, whose descriptor is its argument.

It is started with ``python -I -S`` in the place of a labctl, and imports nothing of it: a class has many of them for
hours, and each is to take a few MiB.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

_PIECE = 1 << 16  # bytes


def copy(source: int, target: int) -> None:
    """Everything from one descriptor to another, until either ends."""
    with suppress(OSError):  # whoever was there has gone
        while piece := os.read(source, _PIECE):
            while piece:
                piece = piece[os.write(target, piece) :]


def main() -> None:
    """Copy both ways at once, so that neither waits for the other. It ends when the socket's other end does."""
    connection = socket.socket(fileno=int(sys.argv[1]))

    def send() -> None:
        copy(0, connection.fileno())
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    copy(connection.fileno(), 1)
    os._exit(0)  # the thread waits for input that nobody wants any more


if __name__ == "__main__":
    main()
