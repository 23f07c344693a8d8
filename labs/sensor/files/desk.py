#!/usr/bin/python3
"""desk USER PASSWORD PORT PERIOD ID: somebody who works, and something on the computer that calls home meanwhile.

People log in and print when they feel like it. A beacon is punctual.
"""

import heapq
import http.client
import itertools
import os
import random
import socket
import sys
import time

USER, PASSWORD, PORT, PERIOD, ID = sys.argv[1:]
INTRANET, PRINTER = "intranet.office.example", "printer.office.example"
BEATS, CHANCE = itertools.count(1), random.SystemRandom()


def send(address, port, line):
    """One line, and one that comes back."""
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.sendall(line)
        connection.recv(64)


def work():
    """Log in, and read a page."""
    connection = http.client.HTTPConnection(INTRANET, timeout=5)
    try:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", f"user={USER}&password={PASSWORD}", form)
        connection.getresponse().read()
        connection.request("GET", f"/poll?id={CHANCE.randrange(100)}&seq=1")
        connection.getresponse().read()
    finally:
        connection.close()
    return CHANCE.uniform(3, 11)


def print_page():
    """Have a page printed."""
    send(PRINTER, 9100, b"POLL RESULTS: ten of twelve would rather have tea\n")
    return CHANCE.uniform(5, 25)


def beacon():
    """Ask for orders; there are none."""
    send("10.55.0.30", int(PORT), b"POLL id=%s seq=%d\n" % (ID.encode(), next(BEATS)))
    return int(PERIOD)


with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:  # sd_notify(3)
    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
now = time.monotonic()
habits = [(now, 0, beacon), (now + 1, 1, work), (now + 2, 2, print_page)]
while True:
    due, number, habit = heapq.heappop(habits)
    time.sleep(max(0, due - time.monotonic()))
    try:
        wait = habit()
    except (OSError, http.client.HTTPException):
        wait = int(PERIOD)
    heapq.heappush(habits, (max(due + wait, time.monotonic()), number, habit))
