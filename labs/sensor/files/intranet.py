#!/usr/bin/python3
"""The office's server: a page that people log in to, without encryption, and the office's names."""

import http.server
import os
import socket
import struct
import threading

ADDRESSES = {"intranet.office.example": "10.55.0.10", "printer.office.example": "10.55.0.30"}
A, IN, NO_SUCH_NAME = 1, 1, 3


def answer(question):
    """The answer to a DNS message with one question (RFC 1035). Raises ValueError, IndexError or struct.error."""
    number, flags, count = struct.unpack_from("!HHH", question)
    if flags & 0x8000 or count != 1:
        raise ValueError("no question")
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
        at += 1 + question[at]
    asked = struct.unpack_from("!HH", question, at + 1)
    address = ADDRESSES.get(".".join(labels).lower())
    found = b""
    if address is not None and asked == (A, IN):
        found = struct.pack("!HHHIH", 0xC00C, A, IN, 60, 4) + socket.inet_aton(address)
    flags = 0x8580 | flags & 0x100 | (NO_SUCH_NAME if address is None else 0)
    return struct.pack("!HHHHHH", number, flags, 1, bool(found), 0, 0) + question[12 : at + 5] + found


def serve_names(server):
    while True:
        question, sender = server.recvfrom(1500)
        try:
            server.sendto(answer(question), sender)
        except (ValueError, IndexError, struct.error, OSError):
            continue


class Page(http.server.BaseHTTPRequestHandler):
    """Welcomes everybody: who may log in is none of this lab's questions."""

    timeout = 10

    def do_GET(self):
        size = self.headers.get("Content-Length", "0")
        self.rfile.read(min(int(size), 4096) if size.isdecimal() else 0)
        said = b"Welcome to the intranet.\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("", 53))
threading.Thread(target=serve_names, args=(names,), daemon=True).start()
web = http.server.ThreadingHTTPServer(("", 80), Page)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:  # sd_notify(3)
    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
web.serve_forever()
