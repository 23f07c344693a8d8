"""Listeners inside a guest: what answers probes with a token, and what hears every frame on the wires."""

from __future__ import annotations

import _socket as socket
import errno
import select
import sys
import time

from labctl.inside.words import MARK, family_of, quoted, reason

TYPE_CHECKING = False  # the real one is in typing, which a cold guest loads slowly
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Sockets = dict[int, Any]  # by file descriptor

NONCE = 16  # hexadecimal digits
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
OUTGOING = 4
ALL_KINDS = 3
MOST_FACTS = 4000
MOST_OF_ONE = 64  # facts of one address on one NIC: who sends frames of every kind makes nobody else unheard
MOST_NONCES = 20000
MOST_BURSTS = 200
BURST = 64  # frames read in one go, lest others wait
LISTEN = 0.5  # seconds between two looks at the frames that have come: to look for each is dearer than to read it


class Service:
    """Answers on the listeners and notes the nonces that came. here: planned devices by what the guest calls them."""

    def __init__(self, token: bytes, here: dict[str, str]) -> None:
        self.token = token
        self.planned = {name: device.encode() for device, name in here.items()}
        self.streams: Sockets = {}
        self.datagrams: Sockets = {}
        self.wires: Sockets = {}
        self.guests: Sockets = {}  # connections that may still send their nonce
        self.seen: set[bytes] = set()
        self.marked: set[bytes] = set()  # frames with nonces, each a line of words: way, device, nonce
        self.facts: set[bytes] = set()  # of who sends and claims what, each a line of words
        self.told: dict[bytes, int] = {}  # how many of them are of one address on one NIC
        self.poll = select.poll()

    def open(self, family: int, protocol: str, address: str, port: int) -> str:
        """Open a listener: ``open``, ``taken`` (somebody listens there already) or an error."""
        try:
            sock = open_listener(family, protocol, address, port)
        except OSError as error:
            return "taken" if error.errno == errno.EADDRINUSE else reason(error.errno or 0)
        (self.streams if protocol == "tcp" else self.datagrams)[sock.fileno()] = sock
        self.poll.register(sock.fileno(), select.POLLIN)
        return "open"

    def listen_to(self, name: str, only: bytes) -> None:
        """Hear every frame on a device that a filter lets through."""
        try:
            sock = tap(name, only)
        except OSError:
            return  # it is not there, and nothing comes by it
        self.wires[sock.fileno()] = sock

    def close(self) -> None:
        """Close everything: who comes now finds nobody."""
        for sockets in (self.streams, self.datagrams, self.wires, self.guests):
            for sock in sockets.values():
                sock.close()

    def run(self, end: float, calls: dict[int, Callable[[], bool]]) -> None:
        """Serve until a time, or until one of the calls, by file descriptor, says that it was the last."""
        for fd in calls:
            self.poll.register(fd, select.POLLIN)
        look = now = time.monotonic()
        while now < end:
            if now >= look:
                more = [self.overhear(sock) for sock in self.wires.values()]
                look = now if any(more) else now + LISTEN
            for fd, _ in self.poll.poll(max(0, int((look - now) * 1000))):
                try:
                    if fd in calls:
                        if calls[fd]():
                            return
                    elif fd in self.datagrams:
                        data, sender = self.datagrams[fd].recvfrom(512)
                        self.note(data)
                        self.datagrams[fd].sendto(self.token, sender)
                    elif fd in self.streams:
                        self.accept(fd)
                    else:
                        self.hear(fd)
                except OSError:
                    continue
            now = time.monotonic()

    def accept(self, fd: int) -> None:
        handle, _ = self.streams[fd]._accept()
        guest = socket.socket(fileno=handle)
        guest.setblocking(False)
        if len(self.guests) > 256:  # slow or silent ones make room, oldest first
            self.drop(next(iter(self.guests)))
        self.guests[handle] = guest
        self.poll.register(handle, select.POLLIN)
        guest.send(self.token)

    def hear(self, fd: int) -> None:
        try:
            self.note(self.guests[fd].recv(512))
        finally:
            self.drop(fd)

    def drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        self.guests.pop(fd).close()

    def note(self, data: bytes) -> None:
        at = data.find(MARK)
        if at >= 0 and len(self.seen) < MOST_NONCES:
            self.seen.add(data[at + len(MARK) : at + len(MARK) + NONCE])

    def overhear(self, sock: socket.socket) -> bool:
        """Note what frames show that wait, but not without end: others wait too. Gives whether there are more."""
        try:
            for _ in range(BURST):
                self.heard(*sock.recvfrom(256))
        except OSError:
            return False  # it is empty
        return True

    def heard(self, frame: bytes, place: tuple[Any, ...]) -> None:
        """Note what one frame shows."""
        device = self.planned[place[0]]
        at = frame.find(MARK)
        if at >= 0:
            way = b"out" if place[2] == OUTGOING else b"in"
            nonce = frame[at + len(MARK) : at + len(MARK) + NONCE]
            if nonce.isalnum() and len(self.marked) < MOST_NONCES:
                self.marked.add(b"%s %s %s" % (way, device, nonce))
        if place[2] == OUTGOING or frame[:5] == b"\x01\x80\xc2\0\0":  # frames of switches about themselves
            return
        kind, who = frame[12:14], b"%s %s" % (device, mac(frame[6:12]))
        self.fact(who, b"from %s %s" % (who, kind.hex().encode()))
        claim = b""
        if kind == b"\x08\x06" and frame[20:22] == b"\0\x02" and len(frame) >= 42:
            claim = socket.inet_ntop(socket.AF_INET, frame[28:32]).encode()
        elif kind == b"\x86\xdd" and len(frame) >= 78 and frame[20] == 58 and frame[54] == 0x88:
            claim = socket.inet_ntop(socket.AF_INET6, frame[62:78]).encode()
        if claim:
            self.fact(who, b"claim %s %s %s" % (device, claim, mac(frame[6:12])))

    def fact(self, who: bytes, line: bytes) -> None:
        """Note what an address has sent to a NIC, but not without end."""
        if line not in self.facts and len(self.facts) < MOST_FACTS and self.told.get(who, 0) < MOST_OF_ONE:
            self.told[who] = self.told.get(who, 0) + 1
            self.facts.add(line)

    def summary(self) -> str:
        """Read what waits on the wires, and say all that was heard.

        Gives JSON: ``{"arrived": [nonce, …], "wires": [[what, device, …], …]}`` where what is ``in`` or ``out`` (a
        nonce), ``from`` (a MAC address and an EtherType) or ``claim`` (an address and the MAC address that answers for
        it).
        """
        for sock in self.wires.values():
            for _ in range(MOST_BURSTS):  # somebody may send without end
                if not self.overhear(sock):
                    break
        nonces = [quoted(nonce.decode("ascii", "replace")) for nonce in self.seen]
        lines = [line.decode("ascii", "replace") for line in [*self.marked, *self.facts]]
        facts = ["[" + ",".join([quoted(word) for word in line.split()]) + "]" for line in lines]
        return '{"arrived":[' + ",".join(nonces) + '],"wires":[' + ",".join(facts) + "]}"


