"""Packets followed through a plan: routes and firewall rules must do what the matrix says.

The planner takes the matrix from the policy, and compiles routes and firewall rules from it apart from that. The walk
here uses the compiled part alone, packet and answer, so the two can only agree where both are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.plan.model import Address, Flow, ForwardRule, InterfacePlan, LabPlan, MachinePlan
from labctl.spec.load import load

pytestmark = pytest.mark.integration

TESTS = Path(__file__).resolve().parent.parent
LABS = [
    *sorted((TESTS / "topologies").glob("*.yaml")),
    *sorted((TESTS / "labs").glob("*/lab.yaml")),
    *sorted((TESTS.parent / "labs").glob("*/lab.yaml")),
]
_MAX_HOPS = 16


@pytest.mark.parametrize("lab", LABS, ids=lambda path: path.parent.name if path.name == "lab.yaml" else path.stem)
def test_routes_and_firewall_rules_do_what_the_matrix_says(lab: Path) -> None:
    assert _wrong(build(load(lab))) == []


def _without_rules(router: MachinePlan) -> MachinePlan:
    return replace(router, forward=())


def _with_rules_for_everybody(router: MachinePlan) -> MachinePlan:
    everybody = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
    return replace(router, forward=tuple(replace(r, sources=(everybody[r.family],)) for r in router.forward))


def _with_wider_ports(router: MachinePlan) -> MachinePlan:
    wider = [replace(r, ports=replace(r.ports, last=r.ports.last + 1)) for r in router.forward]
    return replace(router, forward=tuple(wider))


def _with_rules_upside_down(router: MachinePlan) -> MachinePlan:
    return replace(router, forward=router.forward[::-1])


def _without_routes(router: MachinePlan) -> MachinePlan:
    return replace(router, routes=())


@pytest.mark.parametrize(
    "damage",
    [_without_rules, _with_rules_for_everybody, _with_wider_ports, _with_rules_upside_down, _without_routes],
)
def test_the_walk_sees_what_is_wrong(damage: Callable[[MachinePlan], MachinePlan]) -> None:
    plan = build(load(TESTS / "labs" / "hard"))
    assert _wrong(replace(plan, machines=tuple(damage(m) if m.router else m for m in plan.machines)))


def _wrong(plan: LabPlan) -> list[str]:
    """The flows between machines whose packets do not fare as the matrix says."""
    walk = Walk(plan)
    names = {machine.name for machine in plan.machines}
    asked = [f for f in plan.flows if f.target in names and f.source_device != plan.management.device]
    return [f"{flow}: {fate}" for flow in asked if (fate := walk.fate(flow)) != _expected(flow)]


def _expected(flow: Flow) -> str:
    if flow.expected == "pass":
        return "answered"
    return "refused" if flow.rejected else "lost"


@dataclass(frozen=True, slots=True)
class _Packet:
    """``family``, ``protocol`` and ``port`` of a flow with its two addresses; an answer has ``reply`` set."""

    source: Address
    target: Address
    flow: Flow
    reply: bool = False


class Walk:
    """The machines of a plan by the addresses that they have on each network."""

    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan
        self._owner: dict[tuple[str, Address], tuple[MachinePlan, InterfacePlan]] = {
            (interface.network, address): (machine, interface)
            for machine in plan.machines
            for interface in machine.interfaces
            for address in interface.addresses()
        }

    def fate(self, flow: Flow) -> str:
        """``answered``, ``refused`` by a router, or ``lost`` on the way there or back."""
        machine = self._plan.machine(flow.source)
        leaves = machine.interface(flow.source_device)
        mine = next(a for a in leaves.addresses() if a.version == flow.family)
        packet = _Packet(mine, ip_address(str(flow.address)), flow)
        seen: set[str] = set()
        end = self._send(packet, machine, leaves, seen)
        if isinstance(end, str):
            return end
        target, asked = end
        assert target.name == flow.target, f"{flow} reaches {target.name}"
        back = self._send(_Packet(packet.target, packet.source, flow, reply=True), target, asked, seen)
        return "lost" if isinstance(back, str) else "answered"

    def _send(
        self, packet: _Packet, machine: MachinePlan, leaves: InterfacePlan, seen: set[str]
    ) -> tuple[MachinePlan, InterfacePlan] | str:
        """The owner of the address that a packet is for and its interface with it, or what became of the packet.

        seen: routers that know the connection.
        """
        # a probe is bound to its device, an answer only has the address that was asked
        usable = machine.interfaces if packet.reply else (leaves,)
        hop = _by_source(machine, leaves, packet.target) or _by_main(machine, packet.target, usable)
        for _ in range(_MAX_HOPS):
            if hop is None:
                return "lost"
            device, gateway = hop
            found = self._owner.get((device.network, gateway))
            if found is None or (device.isolated and found[1].isolated):
                return "lost"
            machine, entered = found
            if gateway == packet.target:
                return found
            mine = _leg_of(machine, packet.target)
            hop = None if mine else _by_main(machine, packet.target, machine.interfaces)
            leaving = mine or (hop[0] if hop else None)
            verdict = self._filter(machine, packet, entered, leaving, seen)
            if verdict != "allow":
                return verdict
            if mine:
                return machine, mine
        raise AssertionError(f"{packet.flow} goes round in circles")

    def _filter(
        self,
        router: MachinePlan,
        packet: _Packet,
        entered: InterfacePlan,
        leaving: InterfacePlan | None,
        seen: set[str],
    ) -> str:
        if not router.router or leaving is None:
            return "lost"
        if packet.reply:
            return "allow" if router.name in seen else "lost"
        for rule in router.forward:
            if (rule.in_device, rule.out_device) == (entered.device, leaving.device) and _matches(rule, packet):
                seen.add(router.name)
                return "allow" if rule.action == "allow" else "refused"
        return "lost"


def _matches(rule: ForwardRule, packet: _Packet) -> bool:
    flow = packet.flow
    return (
        rule.family == flow.family
        and any(packet.source in network for network in rule.sources)
        and any(packet.target in network for network in rule.targets)
        and rule.ports.covers(flow.protocol, flow.port or None)
    )


def _leg_of(machine: MachinePlan, address: Address) -> InterfacePlan | None:
    return next((i for i in machine.interfaces if address in i.addresses()), None)


def _by_source(machine: MachinePlan, leg: InterfacePlan, target: Address) -> tuple[InterfacePlan, Address] | None:
    """The table for packets with this interface's address: its own subnet, then its routes, the narrowest first."""
    if any(target in seat.network for seat in (leg.address, leg.address6) if seat is not None):
        return leg, target
    routes = [r for r in machine.source_routes if r.device == leg.device and target in r.target]
    best = max(routes, key=lambda r: r.target.prefixlen, default=None)
    return None if best is None else (leg, best.gateway)


def _by_main(
    machine: MachinePlan, target: Address, usable: tuple[InterfacePlan, ...]
) -> tuple[InterfacePlan, Address] | None:
    """The main table: the machine's subnets, then its routes, the narrowest first; by these interfaces only."""
    for interface in usable:
        if any(target in seat.network for seat in (interface.address, interface.address6) if seat is not None):
            return interface, target
    devices = {interface.device for interface in usable}
    routes = [route for route in machine.routes if route.device in devices and target in route.target]
    best = max(routes, key=lambda route: route.target.prefixlen, default=None)
    return None if best is None else (machine.interface(best.device), best.gateway)
