"""The NIC that Vagrant reaches a Linux guest by: the box sets it up by itself, and no traffic of the lab may use it.

A box takes its address, default route and resolver from the engine by DHCP, whenever its own network service likes.
labctl leaves that service alone and decides in front of it: routing rules look up default routes in a table of
labctl's own, so that one in the main table never counts. Boxes may call this NIC ``eth0``; so on Vagrant's guests the
lab's NICs are ``lab0``, ``lab1``, … instead of ``eth0``, ``eth1``, …
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from labctl.plan.guest_network import RULES
from labctl.plan.model import LabPlan, MachinePlan

# Behind the rules of the plan, which begin at 1000, and in front of the kernel's own for the main table at 32766.
_FIRST_PREFERENCE = 30000
_TABLE = 4000
_PLANNED_METRIC = 1
_LAST_METRIC = 4096

_UNSET = "none"  # is no MAC address, so no NIC is taken for the management one


def device(planned: str) -> str:
    """What a NIC of the lab is called in a Vagrant guest."""
    return planned.replace("eth", "lab", 1)


def adapted(plan: LabPlan) -> LabPlan:
    """The plan with the names that NICs have in Vagrant guests."""
    return replace(plan, machines=tuple(adapted_machine(machine) for machine in plan.machines))


def adapted_machine(machine: MachinePlan) -> MachinePlan:
    """The machine with those names, its default routes and its management NIC left out of what labctl sets up."""
    rename = device
    return replace(
        machine,
        management_mac=_UNSET,
        interfaces=tuple(replace(interface, device=rename(interface.device)) for interface in machine.interfaces),
        routes=tuple(replace(route, device=rename(route.device)) for route in machine.routes if route.target.prefixlen),
        source_routes=tuple(replace(route, device=rename(route.device)) for route in machine.source_routes),
        forward=tuple(
            replace(rule, in_device=rename(rule.in_device), out_device=rename(rule.out_device))
            for rule in machine.forward
        ),
    )


def find(plan: LabPlan, machine: MachinePlan) -> str:
    """Shell text that sets ``management`` to the NIC's name, and tells it to the firewall of a router."""
    text = f"""\
management=''
for path in /sys/class/net/*; do
  if read -r mac <"$path/address" && [ "$mac" = {machine.management_mac} ]; then management=${{path##*/}}; fi
done
"""
    if machine.router:
        text += f'[ -z "$management" ] || sed -i "s/\\"{plan.management.device}\\"/\\"$management\\"/" {RULES}\n'
    return text


def close(plan: LabPlan, machine: MachinePlan) -> str:
    """Shell text that keeps the lab's traffic off the NIC: no default route, no resolver, no IPv6."""
    lines = ['if [ -n "$management" ]; then put 1 "ipv6/conf/$management/disable_ipv6"; fi']
    lines += _family(plan, machine, 4)
    lines += ["if [ -e /proc/sys/net/ipv6 ]; then", *_family(plan, machine, 6), "fi"]
    return "\n".join(lines) + "\n"


def _family(plan: LabPlan, machine: MachinePlan, family: Literal[4, 6]) -> list[str]:
    """Routes first, rules last, and each replaced in place: there is no moment in which another default counts."""
    default = next((r for r in machine.routes if r.target.version == family and not r.target.prefixlen), None)
    planned = f"default via {default.gateway} dev {device(default.device)}" if default else "unreachable default"
    routes = [
        f"route replace unreachable default metric {_LAST_METRIC} table {_TABLE}",
        f"route replace {planned} metric {_PLANNED_METRIC} table {_TABLE}",
    ]
    if family == 4 and not plan.management.shared:
        # VirtualBox answers for a resolver on the NIC's own subnet.
        routes.append(f"route replace unreachable {plan.management.dns}/32")
    rules = [
        f"rule add pref {_FIRST_PREFERENCE} lookup main suppress_prefixlength 0",
        f"rule add pref {_FIRST_PREFERENCE + 1} lookup {_TABLE}",
    ]
    there = f'"$(ip -{family} rule show pref {_FIRST_PREFERENCE + 1})"'
    return [
        *(f"ip -{family} -batch - <<END", *routes, "END"),
        *(f"if [ -z {there} ]; then", f"ip -{family} -batch - <<END", *rules, "END", "fi"),
    ]
