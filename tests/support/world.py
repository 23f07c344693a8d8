"""Plays the internet: TCP on one port of every address, and a name server that knows one name. Prints "ready"."""

from __future__ import annotations

import socket
import struct
import sys
import threading

NAME, ADDRESS = b"\x05world\x04test\x00", b"\xc0\x00\x02\x35"  # world.test is 192.0.2.53


def serve(listener: socket.socket) -> None:
    while True:
        caller, _ = listener.accept()
        with caller:
            caller.sendall(b"world\n")


def resolve(sock: socket.socket) -> None:
    while True:
        query, sender = sock.recvfrom(512)
        known = query[12:].startswith(NAME + b"\x00\x01\x00\x01")
        header = query[:2] + (b"\x81\x80" if known else b"\x81\x83") + struct.pack(">HHHH", 1, int(known), 0, 0)
        question = query[12 : query.index(b"\x00", 12) + 5]
        answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + ADDRESS if known else b""
        sock.sendto(header + question + answer, sender)


def main() -> None:
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("", 53))
    threading.Thread(target=resolve, args=(names,), daemon=True).start()
    with socket.create_server(("", int(sys.argv[1]))) as listener:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        serve(listener)


if __name__ == "__main__":
    main()
