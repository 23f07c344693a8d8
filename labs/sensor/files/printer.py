#!/usr/bin/python3
"""printer PORT OTHER: what says that it is a printer. Whatever comes to one of its ports, it says that it is done."""

import os
import socket
import socketserver
import sys
import threading


class Job(socketserver.StreamRequestHandler):
    """One connection."""

    timeout = 10

    def handle(self):
        try:
            if self.rfile.readline(4096):
                self.wfile.write(b"DONE\n")
        except OSError:
            pass


class Port(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


ports = [Port(("", int(number)), Job) for number in sys.argv[1:]]
for port in ports:
    threading.Thread(target=port.serve_forever).start()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:  # sd_notify(3)
    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
