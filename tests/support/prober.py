"""Runs in a network namespace: serves ports, or sends real packets and says what came back. Standard library only.

serve: reads ``[["tcp"|"udp", address, port], ...]``, says ``ready``, answers until its input ends.
ask: reads ``[[device, family, "icmp"|"tcp"|"udp", address, port], ...]``, prints a list of ``answered``, ``refused``,
``prohibited`` or ``silence``, one per question.
catch: reads ``[address, port]``, says ``ready``, then whether a datagram came. forge: reads ``[source, address, port]``
and sends a datagram from that source, whoever it belongs to.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import sys
import time

WAIT = 1.2
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
REFUSED = {errno.ECONNREFUSED: "refused"}
PROHIBITED = {errno.EHOSTUNREACH: "prohibited", errno.EACCES: "prohibited", errno.ENETUNREACH: "prohibited"}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def serve() -> None:
    doors = json.loads(sys.stdin.readline())
    sockets = {}
    for protocol, address, port in doors:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        door = socket.socket(FAMILIES[6 if ":" in address else 4], kind)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((address, port))
        if protocol == "tcp":
            door.listen(64)
        sockets[door] = protocol
    say("ready")
    held = []
    while True:
        for door in select.select([*sockets, sys.stdin], [], [])[0]:
            if door is sys.stdin:
                return
            if sockets[door] == "tcp":
                held.append(door.accept()[0])
            else:
                data, peer = door.recvfrom(100)
                door.sendto(data, peer)


def ask() -> None:
    questions = json.loads(sys.stdin.readline())
    answers: list[str | None] = [None] * len(questions)
    waiting = {}
    for number, (device, family, protocol, address, port) in enumerate(questions):
        try:
            waiting[_send(number, device, family, protocol, address, port)] = (number, protocol, family)
        except OSError as error:
            answers[number] = PROHIBITED.get(error.errno or 0, f"error {error}")
    end = time.monotonic() + WAIT
    while waiting and (left := end - time.monotonic()) > 0:
        reading = [s for s, (_, protocol, _) in waiting.items() if protocol != "tcp"]
        writing = [s for s, (_, protocol, _) in waiting.items() if protocol == "tcp"]
        for ready in {s for group in select.select(reading, writing, [], left) for s in group}:
            number, protocol, family = waiting[ready]
            seen = _look(ready, number, protocol, family)
            if seen is not None:
                answers[number] = seen
                del waiting[ready]
                ready.close()
    say(json.dumps([answer or "silence" for answer in answers]))


def catch() -> None:
    address, port = json.loads(sys.stdin.readline())
    door = socket.socket(FAMILIES[6 if ":" in address else 4], socket.SOCK_DGRAM)
    door.bind((address, port))
    door.settimeout(WAIT)
    say("ready")
    try:
        door.recv(100)
    except TimeoutError:
        say("nothing")
    else:
        say("caught")


def forge() -> None:
    source, address, port = json.loads(sys.stdin.readline())
    family = 6 if ":" in address else 4
    sender = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    level, transparent = (socket.IPPROTO_IP, 19) if family == 4 else (socket.IPPROTO_IPV6, 75)  # linux/in.h, in6.h
    sender.setsockopt(level, transparent, 1)
    sender.bind((source, 0))
    sender.sendto(b"hello", (address, port))


def _send(number: int, device: str, family: int, protocol: str, address: str, port: int) -> socket.socket:
    if protocol == "icmp":
        kind, number_of_protocol = socket.SOCK_RAW, socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    else:
        kind, number_of_protocol = (socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM), 0
    asking = socket.socket(FAMILIES[family], kind, number_of_protocol)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    asking.setblocking(False)
    error = asking.connect_ex((address, port))
    if error not in (0, errno.EINPROGRESS):
        asking.close()
        raise OSError(error, "connect")
    if protocol == "udp":
        asking.send(b"hello")
    if protocol == "icmp":
        asking.send(_echo(number, family))
    return asking


def _echo(number: int, family: int) -> bytes:
    kind = 8 if family == 4 else 128
    packet = struct.pack("!BBHHH", kind, 0, 0, number, 1)
    total = sum(struct.unpack("!4H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", kind, 0, ~total & 0xFFFF if family == 4 else 0, number, 1)


def _look(asked: socket.socket, number: int, protocol: str, family: int) -> str | None:
    error = asked.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not error and protocol == "tcp":
        return "answered"
    try:
        data = b"" if error else asked.recv(2000)
    except OSError as failed:
        error = failed.errno or 0
    if error:
        return {**REFUSED, **PROHIBITED}.get(error, f"error {error}")
    if protocol == "udp":
        return "answered"
    data = data[(data[0] & 15) * 4 :] if family == 4 else data
    mine = data[0] == (0 if family == 4 else 129) and struct.unpack("!H", data[4:6])[0] == number
    return "answered" if mine else None


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "catch": catch, "forge": forge}[sys.argv[1]]()