def open_listener(family: int, protocol: str, address: str, port: int) -> socket.socket:
    sock = socket.socket(family_of(family), socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if protocol == "tcp":
            sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def tap(device: str, only: bytes) -> socket.socket:
    """A socket that gets every frame that a device sends or hears, be it for others. only: a filter, or all of them."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        index = socket.if_nametoindex(device)
        membership = index.to_bytes(4, sys.byteorder) + PACKET_MR_PROMISC.to_bytes(2, sys.byteorder) + bytes(10)
        sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        if only:
            attach(sock, only)
        sock.bind((device, ALL_KINDS))
    except OSError:
        sock.close()
        raise
    return sock


def attach(sock: socket.socket, only: bytes) -> None:
    """Let the kernel drop what a filter does not let through; where that fails all is heard, only slower.

    The kernel wants the filter's address (struct sock_fprog), and ``ctypes`` is not in every guest: CPython has the
    content of bytes behind the head of the object, which is where its ``id`` says.
    """
    where = id(only) + bytes.__basicsize__ - 1
    head = (len(only) // 8).to_bytes(8, sys.byteorder) if sys.byteorder == "little" else b""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head + where.to_bytes(8, sys.byteorder))
    except OSError:
        return


def mac(octets: bytes) -> bytes:
    return octets.hex(":").encode()
