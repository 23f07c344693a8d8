"""What ``up`` would start, as text: for review, and for those who want to see how a lab is held together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import BootImage
from labctl.providers.qemu import hub
from labctl.providers.qemu.argv import Seat, machine_argv
from labctl.providers.qemu.bridge_lines import bridge_commands, mirror_rules, port_commands
from labctl.providers.qemu.layout import MachineFiles
from labctl.providers.qemu.wires import port_of

_UNBUILT = BootImage(
    "", "", Path("IMAGE/disk.qcow2"), Path("IMAGE/kernel"), Path("IMAGE/initrd"), "COMMAND-LINE-OF-THE-IMAGE"
)


def render(plan: LabPlan, images: Mapping[str, BootImage]) -> dict[str, str]:
    """File name to text. Words in capitals stand for what is only known when a machine starts."""
    files = {
        f"machine-{machine.name}.args": _machine(plan, machine, images.get(machine.name, _UNBUILT))
        for machine in plan.machines
    }
    return {**files, "wires.txt": _wires(plan)}


def _machine(plan: LabPlan, machine: MachinePlan, image: BootImage) -> str:
    """One option with its value per line."""
    files = MachineFiles(Path("STATE/machines") / machine.name, Path("RUNTIME") / machine.name)
    netdevs = {i.device: _netdev(plan, i.device, port_of(machine.name, i.device)) for i in machine.interfaces}
    seat = Seat("tcg", 0, files, netdevs, f"labctl-INSTANCE:{machine.name}")
    lines: list[str] = []
    for word in machine_argv(plan, machine, image, seat):
        if word.startswith("-") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines) + "\n"


def _netdev(plan: LabPlan, device: str, port: str) -> str:
    if _hubs(plan):
        return hub.netdev(device, port, Path("RUNTIME"))
    return f"tap,id=net-{device},fd=FD,vhost=off"


def _hubs(plan: LabPlan) -> bool:
    return plan.settings.get("qemu", {}).get("wires") == "hub"


def _wires(plan: LabPlan) -> str:
    return "\n".join(_hub_lines(plan) if _hubs(plan) else _bridge_lines(plan)) + "\n"


def _hub_lines(plan: LabPlan) -> Iterator[str]:
    yield "# one QEMU without a machine: a hub per network"
    yield from (f"# hub {hub.hub_of(network.key)}: {network.name}" for network in plan.networks)
    yield "# its ports"
    yield from _ports(plan)


def _bridge_lines(plan: LabPlan) -> Iterator[str]:
    ports = [(port_of(machine.name, i.device), i) for machine in plan.machines for i in machine.interfaces]
    links, forwarding = port_commands(plan, ports)
    yield "# ip -batch, in a network namespace of the instance's own: one bridge per network"
    yield bridge_commands(plan.networks, set())
    yield "# taps, made when their machine starts"
    yield from _ports(plan)
    yield links
    yield "# bridge -batch: who may speak where"
    yield forwarding
    if any(interface.promiscuous for _, interface in ports):
        yield "# nft -f: copies for promiscuous interfaces"
        yield mirror_rules(plan, {name for name, _ in ports})


def _ports(plan: LabPlan) -> Iterator[str]:
    for machine in plan.machines:
        yield from (
            f"# {port_of(machine.name, i.device)}: {machine.name} {i.device} on {i.network}" for i in machine.interfaces
        )
