"""Probes from inside a guest: all at once, with short time-outs, judged by who said what."""

from __future__ import annotations

import _socket as socket
import errno
import os
import select
import sys
import time

from labctl.inside.words import MARK, family_of, names, quoted, read, reason, transmit

TYPE_CHECKING = False  # the real one is in typing, which a cold guest loads slowly
if TYPE_CHECKING:
    from typing import Any

    Sockets = dict[int, Any]  # by file descriptor

SO_BINDTODEVICE = 25
IP_RECVERR = 11  # the same question is option 25 in IPv6
IPV6_RECVERR = 25
MSG_ERRQUEUE = 0x2000
ICMP6_FILTER = 1
BATCH = 400  # probes at once; a process has 1024 descriptors unless told otherwise
LULL = 0.75  # seconds without any answer before the missing ones are given up
LOOK = 0.1  # seconds between two looks whether all is over
RESEND = 0.3  # seconds between two datagrams of one probe: the first is often lost to address resolution
RESENDS = 3  # of a probe that is not expected to be answered: each may ask a whole network for an address
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EHOSTDOWN, errno.ENETDOWN)
ROUTE_TABLE = 97  # the table and rule of the management gateway, for the time of the probe
RULE_PRIORITY = 97


def target_of(family: int, address: str, port: int, device: str) -> tuple[Any, ...]:
    """The address as the socket calls want it; a link-local one needs the number of its device."""
    if family == 4:
        return (address, port)
    scoped = device and address.lower().startswith("fe80")
    return (address, port, 0, socket.if_nametoindex(device) if scoped else 0)


class Probe:
    """One question and what became of it. news: how often that has changed for any of them."""

    news = 0

    def __init__(self, spec: tuple[Any, ...]) -> None:
        self.id, self.device, self.family, self.protocol, self.address, self.port, payload, self.patient = spec
        self.payload = payload.encode("latin-1")
        self.number = socket.inet_pton(family_of(self.family), self.address)
        self.seen, self.details, self.proof, self.milliseconds = "", "", "", 0
        self.done = False
        self.started = time.monotonic()

    def end(self, seen: str, details: str = "", proof: bytes = b"") -> None:
        """The first answer counts; a later one may only add its proof."""
        if not self.done or (proof and not self.proof):
            Probe.news += 1
        if not self.seen:
            self.seen, self.details = seen, details
            self.milliseconds = int((time.monotonic() - self.started) * 1000)
        if proof:
            self.proof = proof[:64].decode("ascii", "replace")
        self.done = True

    def failed(self, code: int, sock: socket.socket | None = None) -> None:
        """A socket call ended with this error; the socket's error queue tells who said so."""
        offender = None if sock is None else blame(sock)[0]
        self.judge(code, offender)

    def judge(self, code: int, offender: bytes | None) -> None:
        """Who said no: this guest itself (None, or an address of its own), the target, or somebody between."""
        family = family_of(self.family)
        if offender is not None and offender != self.number and own(family, offender):
            offender = None
        if offender is not None and offender != self.number:
            self.end("prohibited", reason(code) + " from " + socket.inet_ntop(family, offender))
        elif code == errno.ECONNREFUSED or offender is not None:
            self.end("refused", reason(code))
        elif code in NO_ROUTE:
            self.end("no-route", reason(code))
        elif code == errno.ETIMEDOUT:
            self.end("silence", reason(code))
        else:
            self.end("error", reason(code))

    def line(self) -> str:
        seen = quoted(self.seen or "silence")
        return f"[{self.id},{seen},{quoted(self.details)},{self.milliseconds},{quoted(self.proof)}]"


def own(family: int, number: bytes) -> bool:
    """Whether an address is this guest's own: it can be bound."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind((socket.inet_ntop(family, number), 0))
    except OSError:
        return False
    finally:
        sock.close()
    return True


def blame(sock: socket.socket) -> tuple[Any, ...]:
    """One entry of a socket's error queue: who sent the ICMP error (or None), its errno, the packet it is about."""
    try:
        data, ancillary, _, _ = sock.recvmsg(512, 512, MSG_ERRQUEUE)
    except OSError:
        return None, 0, b""
    for level, kind, entry in ancillary:
        # struct sock_extended_err: errno, origin (2: ICMP, 3: ICMPv6), type, code, pad, info, data; offender's address
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)) and len(entry) >= 16:
            code = int.from_bytes(entry[:4], sys.byteorder)
            if entry[4] == 2:
                return entry[20:24], code, data
            if entry[4] == 3:
                return entry[24:40], code, data
            return None, code, data
    return None, 0, data


