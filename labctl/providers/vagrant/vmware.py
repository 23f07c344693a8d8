"""Machines of VMware Workstation as keys of their .vmx files. Never run by labctl.

vagrant-vmware-desktop knows no LAN segments, and a ``private_network`` of it is host-only. But it writes the keys of
``vmx`` after it has set up NICs of its own, of which a machine then has the NAT one, adapter 0, alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from labctl.plan.model import MachinePlan, NetworkPlan

Keys = tuple[tuple[str, str], ...]
"""Keys of a .vmx file with their values."""

COMMON: Keys = (
    ("isolation.tools.copy.disable", "TRUE"),
    ("isolation.tools.paste.disable", "TRUE"),
    ("isolation.tools.dnd.disable", "TRUE"),
    ("isolation.tools.hgfs.disable", "TRUE"),
    ("isolation.tools.setGUIOptions.enable", "FALSE"),
    # VMware Tools let a guest plug in its NICs and edit its devices.
    ("isolation.device.connectable.disable", "TRUE"),
    ("isolation.device.edit.disable", "TRUE"),
    ("tools.guestlib.enableHostInfo", "FALSE"),
    ("vmci0.present", "FALSE"),
    ("sound.present", "FALSE"),
    ("usb.present", "FALSE"),
    ("ehci.present", "FALSE"),
    ("usb_xhci.present", "FALSE"),
    ("RemoteDisplay.vnc.enabled", "FALSE"),
)
"""What closes the ways between a guest and this computer that are no network, and what leaves no devices to share."""


def keys(full_name: str, machine: MachinePlan, wires: tuple[NetworkPlan, ...]) -> Keys:
    """The keys of one machine; ``wires`` are the networks of its interfaces, in their order."""
    return (("displayName", full_name), *_nics(machine, wires))


def segment(network: NetworkPlan) -> str:
    """The ID of a network's LAN segment: 16 bytes as VMware writes them. Whoever has it is on the segment."""
    made = b"\x52" + hashlib.sha256(network.wire.encode()).digest()[:15]
    return f"{made[:8].hex(' ')}-{made[8:].hex(' ')}"


def _nics(machine: MachinePlan, wires: tuple[NetworkPlan, ...]) -> Iterator[tuple[str, str]]:
    yield from _nic("ethernet0", machine.management_mac)
    for slot, (interface, network) in enumerate(zip(machine.interfaces, wires, strict=True), start=1):
        nic = f"ethernet{slot}"
        yield f"{nic}.present", "TRUE"
        yield f"{nic}.connectionType", "pvn"
        yield f"{nic}.pvnID", segment(network)
        yield f"{nic}.virtualDev", "e1000"
        yield from _nic(nic, interface.mac)


def _nic(nic: str, mac: str) -> Iterator[tuple[str, str]]:
    yield f"{nic}.addressType", "static"
    yield f"{nic}.address", mac.upper()
    yield f"{nic}.checkMACAddress", "FALSE"  # the plan's addresses are not from VMware's range
    yield f"{nic}.noPromisc", "TRUE"
    yield f"{nic}.allowGuestConnectionControl", "FALSE"
