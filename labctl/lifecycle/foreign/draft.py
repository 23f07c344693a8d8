"""A lab under construction: what an importer found, before it is made valid and written.

Importers put in names, addresses and sizes as they found them. What cannot be taken becomes a note, which is written as
a comment where it belongs; ``settle`` then sees to what concerns several parts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from typing import Any

from labctl.errors import UsageError
from labctl.lifecycle.foreign.names import Names, as_name
from labctl.spec.problems import quoted
from labctl.spec.rules.machines import MAX_DISK, MAX_MEMORY, MIN_DISK, MIN_MEMORY
from labctl.spec.rules.names import MAX_LABEL, MAX_WINDOWS_NAME
from labctl.spec.values import BadValueError, parse_address, parse_subnet, parse_subnet6

_MIB = 1 << 20
MAX_CPUS = 64
MAX_DISKS = 16
MAX_DISK_NAME = 20
MAX_STEPS = 200
MAX_NETWORKS = 200
MAX_MACHINES = 500


@dataclass(slots=True)
class Network:
    """A network. wanted: the subnet to take if it is free, for members whose addresses the source leaves open."""

    name: str
    subnet: IPv4Network | None = None
    subnet6: IPv6Network | None = None
    wanted: str = ""
    notes: list[str] = field(default_factory=list)

    def give(self, cidr: str) -> bool:
        """Give it the subnet in which ``cidr``, a network or an address in one, lies; False where no lab can have it.

        A network keeps the first subnet of each family.
        """
        try:
            subnet = ip_interface(cidr).network
            if isinstance(subnet, IPv4Network):
                self.subnet = self.subnet or parse_subnet(str(subnet))
            else:
                self.subnet6 = self.subnet6 or parse_subnet6(str(subnet))
        except ValueError as error:
            reason = f": {error}" if isinstance(error, BadValueError) else ""
            self.notes.append(f"not carried over: the subnet {quoted(cidr)}{reason}")
            return False
        return True


@dataclass(slots=True)
class Seat:
    """An interface. silent: labctl gives it no address."""

    network: Network
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    silent: bool = False
    promiscuous: bool = False


@dataclass(slots=True)
class Machine:
    """A machine; sizes are in bytes."""

    name: str
    image: str = "debian-12"
    windows: bool = False
    router: bool = False
    gui: bool = False
    memory: int | None = None
    cpus: int | None = None
    seats: list[Seat] = field(default_factory=list)
    disks: dict[str, int] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sit(self, network: Network, address: str = "", *, silent: bool = False) -> Seat:
        """Put it on a network. address: as the source has it, ``""`` where it leaves that open."""
        seat = Seat(network, silent=silent)
        if address:
            try:
                found = parse_address(address)
            except BadValueError as error:
                self.notes.append(f"not carried over: an address on {network.name}: {error}")
            else:
                seat.address = found if isinstance(found, IPv4Address) else None
                seat.address6 = found if isinstance(found, IPv6Address) else None
        self.seats.append(seat)
        return seat

    def has_memory(self, size: int) -> None:
        """Give it memory, in bytes."""
        size = size // _MIB * _MIB
        if MIN_MEMORY <= size <= MAX_MEMORY:
            self.memory = size
        else:
            self.notes.append(f"not carried over: {size // _MIB} MiB of memory; labctl takes 64 MiB to 1 TiB")

    def has_cpus(self, count: int) -> None:
        """Give it processors."""
        if 1 <= count <= MAX_CPUS:
            self.cpus = count
        else:
            self.notes.append(f"not carried over: {count} processors; labctl takes 1 to {MAX_CPUS}")

    def has_disk(self, name: str, size: int) -> None:
        """Give it an empty disk, in bytes."""
        label = as_name(name, "disk")[:MAX_DISK_NAME].rstrip("-")
        label = next((n for n in (label, *(f"disk-{i}" for i in range(2, MAX_DISKS + 2))) if n not in self.disks), "")
        size = size // _MIB * _MIB
        if len(self.disks) < MAX_DISKS and MIN_DISK <= size <= MAX_DISK:
            self.disks[label] = size
        else:
            self.notes.append(f"not carried over: the disk {quoted(name)} of {size // _MIB} MiB")

    def does(self, step: dict[str, Any]) -> None:
        """Add a provisioning step."""
        if len(self.steps) < MAX_STEPS:
            self.steps.append(step)
        elif "not carried over: more provisioning steps than labctl takes" not in self.notes:
            self.notes.append("not carried over: more provisioning steps than labctl takes")


class Draft:
    """The lab. origin: what the source calls itself, for comments, such as ``Vagrantfile``."""

    def __init__(self, name: str, origin: str) -> None:
        self.name = as_name(name, "lab")
        self.origin = origin
        self.networks: list[Network] = []
        self.machines: list[Machine] = []
        self.groups: dict[str, list[str]] = {}
        self.open_between_networks = False
        self.notes: list[str] = []
        self._names = Names()
        if name and self.name != name:
            self.notes.append(f"the lab was called {quoted(name)}")

    def note(self, text: str) -> None:
        """Say something about the lab as a whole, once."""
        if text not in self.notes:
            self.notes.append(text)

    def network(self, wanted: str, *, named: bool = True) -> Network:
        """A new network called like ``wanted``. named: whether that is its name in the source."""
        if len(self.networks) == MAX_NETWORKS:
            raise UsageError(f"the {self.origin} has more than {MAX_NETWORKS} networks, more than a lab can have")
        network = Network(self._names.take(wanted, "network"))
        if named and network.name != wanted:
            network.notes.append(f"called {quoted(wanted)} in the source")
        self.networks.append(network)
        return network

    def machine(self, wanted: str, *, windows: bool = False, original: str = "") -> Machine:
        """A new machine called like ``wanted``, or like ``original``, its name in the source, where that is taken."""
        if len(self.machines) == MAX_MACHINES:
            raise UsageError(f"the {self.origin} has more than {MAX_MACHINES} machines, more than a lab can have")
        limit = MAX_WINDOWS_NAME if windows else MAX_LABEL
        if original and not self._names.free(wanted, "machine", limit):
            wanted = original
        machine = Machine(self._names.take(wanted, "machine", limit), windows=windows)
        if machine.name != (original or wanted):
            machine.notes.append(f"called {quoted(original or wanted)} in the source")
        self.machines.append(machine)
        return machine
