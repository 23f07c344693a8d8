"""What the ears in a guest need not hear: a filter that its kernel applies to every frame. Pure.

On a network of thirty machines nine of ten frames are ARP requests and the middle of TCP connections of known NICs.
They tell nothing, and each would wake a program in an emulated guest. So of NICs whose presence is no news these are
dropped; whatever any other address sends is heard.

Form: the classic Berkeley packet filter as Linux takes it (Documentation/networking/filter.rst), eight bytes an
instruction: code, how many to skip if true and if false, operand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

_WORD, _HALF, _BYTE, _BYTE_BEHIND, _HEADER = 0x20, 0x28, 0x30, 0x50, 0xB1  # loads; the last one sets the index
_EQUAL, _ANY_BIT, _SKIP, _GIVE = 0x15, 0x45, 0x05, 0x06
_WHOLE, _NOTHING = 0x40000, 0  # bytes of a frame that are handed on
_MOST = 200  # known addresses: their comparisons must fit into what the kernel takes

# Label, code, operand, and where to go on if true and if false; "" is the next line. Of a known sender; the offsets are
# those of Ethernet, ARP (RFC 826), IPv4 (RFC 791), IPv6 (RFC 8200) and TCP (RFC 9293), whose flag SYN is 2.
_Line = tuple[str, int, int, str, str]
_OF_KNOWN: tuple[_Line, ...] = (
    ("known", _HALF, 12, "", ""),
    ("", _EQUAL, 0x0806, "arp", ""),
    ("", _EQUAL, 0x0800, "ipv4", ""),
    ("", _EQUAL, 0x86DD, "ipv6", "hear"),
    ("arp", _HALF, 20, "", ""),
    ("", _EQUAL, 1, "drop", "hear"),  # a request
    ("ipv4", _BYTE, 23, "", ""),
    ("", _EQUAL, 6, "", "hear"),  # TCP
    ("", _HEADER, 14, "", ""),
    ("", _BYTE_BEHIND, 14 + 13, "", ""),
    ("", _ANY_BIT, 2, "hear", "drop"),
    ("ipv6", _BYTE, 20, "", ""),
    ("", _EQUAL, 6, "", "hear"),
    ("", _BYTE, 14 + 40 + 13, "", ""),
    ("", _ANY_BIT, 2, "hear", "drop"),
    ("hear", _GIVE, _WHOLE, "", ""),
    ("drop", _GIVE, _NOTHING, "", ""),
)


def ears_filter(known: Iterable[str]) -> bytes:
    """The filter for a NIC. known: MAC addresses as text, of those that may be on its wire; empty where none is needed.

    A frame of anybody else is heard whatever it is, and so is all of known ones but ARP requests and TCP without SYN.
    """
    addresses = sorted({bytes.fromhex(mac.replace(":", "")) for mac in known})
    if not 0 < len(addresses) <= _MOST:
        return b""
    lines: list[_Line] = []
    for number, octets in enumerate(addresses):
        other = f"sender {number + 1}"
        lines += [
            (f"sender {number}", _WORD, 8, "", ""),
            ("", _EQUAL, int.from_bytes(octets[2:], "big"), "", other),
            ("", _HALF, 6, "", ""),
            ("", _EQUAL, int.from_bytes(octets[:2], "big"), "", other),
            ("", _SKIP, 0, "known", ""),
        ]
    return _assembled([*lines, (f"sender {len(addresses)}", _GIVE, _WHOLE, "", ""), *_OF_KNOWN])


def _assembled(lines: Sequence[_Line]) -> bytes:
    """Eight bytes for each line, labels turned into how many lines to skip."""
    at = {label: number for number, (label, *_) in enumerate(lines) if label}

    def skip(number: int, label: str) -> int:
        return at[label] - number - 1 if label else 0

    return b"".join(
        struct.pack("=HBBI", code, 0, 0, skip(number, true))
        if code == _SKIP
        else struct.pack("=HBBI", code, skip(number, true), skip(number, false), operand)
        for number, (_, code, operand, true, false) in enumerate(lines)
    )