def prepared(kind: int, family: int, device: str, protocol: int = 0) -> socket.socket:
    """A socket that uses one device only and keeps the ICMP errors that it gets."""
    sock = socket.socket(family_of(family), kind, protocol)
    sock.setblocking(False)
    if device:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode() + b"\0")
    if family == 4:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    return sock


class Connection:
    """A TCP or UDP probe on its way."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.stream = probe.protocol == "tcp"
        self.sock = prepared(socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM, probe.family, probe.device)
        self.events = select.POLLOUT if self.stream else select.POLLIN
        code = self.sock.connect_ex(target_of(probe.family, probe.address, probe.port, probe.device))
        if code not in (0, errno.EINPROGRESS):
            probe.failed(code, self.sock)
        elif not self.stream:
            self.send()

    def send(self, impatient: bool = True) -> None:
        """Send the datagram (again). impatient: also of a probe that is not expected to be answered."""
        if self.stream or self.probe.done or not (impatient or self.probe.patient):
            return
        try:
            self.sock.send(self.probe.payload)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self.probe.failed(error.errno or 0, self.sock)

    def ready(self, event: int) -> None:
        """Something happened on the socket."""
        probe = self.probe
        if event & select.POLLERR:
            offender, code, _ = blame(self.sock)
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or code
            if code:
                probe.judge(code, offender)
        elif not self.stream or probe.seen:
            self.receive()
        else:
            self.connected()

    def connected(self) -> None:
        self.probe.end("answered", "connected")
        if self.probe.payload:  # one of our own listeners: say the nonce, wait for its token
            self.probe.done = False
            self.events = select.POLLIN
            self.sock.send(self.probe.payload)

    def receive(self) -> None:
        try:
            data = self.sock.recv(512)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self.probe.failed(error.errno or 0, self.sock)
            return
        self.probe.end("answered", f"answer of {len(data)} bytes", data)


def echo_request(family: int, mark: bytes, sequence: int) -> bytes:
    """An ICMP or ICMPv6 echo request; ``mark`` is its two-byte identifier."""
    rest = mark + sequence.to_bytes(2, "big") + MARK
    if family == 6:
        return b"\x80\0\0\0" + rest  # the kernel fills the checksum in
    padded = b"\x08\0\0\0" + rest + b"\0" * (len(rest) % 2)
    total = sum([int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2)])
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return b"\x08\0" + (~total & 0xFFFF).to_bytes(2, "big") + rest


class Echo:
    """All echo probes of one device and family, on one raw socket: with a socket each, each would get all answers."""

    def __init__(self, device: str, family: int) -> None:
        self.family, self.device = family, device
        self.probes: list[Any] = []
        self.events = select.POLLIN
        self.mark = os.urandom(2)
        protocol = socket.IPPROTO_ICMPV6 if family == 6 else socket.IPPROTO_ICMP
        self.sock = prepared(socket.SOCK_RAW, family, device, protocol)
        if family == 6:  # a set bit blocks; let echo replies through
            blocked = bytearray(b"\xff" * 32)
            blocked[16:20] = (~(1 << (129 & 31)) & 0xFFFFFFFF).to_bytes(4, sys.byteorder)
            self.sock.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(blocked))

    def send(self, impatient: bool = True) -> None:
        """Send the echo request (again) of every probe without an answer. impatient: as for a connection."""
        for sequence, probe in enumerate(self.probes):
            if not probe.done and (impatient or probe.patient):
                try:
                    self.sock.sendto(
                        echo_request(self.family, self.mark, sequence),
                        target_of(self.family, probe.address, 0, self.device),
                    )
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                        probe.failed(error.errno or 0)

    def ready(self, event: int) -> None:
        """Read all answers and all errors."""
        if event & select.POLLERR:
            self.errors()
        for _ in range(len(self.probes) * 4 + 16):
            try:
                packet, sender = self.sock.recvfrom(512)
            except OSError:
                return
            if self.family == 4:
                packet = packet[(packet[0] & 15) * 4 :]
            probe = self.find(packet)
            if probe is not None and packet[0] in (0, 129) and same(sender[0], probe):
                probe.end("answered", "echo reply")

    def errors(self) -> None:
        """Read the error queue, which holds the packets that errors are about."""
        for _ in range(len(self.probes) * 4 + 16):
            offender, code, packet = blame(self.sock)
            if not code:
                break
            probe = self.find(packet)
            if probe is not None:
                probe.judge(code, offender)
        self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # or poll would never rest

    def find(self, packet: bytes) -> Probe | None:
        """The probe that an echo request or reply belongs to."""
        sequence = int.from_bytes(packet[6:8], "big")
        if len(packet) < 8 or packet[4:6] != self.mark or sequence >= len(self.probes):
            return None
        found: Probe = self.probes[sequence]
        return found


def same(sender: str, probe: Probe) -> bool:
    return bool(socket.inet_pton(family_of(probe.family), sender.split("%", 1)[0]) == probe.number)


def probe(
    quick: float,
    patient: float,
    gateway: tuple[Any, ...] | None,
    devices: list[Any],
    specs: list[Any],
    frames: Any = (),
) -> str:
    """Send all probes and frames at once, in batches that fit the descriptors of a process; the frames at the end once
    more.

    A probe ends after ``quick`` seconds of silence, or twice what the slowest answer took, and not while others are
    still being answered; one that is expected to be answered ends after ``patient``. ``devices`` are ``(device, mac)``:
    a guest may call a NIC otherwise than the plan. ``gateway`` is ``(device, address)`` or None: probes of that device
    go through that gateway, as those of an intruder with root would. ``specs`` are ``(id, device, family, protocol,
    address, port, payload, is_patient)``, ``frames`` ``(device, frame in hexadecimal)``.

    Gives JSON: ``{"results": [[id, seen, details, milliseconds, proof], …], "links": {device: "up"}}``.
    """
    here = names(devices)
    probes = [Probe((spec[0], here.get(spec[1], spec[1]), *spec[2:])) for spec in specs]
    gateway = (here.get(gateway[0], gateway[0]), gateway[1]) if gateway else None
    settings = relaxed(list(here.values()))
    trouble = route(gateway, True) if gateway else 0
    transmit(here, frames)
    try:
        if gateway and trouble:
            for one in probes:
                if one.device == gateway[0]:
                    one.end("error", "cannot route through the management gateway: " + reason(trouble))
        for first in range(0, len(probes), BATCH):
            run([one for one in probes[first : first + BATCH] if not one.done], quick, patient)
    finally:
        if gateway:
            route(gateway, False)
        for path, value in settings:
            write(path, value)
    transmit(here, frames)
    results = ",".join([one.line() for one in probes])
    links = ",".join([quoted(device) + ":" + quoted(link(here[device], mac)) for device, mac in devices])
    return '{"results":[' + results + '],"links":{' + links + "}}"


def run(probes: list[Any], quick: float, patient: float) -> None:
    """Send a batch and wait for its answers."""
    waiting = launched(probes)
    poll = select.poll()
    for fd, channel in waiting.items():
        poll.register(fd, channel.events)
    started = last = look = time.monotonic()
    resend, resent, news = started + RESEND, 0, Probe.news
    while True:
        now = time.monotonic()
        if now >= look:  # not after each answer: the count costs a slow guest more than the wait
            ends = [started + patient if one.patient else 0 for one in probes if not one.done]
            # While answers still come in, those that do not come yet mean nothing. What else comes holds up nothing:
            # somebody may send it over and over. Where what was answered took long, all of it takes long.
            slow = min(patient, 2 * max([one.milliseconds for one in probes if one.done], default=0) / 1000)
            if not ends or now >= max(started + max(quick, slow), last + LULL, *ends):
                return
            look = now + LOOK
        if now >= resend:
            resent += 1
            for channel in waiting.values():
                channel.send(resent <= RESENDS)
            resend = now + RESEND
        for fd, event in poll.poll(max(1, int((look - now) * 1000))):
            channel = waiting[fd]
            before = channel.events
            channel.ready(event)
            if isinstance(channel, Connection) and channel.probe.done:
                poll.unregister(fd)
                waiting.pop(fd).sock.close()
            elif channel.events != before:
                poll.modify(fd, channel.events)
        if Probe.news != news:
            last, news = time.monotonic(), Probe.news


def launched(probes: list[Any]) -> dict[Any, Any]:
    """Start every probe; what still waits for an answer, by file descriptor."""
    waiting: Sockets = {}
    echoes: dict[Any, Echo] = {}
    for one in probes:
        one.started = time.monotonic()
        try:
            if one.protocol != "icmp":
                connection = Connection(one)
                if not one.done:
                    waiting[connection.sock.fileno()] = connection
                continue
            key = (one.device, one.family)
            if key not in echoes:
                echoes[key] = Echo(*key)
            echoes[key].probes.append(one)
        except OSError as error:
            one.end("error", reason(error.errno or 0))
    for echo in echoes.values():
        echo.send()
        waiting[echo.sock.fileno()] = echo
    return waiting


# --- the guest's own settings, for the time of the probe -----------------------------------------------------------


def write(path: str, value: str) -> None:
    try:
        with open(path, "w") as file:  # noqa: PTH123 - pathlib is slow to load in a cold guest
            file.write(value)
    except OSError:
        return


def relaxed(devices: list[Any]) -> list[Any]:
    """Switch the reverse path filter off and return what to write back.

    It drops answers from addresses that the guest has no route to: a leak would look like silence, and an intruder with
    root switches it off too.
    """
    paths = [f"/proc/sys/net/ipv4/conf/{name}/rp_filter" for name in ["all", *devices]]
    before = [(path, read(path)) for path in paths]
    changed = [(path, value) for path, value in before if value not in ("", "0")]
    for path, _ in changed:
        write(path, "0")
    return changed


def link(device: str, mac: str) -> str:
    """``up`` where the NIC has a carrier and the planned address."""
    base = f"/sys/class/net/{device}"
    return "up" if read(f"{base}/carrier") == "1" and read(f"{base}/address") == mac else "down"


def route(gateway: tuple[Any, ...], add: bool) -> int:
    """Send what is bound to a device through a gateway there, by a rule and a table of our own; gives an errno or 0."""
    device, address = gateway
    try:
        index = socket.if_nametoindex(device)
    except OSError:
        return errno.ENODEV
    table = attribute(15, ROUTE_TABLE.to_bytes(4, sys.byteorder))
    head = bytes([socket.AF_INET, 0, 0, 0, ROUTE_TABLE])
    # struct rtmsg: protocol static, scope universe, type unicast, flag "on link" (the gateway need not be looked up)
    hop = attribute(5, socket.inet_pton(socket.AF_INET, address)) + attribute(4, index.to_bytes(4, sys.byteorder))
    way = head + bytes([4, 0, 1]) + (4).to_bytes(4, sys.byteorder) + table + hop
    # struct fib_rule_hdr: action "look up the table"
    name = attribute(17, device.encode() + b"\0")
    rule = head + bytes([0, 0, 1, 0, 0, 0, 0]) + attribute(6, RULE_PRIORITY.to_bytes(4, sys.byteorder)) + name + table
    if not add:
        return max(netlink(33, rule, 0), netlink(25, way, 0))
    trouble = netlink(24, way, 0x500) or netlink(32, rule, 0x600)  # create or replace; create, once
    return 0 if trouble == errno.EEXIST else trouble


def attribute(kind: int, value: bytes) -> bytes:
    head = (len(value) + 4).to_bytes(2, sys.byteorder) + kind.to_bytes(2, sys.byteorder)
    return head + value + b"\0" * (-len(value) % 4)


def netlink(kind: int, body: bytes, flags: int) -> int:
    """One rtnetlink request; returns an errno or 0."""
    sock = socket.socket(16, socket.SOCK_RAW, 0)  # AF_NETLINK, NETLINK_ROUTE
    try:
        head = (len(body) + 16).to_bytes(4, sys.byteorder) + kind.to_bytes(2, sys.byteorder)
        sock.send(head + (5 | flags).to_bytes(2, sys.byteorder) + b"\0" * 8 + body)  # request, acknowledge
        answer = sock.recv(4096)
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        sock.close()
    return -int.from_bytes(answer[16:20], sys.byteorder, signed=True)
