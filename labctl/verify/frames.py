"""Ethernet frames as an intruder with root would put them on a wire, byte by byte. Pure.

Nothing here asks anybody to do anything: what is not a question carries a nonce and ends where it is heard. Formats:
RFC 826 (ARP), RFC 4861 (neighbour discovery), RFC 4443 (ICMPv6), RFC 9293 (TCP), IEEE 802.1Q, and for frames of our own
the EtherType 0x88B5 that IEEE 802 keeps for local experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from labctl.plan.model import Address

MARK = b"labctl-probe-"  # before a nonce, as the watchers in the guests look for it
BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES = IPv6Address("ff02::1")
FORGED = "06:6c:61:62:00:00"  # locally administered; the last two bytes tell forgers apart
_EXPERIMENT, _IPV4, _ARP, _VLAN, _IPV6 = 0x88B5, 0x0800, 0x0806, 0x8100, 0x86DD
_VLAN_ID = 7
_SHORTEST = 60  # bytes, without the checksum that the NIC adds
_TCP, _UDP, _ICMP6 = 6, 17, 58
_SYN = 2
_UNKNOWN_OPTION = 253  # of neighbour discovery, for experiments (RFC 4727): receivers skip it


def marked(source: str, nonce: str, target: str = BROADCAST, *, tagged: bool = False) -> bytes:
    """A frame with a nonce; ``tagged`` puts a VLAN tag before it."""
    payload = _number(_EXPERIMENT) + MARK + nonce.encode()
    return _frame(target, source, _VLAN, _number(_VLAN_ID) + payload) if tagged else _raw(target, source, payload)


def who_has(source: str, sender: Address, asked: Address) -> bytes:
    """A question for the MAC address of ``asked``: ARP, or a neighbour solicitation."""
    if isinstance(asked, IPv4Address):
        head = bytes([0, 1, 8, 0, 6, 4, 0, 1]) + _mac(source) + sender.packed
        return _frame(BROADCAST, source, _ARP, head + bytes(6) + asked.packed)
    group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | (int(asked) & 0xFFFFFF))
    body = bytes([135, 0, 0, 0, 0, 0, 0, 0]) + asked.packed + bytes([1, 1]) + _mac(source)
    return _icmp6(source, sender, group, body)


def echo_to_all(source: str) -> bytes:
    """An echo request to every IPv6 node of a wire; whoever answers shows itself."""
    return _icmp6(source, link_local(source), ALL_NODES, bytes([128, 0, 0, 0, 0x6C, 0x61, 0, 1]) + MARK)


def router_solicitation(source: str) -> bytes:
    """A question for routers."""
    body = bytes([133, 0, 0, 0, 0, 0, 0, 0, 1, 1]) + _mac(source)
    return _icmp6(source, link_local(source), IPv6Address("ff02::2"), body)


def router_advertisement(source: str, nonce: str) -> bytes:
    """An advertisement of a router that is none: it offers no prefix and no route, for no time at all.

    It comes from an address that nobody has, lest hosts forget a router that is there (RFC 4861, 6.3.4).
    """
    text = MARK + nonce.encode()
    text += bytes(-(len(text) + 2) % 8)
    option = bytes([_UNKNOWN_OPTION, (len(text) + 2) // 8]) + text
    return _icmp6(source, link_local(FORGED), ALL_NODES, bytes([134]) + bytes(15) + option)


def packet(
    macs: tuple[str, str],
    ends: tuple[Address, Address],
    protocol: Literal["tcp", "udp"],
    ports: tuple[int, int],
    nonce: str,
) -> bytes:
    """A first packet of TCP or UDP that carries a nonce. All pairs are source, target."""
    source, target = ends
    number = _TCP if protocol == "tcp" else _UDP
    data = MARK + nonce.encode()
    head = _number(ports[0]) + _number(ports[1])
    if protocol == "tcp":
        body = head + bytes(8) + bytes([5 << 4, _SYN]) + _number(8192) + bytes(4) + data
        at = 16
    else:
        body = head + _number(8 + len(data)) + bytes(2) + data
        at = 6
    checksum = _checksum(_pseudo(source, target, number, len(body)), body)
    body = body[:at] + checksum + body[at + 2 :]
    if isinstance(source, IPv4Address):
        top = bytes([0x45, 0]) + _number(20 + len(body)) + bytes(4) + bytes([64, number])
        top += _checksum(top, bytes(2), source.packed, target.packed) + source.packed + target.packed
        return _frame(macs[1], macs[0], _IPV4, top + body)
    return _frame(macs[1], macs[0], _IPV6, _ipv6(source, target, number, 64, len(body)) + body)


def link_local(mac: str) -> IPv6Address:
    """The address that a NIC gives itself when nothing else is said (RFC 4291, appendix A)."""
    number = bytearray(_mac(mac))
    number[0] ^= 2
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes(number[:3]) + b"\xff\xfe" + bytes(number[3:]))


def _icmp6(mac: str, source: Address, target: IPv6Address, body: bytes) -> bytes:
    checksum = _checksum(_pseudo(source, target, _ICMP6, len(body)), body)
    body = body[:2] + checksum + body[4:]
    group = "33:33:" + ":".join(f"{byte:02x}" for byte in target.packed[-4:])
    return _frame(group, mac, _IPV6, _ipv6(source, target, _ICMP6, 255, len(body)) + body)


def _ipv6(source: Address, target: Address, number: int, hops: int, size: int) -> bytes:
    return bytes([0x60, 0, 0, 0]) + _number(size) + bytes([number, hops]) + source.packed + target.packed


def _pseudo(source: Address, target: Address, number: int, size: int) -> bytes:
    if isinstance(source, IPv4Address):
        return source.packed + target.packed + bytes([0, number]) + _number(size)
    return source.packed + target.packed + size.to_bytes(4, "big") + bytes([0, 0, 0, number])


def _checksum(*parts: bytes) -> bytes:
    """The internet checksum (RFC 1071) over parts of which all but the last have an even length."""
    data = b"".join(parts)
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return _number(~total & 0xFFFF or 0xFFFF)


def _frame(target: str, source: str, kind: int, payload: bytes) -> bytes:
    return _raw(target, source, _number(kind) + payload)


def _raw(target: str, source: str, rest: bytes) -> bytes:
    return (_mac(target) + _mac(source) + rest).ljust(_SHORTEST, b"\0")


def _mac(text: str) -> bytes:
    octets: Sequence[str] = text.split(":")
    return bytes(int(octet, 16) for octet in octets)


def _number(value: int) -> bytes:
    return value.to_bytes(2, "big")
