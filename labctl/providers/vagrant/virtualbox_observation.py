"""A VirtualBox machine beside its plan: what it is plugged into, and what it has that no plan gives. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import MachineState, ObservedNic
from labctl.providers.vagrant.virtualbox_model import Details, Forward, Nic

MANAGEMENT_SLOT = 1
MANAGEMENT_WIRE = "management"

_STATES: dict[str, MachineState] = {
    "running": "running",
    "paused": "paused",
    "saved": "stopped",
    "poweroff": "stopped",
    "aborted": "dead",
    "aborted-saved": "dead",
    "gurumeditation": "dead",
}
_SSH_PORT = 22
_WINRM_PORTS = (5985, 5986)
_NAT_OFFERS = {  # every field of NatEngine, and what it means to a guest
    "dns_proxy": "answers DNS for it",
    "host_resolver": "answers DNS for it with this computer's resolver",
    "pass_domain": "tells it this computer's domain",
    "localhost_reachable": "lets it reach this computer's loopback",
    "tftp": "serves files to it by TFTP",
    "broadcast": "passes its broadcasts on to this computer's network",
}


def state(details: Details) -> MachineState:
    """The machine's state in labctl's words; what VirtualBox does in passing (``starting``, …) counts as running."""
    return _STATES.get(details.state, "running")


def nics(plan: LabPlan, machine: MachinePlan, details: Details) -> tuple[ObservedNic, ...]:
    """The adapters that are switched on, each with the wire that it is on."""
    return tuple(
        ObservedNic(machine.name, nic.mac, _wire(plan, nic), nic.connected, f"adapter {nic.slot}: {_shown(nic)}")
        for nic in details.nics
    )


def drift(machine: MachinePlan, details: Details) -> tuple[str, ...]:
    """For people: each thing that the plan of no machine gives, or that this one's does not."""
    return tuple(_drift(machine, details))


def strangers(plan: LabPlan, name: str, details: Details) -> Iterator[tuple[str, str]]:
    """Networks of the plan that a machine of somebody else's is on, and for people, how."""
    wires = {network.wire: network.name for network in plan.networks}
    for nic in details.nics:
        if nic.network in wires and nic.connected:
            yield wires[nic.network], f"adapter {nic.slot} of the machine {name} is on it, which is not in the plan"


def _drift(machine: MachinePlan, details: Details) -> Iterator[str]:
    for folder in details.shared_folders:
        yield f"the folder {folder.path} of this computer is shared with it as {folder.name}"
    if details.clipboard != "disabled":
        yield f"the clipboard is shared with it ({details.clipboard})"
    if details.clipboard_files:
        yield "files pass through the clipboard"
    if details.drag_and_drop != "disabled":
        yield f"drag and drop is on ({details.drag_and_drop})"
    if details.screen_served:
        yield "its screen is served to the network (VRDE)"
    for device in details.host_devices:
        yield f"it has this computer's {device}"
    yield from _forwards(machine, details)
    for nic in details.nics:
        yield from _nic(machine, nic)


def _forwards(machine: MachinePlan, details: Details) -> Iterator[str]:
    """Vagrant forwards one port to each service that it logs in by, and nothing else is forwarded."""
    allowed = [_SSH_PORT]
    if machine.os == "windows":
        allowed += {*_WINRM_PORTS, *([machine.winrm.port] if machine.winrm else [])}
    spare = Counter(allowed)
    for forward in details.forwards:
        if forward.host_ip != "127.0.0.1":
            yield f"{_shown_forward(forward)} does not stay on this computer's loopback"
        if forward.protocol != "tcp" or not spare[forward.guest_port]:
            yield f"{_shown_forward(forward)} is not in the plan"
        else:
            spare[forward.guest_port] -= 1


def _nic(machine: MachinePlan, nic: Nic) -> Iterator[str]:
    if nic.slot > MANAGEMENT_SLOT + len(machine.interfaces):
        yield f"adapter {nic.slot} ({_shown(nic)}) is not in the plan"
    if nic.promiscuous is None:
        yield f"what adapter {nic.slot} may see and its NAT offers cannot be read"
        return
    wanted = "deny"
    if MANAGEMENT_SLOT < nic.slot <= MANAGEMENT_SLOT + len(machine.interfaces):
        wanted = "allow-vms" if machine.interfaces[nic.slot - MANAGEMENT_SLOT - 1].promiscuous else "deny"
    if nic.promiscuous not in (wanted, "deny"):
        yield f"adapter {nic.slot} may see others' packets ({nic.promiscuous}), planned is {wanted}"
    elif nic.promiscuous != wanted:
        yield f"adapter {nic.slot} may not see others' packets, planned is {wanted}"
    if nic.kind == "nat":
        yield from (
            f"the NAT of adapter {nic.slot} {offer}"
            for name, offer in _NAT_OFFERS.items()
            if nic.nat is None or getattr(nic.nat, name)
        )


def _wire(plan: LabPlan, nic: Nic) -> str:
    """The lab's name of the network, ``management``, or VirtualBox's own words."""
    if (nic.slot, nic.kind) == (MANAGEMENT_SLOT, "nat"):
        return MANAGEMENT_WIRE
    for network in plan.networks:
        if nic.network == network.wire and nic.kind == ("natnetwork" if network.egress == "nat" else "intnet"):
            return network.name
    return _shown(nic)


def _shown(nic: Nic) -> str:
    return f"{nic.kind} {nic.network}".strip()


def _shown_forward(forward: Forward) -> str:
    host = f"{forward.host_ip or '*'}:{forward.host_port}"
    return f"the forwarded port {host} to {forward.protocol} port {forward.guest_port}"
