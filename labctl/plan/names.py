"""Names, keys, MACs and identifiers: derived by hash from what they name, so that nobody else's depend on them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from uuid import UUID, uuid5

_UUIDS = UUID("6f3f4f53-1d0b-5d0a-9d60-1d7b5a0c9c1e")  # labctl's own namespace for uuid5; any fixed value serves
_WIRE_LENGTH = 63  # a DNS label, and the tightest limit among the engines' network names


def number(*parts: str) -> int:
    """A 256-bit number that depends on all parts and on where one ends and the next begins."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest(), "big")


def key(*parts: str) -> str:
    """8 hexadecimal digits for names with tight limits."""
    return f"{number('key', *parts) >> 224:08x}"


def wire(lab: str, instance: str, network: str) -> str:
    """A network's name on the host: readable, at most 63 of ``[a-z0-9-]``, unique by the key at its end."""
    readable = re.sub(r"[^a-z0-9]+", "-", f"{lab}-{instance}-{network}".lower()).strip("-")
    end = "-" + key(lab, instance, network)
    return readable[: _WIRE_LENGTH - len(end)].rstrip("-") + end


def machine_uuid(lab: str, instance: str, machine: str) -> str:
    """The same for the same lab, instance and machine name, on every host."""
    return str(uuid5(_UUIDS, "\0".join((lab, instance, machine))))


def macs(lab: str, instance: str, machine: str, nic: str) -> Iterator[str]:
    """Candidates for a NIC's MAC, locally administered unicast (``02:…``), endless; the first is nearly always free."""
    attempt = 0
    while True:
        yield mac_text(2 << 40 | number("mac", lab, instance, machine, nic, str(attempt)) >> 216)
        attempt += 1


def mac_text(value: int) -> str:
    """A 48-bit number as ``02:00:5e:…``."""
    return value.to_bytes(6, "big").hex(":")


def mac_number(text: str) -> int:
    """The reverse of ``mac_text``; also takes ``02-00-5E-…``."""
    return int(re.sub(r"[:-]", "", text), 16)
