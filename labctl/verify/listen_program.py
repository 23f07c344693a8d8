"""The listeners that labctl opens in a guest for the time of a verification.

Like ``probe_program`` this is sent as text, with one call of ``main`` added, and imports built-in modules alone. The
two share no code: each is sent alone, and a cold guest takes long to compile what it does not use. Tasks, each of
which prints one line of JSON:

``("listen", seconds, token, [(family, protocol, address, port), …], [(device, mac), …], [(device, frame), …],
[(device, filter), …])``
    Open listeners in a process that stays behind, answers ``token`` and ends by itself; it also hears every frame on
    the devices that their filter lets through. The frames are sent once all is open; frames and filters are
    hexadecimal. Prints ``{"opened": [[index, how], …]}``; ``how``
    is ``open``, ``taken`` (somebody listens there already) or an error.
``("collect",)``
    Ask the listeners what reached them and end them. Prints ``{"arrived": [nonce, …], "wires": [[what, device, …],
    …]}`` where what is ``in`` or ``out`` (a nonce), ``from`` (a MAC address and an EtherType) or ``claim`` (an address
    and the MAC address that answers for it).
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import select
import sys
import time

TYPE_CHECKING = False  # the real one is in typing, which a cold guest loads slowly
if TYPE_CHECKING:
    from typing import Any

    Sockets = dict[int, Any]  # by file descriptor

MARK = b"labctl-probe-"  # before the nonce in every payload
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
CONTROL = "\0labctl-verify"  # an abstract unix socket: it leaves no file behind


def main(task: tuple[Any, ...]) -> None:
    """Do one task and print its line."""
    role: Any = {"listen": listen, "collect": collect}[task[0]]
    sys.stdout.write(role(*task[1:]) + "\n")
    sys.stdout.flush()


def quoted(text: str) -> str:
    """A JSON string of the plain characters of a text."""
    return '"' + "".join(c if c.isalnum() or c in " .:-_%/[]()," else "?" for c in text[:120]) + '"'


def family_of(family: int) -> int:
    return socket.AF_INET6 if family == 6 else socket.AF_INET


def reason(code: int) -> str:
    return errno.errorcode.get(code, str(code))


def listen(
    seconds: float,
    token: str,
    wanted: list[Any],
    devices: Any = (),
    first: Any = (),
    filters: Any = (),
) -> str:
    """Open what is wanted and leave a process behind that serves it."""
    ask(b"stop")
    streams: Sockets = {}
    datagrams: Sockets = {}
    opened = []
    for index, (family, protocol, address, port) in enumerate(wanted):
        try:
            sock = open_listener(family, protocol, address, port)
        except OSError as error:
            how = "taken" if error.errno == errno.EADDRINUSE else reason(error.errno or 0)
        else:
            (streams if protocol == "tcp" else datagrams)[sock.fileno()] = sock
            how = "open"
        opened.append(f"[{index},{quoted(how)}]")
    here = names(devices)
    wires: Sockets = {}
    chosen = dict(filters)
    for name, device in here.items():
        try:
            sock = tap(device, bytes.fromhex(chosen.get(name, "")))
        except OSError:
            continue  # it is not there, and nothing comes by it
        wires[sock.fileno()] = sock
    for device, frame in first:
        transmit(here.get(device, device), frame)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(CONTROL)
    control.listen(4)
    if os.fork() == 0:
        try:
            detach()
            planned = {name: device for device, name in here.items()}
            Service(streams, datagrams, control, token.encode(), wires, planned).run(time.monotonic() + seconds)
        finally:
            os._exit(0)
    return '{"opened":[' + ",".join(opened) + "]}"


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


def names(devices: Any) -> dict[str, str]:
    """What the guest calls the planned devices; the planned name where no NIC has the planned address."""
    there = {}
    for name in os.listdir("/sys/class/net"):  # noqa: PTH208 - pathlib is slow to load
        try:
            with open(f"/sys/class/net/{name}/address") as file:  # noqa: PTH123 - as above
                there[file.read().strip()] = name
        except OSError:
            continue
    return {device: there.get(mac, device) for device, mac in devices}


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


def transmit(device: str, frame: str) -> None:
    """Put a frame on the wire of a device; one that is not there sends nothing."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.bind((device, 0))
        sock.send(bytes.fromhex(frame))
    except OSError:
        return
    finally:
        sock.close()


def mac(octets: bytes) -> bytes:
    return octets.hex(":").encode()


