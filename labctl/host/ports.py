"""TCP ports of the loopback interface."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import islice

# Below the range that Linux, macOS and Windows take for outgoing connections, above the well-known services.
_FIRST, _LAST = 20000, 31999


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 right now."""
    with socket.socket() as probe:
        if os.name == "posix":  # connections that just ended must not make a port look taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def candidates(seed: int) -> Iterator[int]:
    """Ports that are free right now, in an order that depends on ``seed``, so that machines do not compete for one.

    Another program may take a port before the caller does: whoever listens must be ready to try the next.
    """
    span = _LAST - _FIRST + 1
    for step in range(span):
        port = (
            _FIRST + (seed + step * 7919) % span
        )  # 7919 is prime and does not divide the span: every port comes up once
        if is_free(port):
            yield port


def count_free(enough: int | None = None) -> int:
    """How many ports ``candidates`` has right now, counted up to ``enough``; counting all takes a second."""
    return sum(1 for _ in islice(candidates(0), enough))
