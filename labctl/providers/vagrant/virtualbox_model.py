"""A VirtualBox machine as VirtualBox has it: values that were read back, never what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NicKind = Literal["nat", "intnet", "natnetwork", "hostonly", "bridged", "generic", "null", "other"]
Promiscuous = Literal["deny", "allow-vms", "allow-all"]


@dataclass(frozen=True, slots=True)
class Registered:
    """A machine that VirtualBox knows. name is ``<inaccessible>`` where its settings cannot be read."""

    name: str
    uuid: str

    @property
    def accessible(self) -> bool:
        """Whether its settings can be read."""
        return self.name != "<inaccessible>"


@dataclass(frozen=True, slots=True)
class NatEngine:
    """What an adapter's own NAT offers a guest beside a way out and forwarded ports."""

    dns_proxy: bool
    host_resolver: bool
    pass_domain: bool
    localhost_reachable: bool
    tftp: bool
    broadcast: bool


@dataclass(frozen=True, slots=True)
class Nic:
    """An adapter that is switched on.

    slot counts from 1. network: the engine's name of the network, interface or driver behind it, ``""`` where it has
    none. mac is ``aa:bb:cc:dd:ee:ff``. promiscuous and nat are None where the settings file, which alone has them,
    cannot be read; nat also where kind is not ``nat``.
    """

    slot: int
    kind: NicKind
    network: str
    mac: str
    connected: bool
    promiscuous: Promiscuous | None
    nat: NatEngine | None


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the host that leads into the guest. An empty address of the host means all of them."""

    name: str
    protocol: str
    host_ip: str
    host_port: int
    guest_ip: str
    guest_port: int


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """A folder of the host that the guest can mount."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state that the machine can go back to. current: the one that it goes on from now."""

    name: str
    uuid: str
    current: bool


@dataclass(frozen=True, slots=True)
class Details:
    """A machine with all that labctl judges.

    state is VirtualBox's word: ``running``, ``paused``, ``saved``, ``poweroff``, ``aborted``, ``starting``, …
    clipboard and drag_and_drop are modes, ``disabled`` where nothing passes. screen_served: whether VirtualBox shows
    its screen to the network (VRDE). host_devices: kinds of the host's devices it may use: ``audio``, ``usb``.
    snapshots are in the order of the tree.
    """

    name: str
    uuid: str
    state: str
    settings_file: Path
    nics: tuple[Nic, ...]
    forwards: tuple[Forward, ...]
    shared_folders: tuple[SharedFolder, ...]
    clipboard: str
    clipboard_files: bool
    drag_and_drop: str
    screen_served: bool
    host_devices: tuple[str, ...]
    snapshots: tuple[Snapshot, ...]

    def nic(self, slot: int) -> Nic | None:
        """The adapter in this slot, None where it is switched off."""
        return next((nic for nic in self.nics if nic.slot == slot), None)


@dataclass(frozen=True, slots=True)
class NatNetwork:
    """A network with a way out, which machines share."""

    name: str
    subnet: str
    dhcp: bool
    ipv6: bool
