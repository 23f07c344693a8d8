"""What was asked: a lab spec as frozen values.

Everything here has passed the schema and the semantic rules; nothing here is computed. Defaults are merged, sizes are
bytes, addresses are ``ipaddress`` objects, counted machines are still one entry with ``count``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Literal

Protocol = Literal["any", "icmp", "tcp", "udp"]


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """A protocol with a closed port range: ``any``, ``icmp``, ``tcp/80``, ``udp/8000-8100``.

    ``first`` and ``last`` are 0 for ``any`` and ``icmp``. ``icmp`` means echo and the errors that belong to it, in the
    address family of the flow (ICMP or ICMPv6).
    """

    protocol: Protocol
    first: int = 0
    last: int = 0

    def covers(self, protocol: Protocol, port: int | None) -> bool:
        """Whether a packet of ``protocol`` to ``port`` (None for icmp) is meant."""
        if self.protocol == "any":
            return True
        if self.protocol != protocol:
            return False
        return port is None or self.first <= port <= self.last

    def __str__(self) -> str:
        if self.protocol in ("any", "icmp"):
            return self.protocol
        return (
            f"{self.protocol}/{self.first}" if self.first == self.last else f"{self.protocol}/{self.first}-{self.last}"
        )


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """An isolated layer-2 segment; without a subnet it is a bare wire."""

    name: str
    subnet: IPv4Network | None = None
    subnet6: IPv6Network | None = None
    peers: bool = True
    egress: Literal["none", "nat"] = "none"
    description: str = ""


@dataclass(frozen=True, slots=True)
class InterfaceSpec:
    """One seat of a machine on a network.

    address, address6: a fixed address, ``"auto"`` (the plan picks one; the default wherever the network has the
    family), or None (no address of this family). A counted machine's fixed address is that of its first copy; the
    others follow upwards.
    """

    network: str
    address: IPv4Address | Literal["auto"] | None = None
    address6: IPv6Address | Literal["auto"] | None = None
    mac: str | None = None
    promiscuous: bool = False


@dataclass(frozen=True, slots=True)
class PackagesStep:
    """Distribution packages the machine has from its first boot; baked into a derived image on the host."""

    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileStep:
    """A file put into the guest; exactly one of ``source`` (relative to the lab's folder) and ``content``."""

    target: str
    source: str | None = None
    content: str | None = None
    mode: str = "0644"
    owner: str = "root:root"


@dataclass(frozen=True, slots=True)
class ShellStep:
    """A shell text run as root in the guest by ``/bin/sh -e`` (PowerShell on Windows)."""

    shell: str


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """A script of the lab's folder, copied into the guest and run there as root with arguments."""

    source: str
    args: tuple[str, ...] = ()


Step = PackagesStep | FileStep | ShellStep | ScriptStep


@dataclass(frozen=True, slots=True)
class UserSpec:
    """An account in the guest. ``keys`` are authorised SSH public keys, whole lines."""

    name: str
    password: str | None = None
    groups: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    sudo: bool = False
    shell: str = "/bin/bash"


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """An extra, empty disk. size is in bytes; the guest sees ``name`` as the disk's serial number."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class SecretSpec:
    """A value that each instance has its own of. ``labctl.spec.secrets`` makes it; it stands in no plan.

    flag: ``prefix{…}``. password: ``length`` letters and digits. choice: one of ``of``. port: a number from ``first``
    to ``last``. What another kind needs is at its default. points: what handing it in is worth; None for nothing.
    """

    name: str
    kind: Literal["flag", "password", "choice", "port"]
    prefix: str = "FLAG"
    length: int = 16
    of: tuple[str, ...] = ()
    first: int = 1024
    last: int = 32767
    points: float | None = None


@dataclass(frozen=True, slots=True)
class WinRMSpec:
    """How Windows guests are reached."""

    username: str = "vagrant"
    password: str = "vagrant"  # noqa: S105 - the public default of Vagrant's Windows boxes
    port: int = 5985
    transport: Literal["plaintext", "negotiate", "ssl"] = "negotiate"


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine, or ``count`` equal ones called ``name-1`` … ``name-N`` (``count`` None means one, called ``name``).

    memory is in bytes. ``providers`` maps a provider's name to that provider's settings for this machine.
    ``secrets`` names those of the lab that its provisioning steps are told. ``names`` is whether its hosts file has the
    names of all whom it may reach.
    """

    name: str
    image: str
    os: Literal["linux", "windows"] = "linux"
    description: str = ""
    memory: int = 256 << 20
    cpus: int = 1
    count: int | None = None
    router: bool = False
    gui: bool = False
    interfaces: tuple[InterfaceSpec, ...] = ()
    gateway: IPv4Address | None = None
    gateway6: IPv6Address | None = None
    services: tuple[Ports, ...] = ()
    provision: tuple[Step, ...] = ()
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    names: bool = True
    users: tuple[UserSpec, ...] = ()
    disks: tuple[DiskSpec, ...] = ()
    depends_on: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    winrm: WinRMSpec | None = None
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def copies(self) -> tuple[str, ...]:
        """The names of the machines this entry stands for, in order."""
        return (self.name,) if self.count is None else tuple(f"{self.name}-{i}" for i in range(1, self.count + 1))


@dataclass(frozen=True, slots=True)
class RuleEnd:
    """One end of a policy rule: a machine (a counted name means all copies), a network, or ``machine.network``."""

    kind: Literal["machine", "network", "interface"]
    machine: str | None = None
    network: str | None = None

    def __str__(self) -> str:
        return ".".join(part for part in (self.machine, self.network) if part)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Flows that routers let pass (``allow``) or answer with a refusal (``reject``); all else is dropped."""

    source: RuleEnd
    target: RuleEnd
    ports: tuple[Ports, ...]
    action: Literal["allow", "reject"] = "allow"
    description: str = ""


@dataclass(frozen=True, slots=True)
class LabSpec:
    """One ``lab.yaml``. ``file`` is where it was read; paths inside it are relative to ``file.parent``."""

    file: Path
    name: str
    version: int = 1
    description: str = ""
    provider: str | None = None
    seal: bool = False
    networks: Mapping[str, NetworkSpec] = field(default_factory=dict)
    machines: Mapping[str, MachineSpec] = field(default_factory=dict)
    policy: tuple[PolicyRule, ...] = ()
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    checks: str | None = None
    secrets: tuple[SecretSpec, ...] = ()
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The lab's folder."""
        return self.file.parent

    def copies(self) -> Iterator[tuple[str, int, MachineSpec]]:
        """Every machine by its final name, its place among its equals (0 first), and its entry, in the spec's order."""
        for machine in self.machines.values():
            for index, name in enumerate(machine.copies()):
                yield name, index, machine
