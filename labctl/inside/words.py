"""What the modules inside a guest share."""

from __future__ import annotations

import _socket as socket
import errno
import os

MARK = b"labctl-probe-"  # before the nonce in every payload


def quoted(text: str) -> str:
    """A JSON string of the plain characters of a text."""
    return '"' + "".join(c if c.isalnum() or c in " .:-_%/[]()," else "?" for c in text[:120]) + '"'


def family_of(family: int) -> int:
    """The socket module's number of IPv4 or IPv6."""
    return socket.AF_INET6 if family == 6 else socket.AF_INET


def reason(code: int) -> str:
    """The name of an errno."""
    return errno.errorcode.get(code, str(code))


def read(path: str) -> str:
    """What one of the kernel's small files says; nothing where it is not there."""
    try:
        with open(path) as file:  # noqa: PTH123 - pathlib costs a cold guest a tenth of a second
            return file.read().strip()
    except OSError:
        return ""


def names(devices: list[tuple[str, str]]) -> dict[str, str]:
    """What the guest calls the planned (device, MAC); the planned name where no NIC has the planned address."""
    nics = os.listdir("/sys/class/net")  # noqa: PTH208 - pathlib is slow to load
    there = {name: read(f"/sys/class/net/{name}/address") for name in nics}
    by_mac = {mac: name for name, mac in there.items()}
    return {device: device if there.get(device) == mac else by_mac.get(mac, device) for device, mac in devices}


def transmit(here: dict[str, str], frames: list[tuple[str, str]]) -> None:
    """Put (device, frame in hexadecimal) on the wires of devices, by what ``here`` calls them; one that is not there
    sends nothing."""
    sockets: dict[str, socket.socket | None] = {}
    for device, frame in frames:
        if device not in sockets:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            try:
                sock.bind((here.get(device, device), 0))
            except OSError:
                sock.close()
                sockets[device] = None
            else:
                sockets[device] = sock
        chosen = sockets[device]
        try:
            if chosen is not None:
                chosen.send(bytes.fromhex(frame))
        except OSError:
            continue  # the NIC is down, and then nothing goes by it
    for one in sockets.values():
        if one is not None:
            one.close()