def detach() -> None:
    """Let go of the caller: whoever waits for the end of our output must not wait for the listeners."""
    os.setsid()
    os.nice(-10)  # answer others before this guest goes on with its own probes
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


class Service:
    """Answers on the listeners and notes the nonces that came."""

    def __init__(
        self, streams: Sockets, datagrams: Sockets, control: Any, token: bytes, wires: Sockets, planned: dict[str, str]
    ) -> None:
        self.streams, self.datagrams, self.control, self.token = streams, datagrams, control, token
        self.wires, self.planned = wires, planned
        self.marked: set[bytes] = set()  # frames with nonces, each a line of words: way, device, nonce
        self.facts: set[bytes] = set()  # of who sends and claims what, each a line of words
        self.told: dict[bytes, int] = {}  # how many of them are of one address on one NIC
        self.guests: dict[int, socket.socket] = {}  # connections that may still send their nonce
        self.seen: set[bytes] = set()
        self.poll = select.poll()
        for fd in [*streams, *datagrams, *wires, control.fileno()]:
            self.poll.register(fd, select.POLLIN)

    def run(self, end: float) -> None:
        while time.monotonic() < end:
            for fd, _ in self.poll.poll(500):
                try:
                    if fd in self.wires:
                        self.overhear(self.wires[fd])
                    elif fd == self.control.fileno():
                        if self.command():
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

    def overhear(self, sock: socket.socket) -> None:
        """Note what frames show, those that wait, but not without end: others wait too."""
        for _ in range(BURST):
            frame, place = sock.recvfrom(256)
            device = self.planned[place[0]].encode()
            at = frame.find(MARK)
            if at >= 0:
                way = b"out" if place[2] == OUTGOING else b"in"
                nonce = frame[at + len(MARK) : at + len(MARK) + NONCE]
                if nonce.isalnum() and len(self.marked) < MOST_NONCES:
                    self.marked.add(b"%s %s %s" % (way, device, nonce))
            if place[2] == OUTGOING or frame[:5] == b"\x01\x80\xc2\0\0":  # frames of switches about themselves
                continue
            kind, who = frame[12:14], b"%s %s" % (device, mac(frame[6:12]))
            self.fact(who, b"from %s %s" % (who, kind.hex().encode()))
            claim = b""
            if kind == b"\x08\x06" and frame[20:22] == b"\0\x02":
                claim = socket.inet_ntop(socket.AF_INET, frame[28:32]).encode()
            elif kind == b"\x86\xdd" and frame[20] == 58 and frame[54:55] == b"\x88" and len(frame) >= 78:
                claim = socket.inet_ntop(socket.AF_INET6, frame[62:78]).encode()
            if claim:
                self.fact(who, b"claim %s %s %s" % (device, claim, mac(frame[6:12])))

    def fact(self, who: bytes, line: bytes) -> None:
        """Note what an address has sent to a NIC, but not without end."""
        if line not in self.facts and len(self.facts) < MOST_FACTS and self.told.get(who, 0) < MOST_OF_ONE:
            self.told[who] = self.told.get(who, 0) + 1
            self.facts.add(line)

    def command(self) -> bool:
        """Serve labctl's next call: say what came, and end."""
        handle, _ = self.control._accept()
        caller = socket.socket(fileno=handle)
        caller.settimeout(2)
        caller.recv(16)
        for sock in self.wires.values():
            try:
                for _ in range(MOST_BURSTS):  # somebody may send without end
                    self.overhear(sock)
            except OSError:
                sock.close()  # it is empty
        for sock in [*self.streams.values(), *self.datagrams.values(), self.control]:
            sock.close()
        caller.sendall(b"\n".join([b" ".join(self.seen), *self.marked, *self.facts]))
        caller.close()
        return True


def ask(command: bytes) -> bytes:
    """End the listeners of this guest, if there are any. Returns a line of nonces, then a line for each fact."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(3)
    heard = b""
    try:
        caller.connect(CONTROL)
        caller.sendall(command)
        while len(heard) < 1 << 20:
            more = caller.recv(65536)
            if not more:
                break
            heard += more
    except OSError:
        return heard
    finally:
        caller.close()
    return heard


def collect() -> str:
    """What reached the listeners of this guest."""
    lines = ask(b"collect").decode("ascii", "replace").split("\n")
    nonces = [quoted(nonce) for nonce in lines[0].split()]
    facts = ["[" + ",".join([quoted(word) for word in line.split()]) + "]" for line in lines[1:]]
    return '{"arrived":[' + ",".join(nonces) + '],"wires":[' + ",".join(facts) + "]}"
