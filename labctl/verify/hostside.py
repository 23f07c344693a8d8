"""Controls that labctl makes from the host itself: that what a guest must not reach would answer somebody."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from ipaddress import ip_address

from labctl.errors import HostError
from labctl.host.runner import Runner
from labctl.inside.probing import echo_request
from labctl.plan.model import LabPlan
from labctl.verify.agenda import DNS_PORT, LOOPBACK, Door, serves_files
from labctl.verify.canary import Canaries
from labctl.verify.model import Control


def host_controls(plan: LabPlan, doors: Iterable[Door], canaries: Canaries, runner: Runner) -> dict[Door, Control]:
    """Ask each door on the host, behind the management gateway or outside; doors that cannot be asked are left out."""
    found: dict[Door, Control] = {}
    for door in dict.fromkeys(doors):
        place = (door.owner, door.protocol)
        if door.owner == "outside":
            found[door] = _connects(door)
        elif place == ("host", "icmp"):
            found[door] = _echoes(door.address, runner)
        elif door.protocol == "icmp":
            continue
        elif _is_own_service(plan, door):
            found[door] = _beside(canaries.control(door.protocol, LOOPBACK[door.family]), door)
        elif door.port == canaries.port:
            # A user-mode network's gateway means the host's loopback; on a shared network the host itself is there.
            itself = door.owner == "host" or plan.management.shared
            address = door.address if itself else LOOPBACK[door.family]
            found[door] = canaries.control(door.protocol, address)
    return found


def _answered(what: str) -> Control:
    return Control("target", True, "host", f"{what} answered this host")


def _silent(what: str, details: str = "") -> Control:
    return Control("target", False, "none", f"{what} does not answer this host" + (f": {details}" if details else ""))


def _connects(door: Door) -> Control:
    place = f"{door.address} tcp/{door.port}"
    try:
        socket.create_connection((door.address, door.port), timeout=3).close()
    except OSError as error:
        return _silent(place, error.strerror or str(error))
    return _answered(place)


def _echoes(address: str, runner: Runner) -> Control:
    """Ping an address of this host: by a socket where this user may have one, else by the host's ping."""
    what = f"ICMP at {address}"
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            return _answered(what) if _echo(address, kind) else _silent(what)
        except TimeoutError:
            return _silent(what)
        except OSError:
            continue  # this user may not have such a socket
    options = {"win32": ["-n", "1", "-w", "1000"], "darwin": ["-c", "1"]}.get(sys.platform, ["-c", "1", "-W", "1"])
    try:
        result = runner.run(["ping", *options, address], changes=False, timeout=5, check=False)
    except HostError as error:
        return _silent(what, error.brief)
    return _answered(what) if result.code == 0 else _silent(what)


def _echo(address: str, kind: int) -> bool:
    """Send one echo request and wait a second for its reply; raises OSError, TimeoutError among them."""
    six = ip_address(address).version == 6
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    request = echo_request(6 if six else 4, os.urandom(2), 1)
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(1.0)
        sock.sendto(request, (address, 0))
        for _ in range(100):  # a raw socket hears everybody's echoes, our own request among them
            packet = sock.recv(512)
            if packet[0] >> 4 == 4:  # with its IPv4 header
                packet = packet[(packet[0] & 15) * 4 :]
            # A datagram socket's identifier is the kernel's; it hears its own replies only.
            if packet[0] in (0, 129) and (kind == socket.SOCK_DGRAM or packet[4:8] == request[4:8]):
                return True
    return False


def _is_own_service(plan: LabPlan, door: Door) -> bool:
    """Whether the engine itself answers there: its resolver, its file server."""
    resolver = door.owner == "management" and (door.address, door.port) == (str(plan.management.dns), DNS_PORT)
    return resolver or serves_files(door.owner, door.protocol, door.port)


def _beside(gateway: Control, door: Door) -> Control:
    """The control of the resolver behind the management gateway, and of the file server there where it is silent.

    What answers for the resolver is the one that this host uses, which is somebody else's computer as a rule and is
    sent nothing. The canary behind the gateway beside it stands in: the engine opens and closes the two together.
    """
    return Control("target", gateway.passed, "twin", f"{door.address} opens with the gateway: {gateway.details}")
