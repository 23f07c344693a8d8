"""What a schema cannot say. Each rule is a small function that yields findings; all of them run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from labctl.spec.model import LabSpec
from labctl.spec.problems import Finding
from labctl.spec.rules import addresses, files, machines, names, policy, secrets, topology
from labctl.spec.rules.context import Context

Rule = Callable[[Context], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    names.reserved,
    names.too_long,
    names.clashing,
    names.too_many,
    names.dangling_networks,
    names.dangling_dependencies,
    names.dependency_cycles,
    names.seats_twice,
    machines.without_image,
    machines.memory_bounds,
    machines.windows_lacks,
    machines.winrm_without_windows,
    machines.file_targets,
    machines.macs,
    addresses.without_subnet,
    addresses.outside_subnet,
    addresses.taken,
    addresses.subnet_full,
    addresses.egress_without_subnet,
    addresses.gateways,
    topology.routers,
    topology.overlapping_subnets,
    policy.ends,
    policy.carried,
    secrets.dangling,
    secrets.windows,
    secrets.settings,
    files.missing,
)


def findings(spec: LabSpec, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong with ``spec``. data: the plain document, defaults merged, that it was built from."""
    context = Context(spec, data)
    for rule in RULES:
        yield from rule(context)
