"""Values that are written as text: addresses, subnets, ports, sizes, paths.

Each ``parse_*`` returns the value or raises BadValueError. ``FORMATS`` has them by the names that the schema's
``format`` keyword uses, so that what passes the schema can be parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal, cast

from labctl.spec.model import Ports, Protocol
from labctl.spec.problems import quoted

Address = IPv4Address | IPv6Address

_MIB = 1 << 20
_SIZE = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?) ?([MGT])I?B?\Z", re.IGNORECASE)
_UNITS = {"M": _MIB, "G": _MIB << 10, "T": _MIB << 20}
_PORTS = re.compile(r"(tcp|udp)/([0-9]{1,5})(?:-([0-9]{1,5}))?\Z")
_PORTS_BACKWARDS = re.compile(r"([0-9]{1,5}(?:-[0-9]{1,5})?)(?:/(tcp|udp))?\Z", re.IGNORECASE)
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/][^\"*:<>?|]+\Z")


class BadValueError(ValueError):
    """A text that is no such value. ``nearest`` is what was probably meant."""

    def __init__(self, message: str, nearest: str = "") -> None:
        super().__init__(message)
        self.nearest = nearest


def parse_size(text: str) -> int:
    """Bytes, a whole number of MiB: ``512 MiB``, ``2 GB``, ``1.5G``. All units count in 1024."""
    match = _SIZE.match(text)
    if not match:
        raise BadValueError(f"{quoted(text)} is not a size")
    number, unit = match.groups()
    return int(float(number) * _UNITS[unit.upper()]) // _MIB * _MIB


def parse_address(text: str) -> Address:
    """An address of either family, without prefix length or zone."""
    try:
        address = ip_address(text)
    except ValueError:
        if "/" in text:
            before = text.partition("/")[0]
            raise BadValueError(
                f"{quoted(text)} has a prefix length; it comes from the network's subnet", before
            ) from None
        raise BadValueError(f"{quoted(text)} is not an IP address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise BadValueError(f"{quoted(text)} has a zone", text.partition("%")[0])
    return address


def parse_ipv4(text: str) -> IPv4Address:
    """An IPv4 address."""
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        raise BadValueError(f"{quoted(text)} is an IPv6 address, not IPv4")
    return address


def parse_ipv6(text: str) -> IPv6Address:
    """An IPv6 address."""
    address = parse_address(text)
    if isinstance(address, IPv4Address):
        raise BadValueError(f"{quoted(text)} is an IPv4 address, not IPv6")
    return address


def parse_subnet(text: str) -> IPv4Network:
    """An IPv4 network that hosts can live in, /8 to /30."""
    base, prefix = _split(text, "10.10.10.0/24")
    try:
        network = IPv4Network((base, prefix), strict=False)
    except AddressValueError as error:
        raise BadValueError(f"{quoted(text)} is not an IPv4 network: {_reason(error)}") from None
    except ValueError:
        raise BadValueError(f"/{prefix} is not an IPv4 prefix length") from None
    if not 8 <= prefix <= 30:
        raise BadValueError(f"the prefix length /{prefix} is outside /8 to /30")
    return cast(IPv4Network, _usable(network, base, text))


def parse_subnet6(text: str) -> IPv6Network:
    """An IPv6 network that hosts can live in, /48 to /126."""
    base, prefix = _split(text, "fd00:10::/64")
    try:
        network = IPv6Network((base, prefix), strict=False)
    except AddressValueError as error:
        raise BadValueError(f"{quoted(text)} is not an IPv6 network: {_reason(error)}") from None
    except ValueError:
        raise BadValueError(f"/{prefix} is not an IPv6 prefix length") from None
    if not 48 <= prefix <= 126:
        raise BadValueError(f"the prefix length /{prefix} is outside /48 to /126")
    return cast(IPv6Network, _usable(network, base, text))


def _split(text: str, example: str) -> tuple[str, int]:
    base, slash, prefix = text.partition("/")
    if not slash:
        raise BadValueError(f"{quoted(text)} has no prefix length", f"{text}/{example.partition('/')[2]}")
    if not re.match(r"[0-9]{1,3}\Z", prefix):
        raise BadValueError(f"{quoted(text)} has a netmask or something else where a prefix length belongs", example)
    return base, int(prefix)


def _usable(network: IPv4Network | IPv6Network, base: str, text: str) -> IPv4Network | IPv6Network:
    if ip_address(base) != network.network_address:
        raise BadValueError(f"{quoted(text)} is an address inside a network, not a network", str(network))
    for name, taken in _NOT_FOR_LABS:
        if taken.version == network.version and network.overlaps(taken):
            raise BadValueError(f"{quoted(text)} lies in {taken}, which is {name}")
    return network


_NOT_FOR_LABS: tuple[tuple[str, IPv4Network | IPv6Network], ...] = (
    ("no address of any host", IPv4Network("0.0.0.0/8")),
    ("loopback", IPv4Network("127.0.0.0/8")),
    ("link-local", IPv4Network("169.254.0.0/16")),
    ("multicast or reserved", IPv4Network("224.0.0.0/3")),
    ("loopback or IPv4 in another form", IPv6Network("::/16")),
    ("link-local", IPv6Network("fe80::/10")),
    ("multicast", IPv6Network("ff00::/8")),
)


def parse_seat_address(text: str | None) -> Address | Literal["auto", "none"]:
    """What stands behind a network's name: an address, ``auto`` (also for nothing) or ``none``."""
    if text is None or text == "auto":
        return "auto"
    return "none" if text == "none" else parse_address(text)


