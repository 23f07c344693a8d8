"""``build``: the one way from a spec to a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import chain
from typing import Any

from labctl.errors import UsageError
from labctl.plan import names
from labctl.plan.addresses import Seat, assign, exit_address, fixed_addresses, resolver_address, seats
from labctl.plan.flows import expected_flows
from labctl.plan.model import Flow, InterfacePlan, LabPlan, MachinePlan, ManagementPlan, NetworkPlan
from labctl.plan.policy import forward_rules
from labctl.plan.routes import routes_of
from labctl.plan.topology import Topology
from labctl.spec.model import LabSpec, MachineSpec, PackagesStep

# The first is what QEMU's user networking has by itself and Vagrant's VirtualBox machines use; the rest are as private.
_MANAGEMENT_SUBNETS = tuple(
    IPv4Network(text)
    for text in ("10.0.2.0/24", "10.255.255.0/24", "192.168.255.0/24", "172.31.255.0/24", "198.18.255.0/24")
)
_SHARED_POOL, _SHARED_PREFIX = IPv4Network("10.0.0.0/8"), 24


def build(
    spec: LabSpec, *, instance: str = "default", provider: str = "qemu", previous: LabPlan | None = None
) -> LabPlan:
    """The plan of one instance of a lab. Pure: equal arguments give equal plans.

    previous: the plan that runs now; automatic addresses stay as they are in it, whatever was inserted where. Raises
    UsageError where the spec cannot be met: a full subnet, no place for the management path, a circle of dependencies.
    """
    machines = _machines(spec, instance, previous)
    networks = tuple(
        replace(network, resolver=resolver_address(network, machines, provider))
        for network in _networks(spec, instance)
    )
    topology = Topology.of(networks, machines)
    gateways = {
        name: tuple(g for g in (machine.gateway, machine.gateway6) if g is not None)
        for name, _, machine in spec.copies()
    }
    management = _management(networks, provider, names.key(spec.name, instance))
    seats_there = _management_addresses(machines, management, previous) if management.shared else {}
    rules = forward_rules(spec.policy, topology, machines)
    machines = tuple(
        replace(
            machine,
            **routes_of(machine, topology, gateways[machine.name]),
            forward=rules.get(machine.name, ()),
            resolvers=_resolvers(machine, topology),
            management_address=seats_there.get(machine.name),
        )
        for machine in machines
    )
    plan = LabPlan(
        lab=spec.name,
        instance=instance,
        lab_key=names.key(spec.name, instance),
        provider=provider,
        description=spec.description,
        seal=spec.seal,
        networks=networks,
        machines=machines,
        management=management,
        waves=_waves(machines),
        flows=(),
        policy=spec.policy,
        checks=spec.checks,
        secrets=spec.secrets,
        settings=_plain(spec.providers),
    )
    flows = expected_flows(plan)
    return replace(plan, flows=flows, machines=_with_names(spec, machines, flows))


def _networks(spec: LabSpec, instance: str) -> Iterable[NetworkPlan]:
    for network in spec.networks.values():
        yield NetworkPlan(
            name=network.name,
            wire=names.wire(spec.name, instance, network.name),
            key=names.key(spec.name, instance, network.name),
            subnet=network.subnet,
            subnet6=network.subnet6,
            peers=network.peers,
            egress=network.egress,
            exit=exit_address(network, fixed_addresses(spec, network.name)),
        )


def _machines(spec: LabSpec, instance: str, previous: LabPlan | None) -> tuple[MachinePlan, ...]:
    """Machines complete but for what follows from the topology: routes, firewall rules, names of others."""
    interfaces = _interfaces(spec, instance, previous)
    copies = {machine.name: machine.copies() for machine in spec.machines.values()}
    return tuple(
        MachinePlan(
            name=name,
            entry=machine.name,
            uuid=names.machine_uuid(spec.name, instance, name),
            image=machine.image,
            os=machine.os,
            description=machine.description,
            memory=machine.memory,
            cpus=machine.cpus,
            router=machine.router,
            gui=machine.gui,
            interfaces=interfaces[name],
            management_mac=next(names.macs(spec.name, instance, name, "management")),
            routes=(),
            source_routes=(),
            forward=(),
            services=machine.services,
            packages=_packages(machine),
            steps=tuple(step for step in machine.provision if not isinstance(step, PackagesStep)),
            hosts=(),
            users=machine.users,
            disks=machine.disks,
            depends_on=tuple(
                dict.fromkeys(chain.from_iterable(_meant(copies, wanted) for wanted in machine.depends_on))
            ),
            secrets=machine.secrets,
            winrm=machine.winrm,
            settings=_plain(machine.providers),
        )
        for name, _, machine in spec.copies()
    )


def _interfaces(spec: LabSpec, instance: str, previous: LabPlan | None) -> Mapping[str, tuple[InterfacePlan, ...]]:
    addresses, addresses6 = assign(spec, previous)
    macs = _macs(spec, instance)
    found: dict[str, list[InterfacePlan]] = {name: [] for name, _, _ in spec.copies()}
    for seat, _, router, interface in seats(spec):
        own = found[seat[0]]
        own.append(
            InterfacePlan(
                device=f"eth{len(own)}",
                network=interface.network,
                mac=macs[seat],
                address=addresses.get(seat),
                address6=addresses6.get(seat),
                promiscuous=interface.promiscuous,
                isolated=not router and not spec.networks[interface.network].peers,
            )
        )
    return {name: tuple(own) for name, own in found.items()}


def _resolvers(machine: MachinePlan, topology: Topology) -> tuple[IPv4Address, ...]:
    found = (topology.networks[i.network].resolver for i in machine.interfaces if i.address is not None)
    return tuple(dict.fromkeys(address for address in found if address is not None))


def _macs(spec: LabSpec, instance: str) -> Mapping[Seat, str]:
    """Fixed ones first (a counted machine's copies follow upwards), then hashed ones around them."""
    found = {
        seat: names.mac_text(names.mac_number(interface.mac) + index)
        for seat, index, _, interface in seats(spec)
        if interface.mac is not None
    }
    taken = set(found.values())
    for seat, _, _, _ in seats(spec):
        if seat not in found:
            name, network, nth = seat
            candidates = names.macs(spec.name, instance, name, f"{network}/{nth}")
            found[seat] = next(mac for mac in candidates if mac not in taken)
            taken.add(found[seat])
    return found


def _packages(machine: MachineSpec) -> tuple[str, ...]:
    wanted = (step.packages for step in machine.provision if isinstance(step, PackagesStep))
    return tuple(dict.fromkeys(chain.from_iterable(wanted)))


def _meant(copies: Mapping[str, tuple[str, ...]], wanted: str) -> tuple[str, ...]:
    """A counted name means all copies; the name of one copy means that one."""
    return copies.get(wanted, (wanted,))


def _management(networks: Sequence[NetworkPlan], provider: str, key: str) -> ManagementPlan:
    """Everywhere but on libvirt the layout of QEMU's user networking: host .2, resolver .3, guest .15."""
    used = [network.subnet for network in networks if network.subnet is not None]
    if provider == "libvirt":
        return _shared_management(used, key)
    for subnet in _MANAGEMENT_SUBNETS:
        if not any(subnet.overlaps(other) for other in used):
            return ManagementPlan(subnet, subnet[2], subnet[3], IPv4Interface((subnet[15], subnet.prefixlen)))
    raise UsageError(
        "the lab's networks leave no subnet for the management path",
        hint="Keep one of these free: " + ", ".join(map(str, _MANAGEMENT_SUBNETS)),
    )


def _shared_management(used: Sequence[IPv4Network], key: str) -> ManagementPlan:
    """A /24 of its own: the host has an address in it, so two instances on one host must not share one.

    Which one follows from the instance's key; a subnet that a network of the lab uses is passed over.
    """
    count = 1 << (_SHARED_PREFIX - _SHARED_POOL.prefixlen)
    for step in range(count):
        base = int(_SHARED_POOL.network_address) + ((int(key, 16) + step) % count << (32 - _SHARED_PREFIX))
        subnet = IPv4Network((base, _SHARED_PREFIX))
        if not any(subnet.overlaps(other) for other in used):
            return ManagementPlan(
                subnet, subnet[1], subnet[1], IPv4Interface((subnet[2], subnet.prefixlen)), shared=True
            )
    raise UsageError(
        f"the lab's networks leave no room in {_SHARED_POOL} for the management network", hint="Use smaller subnets."
    )


def _management_addresses(
    machines: Sequence[MachinePlan], management: ManagementPlan, previous: LabPlan | None
) -> Mapping[str, IPv4Interface]:
    """Who has which address on a shared management network: by hash, but whoever has one keeps it."""
    subnet = management.subnet
    before = {m.name: m.management_address for m in previous.machines} if previous else {}
    found = {
        machine.name: address
        for machine in machines
        if (address := before.get(machine.name)) is not None and address.network == subnet
    }
    taken = {address.ip for address in found.values()} | {management.host}
    for machine in machines:
        if machine.name in found:
            continue
        places = subnet.num_addresses - 2
        first = names.number("management", machine.uuid) % places
        free = (subnet[1 + (first + step) % places] for step in range(places))
        chosen = next((candidate for candidate in free if candidate not in taken), None)
        if chosen is None:
            raise UsageError(
                f"the management network {subnet} has no address for {machine.name}", hint="Use fewer machines."
            )
        found[machine.name] = IPv4Interface((chosen, subnet.prefixlen))
        taken.add(chosen)
    return found


def _waves(machines: Sequence[MachinePlan]) -> tuple[tuple[str, ...], ...]:
    waiting = {machine.name: set(machine.depends_on) for machine in machines}
    waves = []
    while waiting:
        ready = tuple(name for name, needs in waiting.items() if not needs & waiting.keys())
        if not ready:
            raise UsageError(
                f"these machines wait for each other: {', '.join(waiting)}", hint="Break the circle in depends_on."
            )
        waves.append(ready)
        for name in ready:
            del waiting[name]
    return tuple(waves)


def _with_names(spec: LabSpec, machines: Sequence[MachinePlan], flows: Sequence[Flow]) -> tuple[MachinePlan, ...]:
    """Machines with their hosts entries: what the spec declares, and the names of those whom they may reach,
    unless they are to find that out."""
    reached: dict[str, dict[str, tuple[bool, str]]] = {machine.name: {} for machine in machines}
    networks = {(machine.name, i.device): i.network for machine in machines for i in machine.interfaces}
    for flow in flows:
        if flow.expected == "pass" and flow.address is not None:
            beyond = networks[flow.source, flow.source_device] != networks[flow.target, flow.target_device]
            here = reached[flow.source].get(flow.address, (True, flow.target))
            reached[flow.source][flow.address] = (here[0] and beyond, flow.target)
    entries = {name: machine for name, _, machine in spec.copies()}
    return tuple(
        replace(
            machine,
            hosts=(
                *entries[machine.name].hosts,
                *spec.hosts,
                *(_known(reached[machine.name]) if entries[machine.name].names else ()),
            ),
        )
        for machine in machines
    )


def _known(reached: Mapping[str, tuple[bool, str]]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """A neighbour's name means its addresses on the shared network only."""
    neighbours = {name for beyond, name in reached.values() if not beyond}
    for address, (beyond, name) in reached.items():
        if not (beyond and name in neighbours):
            yield address, (name,)


def _plain(value: Any) -> Any:
    """Settings as JSON has them, so that a plan read back from its record is equal."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
