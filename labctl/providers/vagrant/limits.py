"""What a plan may ask of each engine under Vagrant. Rendering refuses the rest: a file that looks closed and is not
would be worse than none.

Sources for what cannot be tried here: Vagrant's own Hyper-V provider and the plugin vagrant-vmware-desktop 3, as they
are published; VMware's pages on LAN segments.
"""

from __future__ import annotations

import re
from typing import Literal

from labctl.errors import UsageError
from labctl.plan.model import LabPlan
from labctl.providers.vagrant import networks

Engine = Literal["virtualbox", "libvirt", "vmware_desktop", "hyperv"]

_DRIVEN = ("virtualbox", "libvirt")
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NICS = {"virtualbox": 8, "vmware_desktop": 10}
"""NICs of one machine: of VirtualBox's PIIX3 chipset (``modifyvm --nic9`` fails with exit status 0), and of VMware."""


def check(plan: LabPlan, engine: Engine) -> None:
    """Raise UsageError for what an engine cannot hold, and for names that are no names."""
    _names(plan)
    for network in plan.networks:
        if not network.peers and engine != "libvirt":
            raise _cannot(
                engine, f"network {network.name} has peers: false", "it does not keep the members of a network apart"
            )
    for machine in plan.machines:
        if machine.secrets and (engine not in _DRIVEN or machine.os == "windows"):
            raise _cannot(
                engine, f"{machine.name} is told secrets", "labctl tells them itself, to Linux guests that it brings up"
            )
    {"virtualbox": _virtualbox, "libvirt": _libvirt, "vmware_desktop": _vmware, "hyperv": _hyperv}[engine](plan)


def _names(plan: LabPlan) -> None:
    """Names become file names and comments; the plan's are safe already, and this does not depend on it."""
    for name in (plan.lab, plan.instance, *(m.name for m in plan.machines), *(n.name for n in plan.networks)):
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a name in a Vagrantfile", hint="Names are lower-case letters, digits and hyphens."
            )


def _virtualbox(plan: LabPlan) -> None:
    _room(plan, "virtualbox", "VirtualBox")
    for network in plan.networks:
        if network.subnet is not None and network.exit not in (None, network.subnet[1]):
            raise _cannot(
                "virtualbox",
                f"the way out of {network.name} stands at {network.exit}",
                f"it puts it at {network.subnet[1]}",
            )


def _libvirt(plan: LabPlan) -> None:
    _no_promiscuous(plan, "libvirt", "its bridges send unicast to its receiver only")
    _no_egress(plan, "libvirt", "its networks are closed or open to the host as well")
    if plan.settings.get("libvirt", {}).get("uri", networks.SYSTEM_URI) != networks.SYSTEM_URI:
        raise UsageError(
            "libvirt's session daemon cannot make isolated networks",
            hint=f"Set providers.libvirt.uri to {networks.SYSTEM_URI}, or use --provider qemu, which needs no rights.",
        )


def _vmware(plan: LabPlan) -> None:
    _no_promiscuous(plan, "vmware_desktop", "whether a NIC may listen to others is up to the rights on its host")
    _no_egress(plan, "vmware_desktop", "its LAN segments lead nowhere, and its NAT network leads to the host as well")
    _room(plan, "vmware_desktop", "VMware")
    _only_sealed(plan, "vmware_desktop", "VMware's NAT network, which guests and this computer share")


def _hyperv(plan: LabPlan) -> None:
    for machine in plan.machines:
        if machine.interfaces:
            names = " and ".join(dict.fromkeys(interface.network for interface in machine.interfaces))
            raise _cannot(
                "hyperv",
                f"{machine.name} is on {names}",
                "it puts all NICs of a machine on one switch, the one that it logs in over from this computer",
            )
        if machine.gui:
            raise _cannot("hyperv", f"{machine.name} has a window (gui: true)", "it has no setting for that")
    _only_sealed(plan, "hyperv", "one switch, which guests and this computer share")


def _only_sealed(plan: LabPlan, engine: Engine, way: str) -> None:
    """Where nothing keeps guests apart on the network that Vagrant logs in over, only its absence does."""
    if not plan.seal:
        raise UsageError(
            f"the lab is not sealed, and {engine} through Vagrant can hold sealed labs only",
            details=f"Vagrant logs in over {way}; nothing there keeps one from another.",
            hint="Set seal: true in the lab: each machine is unplugged as soon as it is up. Or use --provider qemu.",
        )


def _room(plan: LabPlan, engine: Engine, called: str) -> None:
    room = _NICS[engine] - 1
    for machine in plan.machines:
        if len(machine.interfaces) > room:
            raise UsageError(
                f"{machine.name} has {len(machine.interfaces)} interfaces; {called} has room for {room}",
                details=f"A machine has {room + 1} NICs there, and Vagrant needs the first.",
                hint="Spread the interfaces over two machines, or use --provider qemu.",
            )


def _no_promiscuous(plan: LabPlan, engine: Engine, why: str) -> None:
    for machine in plan.machines:
        for interface in machine.interfaces:
            if interface.promiscuous:
                raise _cannot(engine, f"{machine.name} is promiscuous on {interface.network}", why)


def _no_egress(plan: LabPlan, engine: Engine, why: str) -> None:
    for network in plan.networks:
        if network.egress != "none":
            raise _cannot(engine, f"network {network.name} has egress", why)


def _cannot(engine: Engine, what: str, why: str) -> UsageError:
    return UsageError(
        f"{what}, which {engine} through Vagrant cannot hold: {why}", hint="Use --provider qemu, or change the lab."
    )
