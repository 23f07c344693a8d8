"""Addresses that this host has for a moment, on a NIC that leads nowhere: for a host that has none to try.

Linux, for those who may configure its network; for others there are none. They are from ranges that nobody on the
internet has (RFC 2544, RFC 3849), one address each, so no route of the host changes.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import psutil

from labctl.errors import HostError
from labctl.host.runner import Runner

_NAME = "labctl-c"  # then the number of the process whose it is
_RANGES: dict[int, IPv4Network | IPv6Network] = {4: IPv4Network("198.18.0.0/15"), 6: IPv6Network("2001:db8::/32")}
_KINDS = ("dummy", "bridge")  # a kernel without the first may have the second
_ATTEMPTS = 50


@contextmanager
def spare_addresses(
    families: Sequence[int], free: Callable[[IPv4Address | IPv6Address], bool], runner: Runner
) -> Iterator[tuple[str, ...]]:
    """An address of each family for the time of a ``with`` block, where this user may have one.

    free: whether an address may be used. What a process left that was killed is removed first.
    """
    name, given = f"{_NAME}{os.getpid()}", []
    if families and sys.platform == "linux":
        _sweep(runner)
        made = any(_ip(runner, "link", "add", name, "type", kind) for kind in _KINDS)
        if made and _ip(runner, "link", "set", name, "up"):
            chosen = (_choose(family, free) for family in families)
            given = [
                address
                for address in chosen
                if address and _ip(runner, "addr", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
            ]
    try:
        yield tuple(given)
    finally:
        if families and sys.platform == "linux":
            _ip(runner, "link", "del", name)


def _choose(family: int, free: Callable[[IPv4Address | IPv6Address], bool]) -> str | None:
    span = _RANGES[family]
    for _ in range(_ATTEMPTS):
        address = ip_address(int(span.network_address) + 1 + secrets.randbelow(span.num_addresses - 2))
        if free(address):
            return str(address)
    return None


def _sweep(runner: Runner) -> None:
    for name in psutil.net_if_addrs():
        number = name.removeprefix(_NAME)
        if name.startswith(_NAME) and number.isdecimal() and not psutil.pid_exists(int(number)):
            _ip(runner, "link", "del", name)


def _ip(runner: Runner, *words: str) -> bool:
    try:
        return runner.run(["ip", *words], timeout=10, check=False).code == 0
    except HostError:
        return False  # there is no such program
