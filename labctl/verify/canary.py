"""Canaries on the host: listeners on its own addresses, first shown to answer, that note which probes reach them."""

from __future__ import annotations

import errno
import secrets
import selectors
import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Literal

from labctl.errors import HostError
from labctl.plan.model import Address, LabPlan
from labctl.verify.agenda import LOOPBACK, MARK
from labctl.verify.model import Control

MOST_ADDRESSES = 4  # of each family: a host with a hundred containers has as many addresses, and one way to them
_FIRST_PORT, _PORTS = 49152, 16384  # the ports nobody registers
_ATTEMPTS = 30


def host_addresses(plan: LabPlan) -> tuple[str, ...]:
    """The addresses of this host that guests must not reach: not loopback, not link-local, not in a subnet of the lab.

    An address inside a lab's subnet is skipped because a guest that asks for it means its own neighbour.
    """
    import psutil

    found: dict[int, list[str]] = {4: [], 6: []}
    for nics in psutil.net_if_addrs().values():
        for nic in nics:
            if nic.family not in (socket.AF_INET, socket.AF_INET6) or "%" in nic.address:
                continue
            address = ip_address(nic.address)
            special = address.is_loopback or address.is_link_local or address.is_unspecified
            if not special and not in_lab(plan, address):
                found[address.version].append(str(address))
    return tuple(address for family in (4, 6) for address in sorted(set(found[family]))[:MOST_ADDRESSES])


def in_lab(plan: LabPlan, address: Address) -> bool:
    """Whether a guest could take an address for a neighbour's."""
    subnets = (net for n in plan.networks for net in (n.subnet, n.subnet6) if net is not None)
    return any(address in subnet for subnet in (plan.management.subnet, *subnets))


class Canaries:
    """TCP and UDP listeners on one port of every given address and of loopback. Use it as a context manager.

    ``port`` is the same everywhere, ``token`` what they answer, ``arrived`` the nonces that reached them so far.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.token = secrets.token_hex(8)
        self.arrived: set[str] = set()
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._doors: set[tuple[str, str]] = set()  # protocol and address of what listens
        self.port = self._open([*addresses, *LOOPBACK.values()])
        self._thread = threading.Thread(target=self._serve, daemon=True, name="canaries")

    def __enter__(self) -> Canaries:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):  # nothing else is registered
                self._drop(key.fileobj)
        self._selector.close()

    def control(self, protocol: Literal["tcp", "udp"], address: str) -> Control:
        """Ask one canary from this host itself: the control of a denial that would lead a guest to it."""
        what = f"the canary at {address} {protocol}/{self.port}"
        try:
            answered = (protocol, address) in self._doors and self._ask(protocol, address) == self.token
        except OSError:
            answered = False
        if answered:
            return Control("target", True, "host", f"{what} answered this host")
        return Control("target", False, "none", f"{what} does not answer this host")

    def _ask(self, protocol: str, address: str) -> str:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(_family(address), kind) as sock:
            sock.settimeout(1.0)
            sock.connect((address, self.port))
            sock.send(b"?")
            return sock.recv(64).decode("ascii", "replace")

    def _open(self, addresses: Sequence[str]) -> int:
        for _ in range(_ATTEMPTS):
            port = _FIRST_PORT + secrets.randbelow(_PORTS)
            sockets = []
            try:
                for address in addresses:
                    sockets += _pair(address, port)
            except _PortInUseError:
                for _, _, sock in sockets:
                    sock.close()
                continue
            for protocol, address, sock in sockets:
                self._doors.add((protocol, address))
                self._selector.register(sock, selectors.EVENT_READ, protocol)
            return port
        raise HostError("no port is free for the canaries", hint="Close programs that hold very many ports.")

    def _serve(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                sock = key.fileobj
                if not isinstance(sock, socket.socket):
                    continue
                try:
                    self._answer(sock, key.data)
                except OSError:
                    if key.data == "guest":
                        self._drop(sock)

    def _answer(self, sock: socket.socket, role: str) -> None:
        if role == "udp":
            data, sender = sock.recvfrom(512)
            self._note(data)
            sock.sendto(self.token.encode(), sender)
        elif role == "tcp":
            guest, _ = sock.accept()
            guest.setblocking(False)
            self._selector.register(guest, selectors.EVENT_READ, "guest")
            guest.send(self.token.encode())
        else:
            self._note(sock.recv(512))
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()

    def _note(self, data: bytes) -> None:
        text = data.decode("ascii", "replace")
        if MARK in text and len(self.arrived) < 100_000:
            self.arrived.add(text.split(MARK, 1)[1][:16])


class _PortInUseError(Exception):
    pass


def _pair(address: str, port: int) -> list[tuple[str, str, socket.socket]]:
    """A TCP and a UDP listener; nothing where the host cannot use the address (IPv6 switched off, say)."""
    opened: list[tuple[str, str, socket.socket]] = []
    for protocol, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        sock = None
        try:
            sock = socket.socket(_family(address), kind)
            sock.setblocking(False)
            sock.bind((address, port))
            if protocol == "tcp":
                sock.listen(64)
        except OSError as error:
            if sock is not None:
                sock.close()
            if error.errno == errno.EADDRINUSE:
                for _, _, other in opened:
                    other.close()
                raise _PortInUseError from error
            continue
        opened.append((protocol, address, sock))
    return opened


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if isinstance(ip_address(address), IPv6Address) else socket.AF_INET
