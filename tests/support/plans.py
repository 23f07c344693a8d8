"""Small plans made by hand, for tests of providers: what a provider does must not depend on how plans are made."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan, ManagementPlan, NetworkPlan

MANAGEMENT = ManagementPlan(
    IPv4Network("10.0.2.0/24"), IPv4Address("10.0.2.2"), IPv4Address("10.0.2.3"), IPv4Interface("10.0.2.15/24")
)


def mac(*seed: object) -> str:
    """A locally administered address from a seed."""
    digits = hashlib.sha256(repr(seed).encode()).hexdigest()
    return ":".join(["52", "54", "00", *(digits[i : i + 2] for i in (0, 2, 4))])


def network(
    name: str, *, subnet: str | None = "10.1.0.0/24", lab: str = "t", instance: str = "default", **changes: Any
) -> NetworkPlan:
    """A network of a lab."""
    wire = f"{lab}-{instance}-{name}"
    values: dict[str, Any] = {
        "subnet": IPv4Network(subnet) if subnet else None,
        "subnet6": None,
        "peers": True,
        "egress": "none",
    }
    return NetworkPlan(name, wire, hashlib.sha256(wire.encode()).hexdigest()[:8], **{**values, **changes})


def interface(machine: str, device: str, on: str, address: str | None = None, **changes: Any) -> InterfacePlan:
    """A NIC; ``address`` with a prefix length."""
    values: dict[str, Any] = {"address6": None, "promiscuous": False, "isolated": False}
    bound = IPv4Interface(address) if address else None
    return InterfacePlan(device, on, mac(machine, device), bound, **{**values, **changes})


def machine(
    name: str, *interfaces: InterfacePlan, lab: str = "t", instance: str = "default", **changes: Any
) -> MachinePlan:
    """A small Debian machine."""
    values: dict[str, Any] = {
        "entry": name,
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{instance}.{lab}")),
        "image": "debian-12",
        "os": "linux",
        "description": "",
        "memory": 256 << 20,
        "cpus": 1,
        "router": False,
        "gui": False,
        "interfaces": interfaces,
        "management_mac": mac(lab, instance, name, "mgmt"),
        **dict.fromkeys(("routes", "source_routes", "forward", "services", "packages", "steps"), ()),
        **dict.fromkeys(("hosts", "users", "disks", "depends_on"), ()),
        "winrm": None,
    }
    return MachinePlan(name=name, **{**values, **changes})


def lab(
    networks: Sequence[NetworkPlan],
    machines: Sequence[MachinePlan],
    *,
    name: str = "t",
    instance: str = "default",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> LabPlan:
    """A plan of these parts; one wave unless ``waves`` says otherwise."""
    values: dict[str, Any] = {
        "lab_key": hashlib.sha256(f"{name}/{instance}".encode()).hexdigest()[:8],
        "provider": "qemu",
        "description": "",
        "seal": False,
        "management": MANAGEMENT,
        "waves": (tuple(m.name for m in machines),),
        "flows": (),
    }
    return LabPlan(
        lab=name,
        instance=instance,
        networks=tuple(networks),
        machines=tuple(machines),
        settings=settings or {},
        **{**values, **changes},
    )
