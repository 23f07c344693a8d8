"""What will be: a lab plan, complete and concrete.

Built by ``labctl.plan.build`` without any I/O; two builds from the same input are equal and print the same bytes.
Providers and the verifier read this and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Literal

from labctl.spec.model import DiskSpec, PolicyRule, Ports, SecretSpec, Step, UserSpec, WinRMSpec

PLAN_VERSION = 1

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Expected = Literal["pass", "deny"]
FlowProtocol = Literal["icmp", "tcp", "udp"]


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """A wire of this instance. ``wire`` is its name on the host, unique per lab and instance, at most 63 characters of
    ``[a-z0-9-]``; ``key`` is 8 hexadecimal digits derived from it for names with tight limits (Linux devices).
    ``exit`` is the address at which the engine's way out stands, ``resolver`` that at which it answers DNS where it has
    one apart from that; both are None without egress, and ``resolver`` also where no address is left for it."""

    name: str
    wire: str
    key: str
    subnet: IPv4Network | None
    subnet6: IPv6Network | None
    peers: bool
    egress: Literal["none", "nat"]
    exit: IPv4Address | None = None
    resolver: IPv4Address | None = None

    def subnets(self) -> tuple[Network, ...]:
        """The subnets of both families, IPv4 first."""
        return tuple(subnet for subnet in (self.subnet, self.subnet6) if subnet is not None)


@dataclass(frozen=True, slots=True)
class InterfacePlan:
    """A NIC on a lab network. ``device`` is its name in the guest (``eth0``, ``eth1``, … in the spec's order).

    isolated: may exchange frames with router NICs only (a member of a ``peers: false`` network that is no router).
    """

    device: str
    network: str
    mac: str
    address: IPv4Interface | None
    address6: IPv6Interface | None
    promiscuous: bool
    isolated: bool

    def addresses(self) -> tuple[Address, ...]:
        """The bare addresses of both families, IPv4 first."""
        return tuple(a.ip for a in (self.address, self.address6) if a is not None)

    def seat(self, family: Literal[4, 6]) -> IPv4Interface | IPv6Interface | None:
        """The address with its prefix length in one family."""
        return self.address if family == 4 else self.address6


@dataclass(frozen=True, slots=True)
class ManagementPlan:
    """The management path: a private subnet behind a NIC of each machine, overlapping no lab network.

    Each machine has one of its own, all alike, or (``shared``) they are on one network of the host's that must not let
    them meet. host is the engine's own address there, dns the one that a resolver would have, guest the guest's; where
    it is shared, each guest has an address of its own, ``MachinePlan.management_address``.
    """

    subnet: IPv4Network
    host: IPv4Address
    dns: IPv4Address
    guest: IPv4Interface
    device: str = "mgmt"
    shared: bool = False


@dataclass(frozen=True, slots=True, order=True)
class RoutePlan:
    """A static route; ``target`` is ``default`` only as ``0.0.0.0/0`` or ``::/0``. ``device`` is the interface used."""

    target: Network
    gateway: Address
    device: str


@dataclass(frozen=True, slots=True)
class ForwardRule:
    """What one router lets cross from one of its devices to another. Replies of allowed flows pass by state.

    sources and targets are networks (a host is a /32 or /128), all of one family. Targets may include the router's own
    address on ``out_device``: traffic to that leg is let in by the same rule. The first rule that matches decides.
    """

    family: Literal[4, 6]
    in_device: str
    out_device: str
    sources: tuple[Network, ...]
    targets: tuple[Network, ...]
    ports: Ports
    action: Literal["allow", "reject"]


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """A machine. ``entry`` is the spec's name for it (``office`` of ``office-2``). memory and disk sizes are in bytes.

    uuid is stable for lab, instance and name. ``routes`` are of the main table; a machine with several routed
    interfaces also gets ``source_routes``: per device a table that is used for packets with that device's addresses,
    so that answers leave where the question came in. resolvers: whom to ask for names of the world outside, none
    without egress. packages are baked into a derived image; ``steps`` are the rest, which are told ``secrets``.
    """

    name: str
    entry: str
    uuid: str
    image: str
    os: Literal["linux", "windows"]
    description: str
    memory: int
    cpus: int
    router: bool
    gui: bool
    interfaces: tuple[InterfacePlan, ...]
    management_mac: str
    routes: tuple[RoutePlan, ...]
    source_routes: tuple[RoutePlan, ...]
    forward: tuple[ForwardRule, ...]
    services: tuple[Ports, ...]
    packages: tuple[str, ...]
    steps: tuple[Step, ...]
    hosts: tuple[tuple[str, tuple[str, ...]], ...]
    users: tuple[UserSpec, ...]
    disks: tuple[DiskSpec, ...]
    depends_on: tuple[str, ...]
    winrm: WinRMSpec | None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resolvers: tuple[IPv4Address, ...] = ()
    secrets: tuple[str, ...] = ()
    management_address: IPv4Interface | None = None

    @property
    def boots_from(self) -> tuple[str, tuple[str, ...]]:
        """What tells its image from others: the name, and the packages baked in, sorted, each once."""
        return self.image, tuple(sorted(set(self.packages)))

    def interface(self, device: str) -> InterfacePlan:
        """The interface with this device name; KeyError where there is none."""
        for interface in self.interfaces:
            if interface.device == device:
                return interface
        raise KeyError(device)


@dataclass(frozen=True, slots=True, order=True)
class Flow:
    """One cell of the isolation matrix.

    source: a machine; source_device: the NIC the packet leaves by (a lab device or ``mgmt``). target: a machine's
    name, or ``host`` (the computer that runs the lab), ``management`` (the engine's gateway on the management side).
    target_device is the NIC that owns the address, ``""`` where target is no machine. address is None where only the
    verifier can know it (an address of the host): it expands such a flow to one per address. port is 0 for icmp.
    rejected: a policy says ``reject``, so a refusal is as good as silence. why: the reason, for people.
    """

    source: str
    source_device: str
    target: str
    target_device: str
    family: Literal[4, 6]
    protocol: FlowProtocol
    port: int
    expected: Expected
    address: str | None = None
    rejected: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class LabPlan:
    """A whole instance of a lab. ``waves`` are machine names in dependency order: those of one wave start together.

    ``lab_key`` is 8 hexadecimal digits derived from lab and instance names, for host-side names with tight limits.
    ``policy`` is the spec's, for people and for whoever asks about flows that are not in ``flows``. ``secrets`` says
    how they look; what they are follows from the instance's seed, which is in no plan.
    """

    lab: str
    instance: str
    lab_key: str
    provider: str
    description: str
    seal: bool
    networks: tuple[NetworkPlan, ...]
    machines: tuple[MachinePlan, ...]
    management: ManagementPlan
    waves: tuple[tuple[str, ...], ...]
    flows: tuple[Flow, ...]
    policy: tuple[PolicyRule, ...] = ()
    checks: str | None = None
    secrets: tuple[SecretSpec, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    version: int = PLAN_VERSION

    def machine(self, name: str) -> MachinePlan:
        """The machine with this name; KeyError where there is none."""
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise KeyError(name)

    def network(self, name: str) -> NetworkPlan:
        """The network with this name; KeyError where there is none."""
        for network in self.networks:
            if network.name == name:
                return network
        raise KeyError(name)