def parse_seat_ipv4(text: str) -> IPv4Address | Literal["auto", "none"]:
    """The IPv4 side of a seat."""
    return cast(Literal["auto", "none"], text) if text in ("auto", "none") else parse_ipv4(text)


def parse_seat_ipv6(text: str) -> IPv6Address | Literal["auto", "none"]:
    """The IPv6 side of a seat."""
    return cast(Literal["auto", "none"], text) if text in ("auto", "none") else parse_ipv6(text)


def parse_ports(text: str) -> Ports:
    """``any``, ``icmp``, ``tcp/80``, ``udp/8000-8100``."""
    if text in ("any", "icmp"):
        return Ports(cast(Protocol, text))
    match = _PORTS.match(text)
    if not match:
        raise BadValueError(f"{quoted(text)} is not a port", _ports_meant(text))
    protocol, first, last = match[1], int(match[2]), int(match[3] or match[2])
    if not (1 <= first <= 65535 and 1 <= last <= 65535):
        raise BadValueError(f"{quoted(text)} has a port outside 1 to 65535")
    if first > last:
        raise BadValueError(f"the range {quoted(text)} ends before it begins", f"{protocol}/{last}-{first}")
    return Ports(cast(Protocol, protocol), first, last)


def parse_service(text: str) -> Ports:
    """One TCP or UDP port."""
    ports = parse_ports(text)
    if ports.protocol in ("any", "icmp"):
        raise BadValueError(f"{quoted(text)} is not a service with a port")
    if ports.first != ports.last:
        raise BadValueError(f"{quoted(text)} is a range; a service has one port", f"{ports.protocol}/{ports.first}")
    return ports


def _ports_meant(text: str) -> str:
    """``80/tcp`` and ``80``, as other tools write ports."""
    match = _PORTS_BACKWARDS.match(text.strip())
    if match:
        return f"{(match[2] or 'tcp').lower()}/{match[1]}"
    lowered = text.strip().lower().replace(":", "/")
    return lowered if lowered != text and (_PORTS.match(lowered) or lowered in ("any", "icmp")) else ""


def parse_lab_path(text: str) -> str:
    """A relative path of the lab's folder. Links that lead out are found when the path is used."""
    if not text or not text.isprintable() or len(text) > 1024 or any(len(part) > 255 for part in text.split("/")):
        raise BadValueError("a path needs printable characters, 255 at most between two slashes and 1024 in all")
    if "\\" in text:
        raise BadValueError(f"{quoted(text)} has backslashes", text.replace("\\", "/"))
    if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:", text):
        raise BadValueError(f"{quoted(text)} is a full path; paths are relative to the lab's folder")
    if ".." in text.split("/"):
        raise BadValueError(f"{quoted(text)} leads out of the lab's folder")
    return text


def parse_guest_path(text: str) -> str:
    """A full path in a guest, of Linux or Windows."""
    if not text.isprintable() or len(text) > 1024:
        raise BadValueError("a path needs printable characters, 1024 at most")
    if ".." in re.split(r"[/\\]", text):
        raise BadValueError(f"{quoted(text)} contains ..; write the path out")
    if text.startswith("/"):
        if text.endswith("/"):
            raise BadValueError(f"{quoted(text)} is a folder; name the file in it")
        return text
    if _WINDOWS_PATH.match(text):
        return text
    raise BadValueError(f"{quoted(text)} is not a full path", f"/{text}" if re.match(r"[\w.]", text) else "")


def _reason(error: AddressValueError) -> str:
    return str(error).partition(" in ")[0]


FORMATS: Mapping[str, Callable[[str], object]] = {
    "ip": parse_address,
    "ipv4": parse_ipv4,
    "ipv6": parse_ipv6,
    "ipv4-subnet": parse_subnet,
    "ipv6-subnet": parse_subnet6,
    "seat-address": parse_seat_address,
    "seat-ipv4": parse_seat_ipv4,
    "seat-ipv6": parse_seat_ipv6,
    "ports": parse_ports,
    "service": parse_service,
    "lab-path": parse_lab_path,
    "guest-path": parse_guest_path,
}
