"""A plan as a Vagrantfile with the files it reads. Pure: nothing is looked up on this host.

``Vagrantfile.j2`` says how the file reads; this module refuses what a Vagrant provider could only pretend to do and
gives the template values that are already decided.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from labctl import resources
from labctl.errors import UsageError
from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan
from labctl.providers.base import BootImage
from labctl.providers.vagrant import management, networks, provision, ruby
from labctl.providers.vagrant.provision import Provisioner
from labctl.spec.model import WinRMSpec

Engine = Literal["virtualbox", "libvirt"]
TEMPLATE = "Vagrantfile.j2"

_MIB = 1 << 20
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VIRTUALBOX_NICS = 8  # VBoxManage modifyvm: the PIIX3 chipset has 8, and --nic9 fails with exit status 0
_WINRM_FORWARDS = (("winrm", 5985, 55985), ("winrm-ssl", 5986, 55986))  # what Vagrant forwards on its own


@dataclass(frozen=True, slots=True)
class Box:
    """A Vagrant box by name; url and checksum (SHA-256) where its file is known."""

    name: str
    url: str | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class _Nic:
    """A NIC on a lab network: what to say of it, and the options of ``vm.network``."""

    device: str
    network: str
    addresses: tuple[str, ...]
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _WinRM:
    """How Vagrant logs in to Windows. forwards: options of forwarded ports."""

    username: str
    password: str
    transport: ruby.Symbol
    port: int
    forwards: tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine as the template needs it. memory is in MiB; customize are VBoxManage's arguments for its hardware."""

    name: str
    full_name: str
    description: str
    box: Box
    ssh_user: str | None
    winrm: _WinRM | None
    uuid: str
    memory: int
    cpus: int
    gui: bool
    graphics: str
    linked_clone: bool
    cpu_mode: str | None
    management_mac: str
    nics: tuple[_Nic, ...]
    customize: tuple[object, ...]
    vagrant_disks: tuple[Mapping[str, object], ...]
    libvirt_disks: tuple[Mapping[str, object], ...]
    steps: tuple[Provisioner, ...]


def render_virtualbox(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    """File name to text for Vagrant's VirtualBox provider. Raises UsageError for what VirtualBox cannot hold."""
    for machine in plan.machines:
        if len(machine.interfaces) > _VIRTUALBOX_NICS - 1:
            raise UsageError(
                f"{machine.name} has {len(machine.interfaces)} interfaces; VirtualBox has room for 7",
                details="A machine has 8 NICs there, and Vagrant needs the first.",
                hint="Spread the interfaces over two machines, or use --provider qemu.",
            )
    for network in plan.networks:
        if network.subnet is not None and network.exit not in (None, network.subnet[1]):
            raise _cannot(
                "virtualbox",
                f"the way out of {network.name} stands at {network.exit}",
                f"it puts it at {network.subnet[1]}",
            )
    return _render(plan, images, "virtualbox")


def render_libvirt(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    """File name to text for vagrant-libvirt. Raises UsageError for what it cannot hold."""
    for machine in plan.machines:
        for interface in machine.interfaces:
            if interface.promiscuous:
                raise _cannot(
                    "libvirt",
                    f"{machine.name} is promiscuous on {interface.network}",
                    "its bridges send unicast to its receiver only",
                )
    for network in plan.networks:
        if network.egress != "none":
            raise _cannot(
                "libvirt", f"network {network.name} has egress", "its networks are closed or open to the host as well"
            )
    if plan.seal:
        raise _cannot("libvirt", "the lab is sealed", "Vagrant has no way to unplug its management network")
    if plan.settings.get("libvirt", {}).get("uri", networks.SYSTEM_URI) != networks.SYSTEM_URI:
        raise UsageError(
            "libvirt's session daemon cannot make isolated networks",
            hint=f"Set providers.libvirt.uri to {networks.SYSTEM_URI}, or use --provider qemu, which needs no rights.",
        )
    return _render(plan, images, "libvirt")


def box(machine: MachinePlan, image: BootImage | None) -> Box:
    """The box of a machine: a foreign one as it is called, else labctl's own.

    An image name with a slash (``debian/bookworm64``) is a foreign box. ``image`` is what labctl built for this
    machine, so its content is part of the box's name: Vagrant never looks again at a box that it has.
    """
    if "/" in machine.image:
        return Box(machine.image)
    if image is None:
        return Box(f"labctl/{machine.image}")
    name = f"labctl/{machine.image}-{image.digest[:12]}"
    if image.disk.suffix != ".box":
        return Box(name)
    return Box(name, image.disk.as_uri(), image.digest)


def _cannot(engine: Engine, what: str, why: str) -> UsageError:
    return UsageError(
        f"{what}, which {engine} through Vagrant cannot hold: {why}", hint="Use --provider qemu, or change the lab."
    )


def _render(plan: LabPlan, images: Mapping[str, BootImage], engine: Engine) -> Mapping[str, str]:
    _check(plan, engine)
    files: dict[str, str] = {}
    machines = []
    for machine in _in_order(plan):
        script = provision.script(plan, machine)
        files.update(script.files)
        machines.append(_machine(plan, machine, images.get(machine.name), script.provisioners, engine))
    lab: dict[str, object] = {
        "name": plan.lab,
        "instance": plan.instance,
        "provider": engine,
        "seal": plan.seal,
        "wrong_provider": f"This Vagrantfile isolates its networks with the {engine} provider and with no other.",
        "reads_lab_files": any(step.base == "lab" for machine in machines for step in machine.steps),
        "vagrant_disks": any(machine.vagrant_disks for machine in machines),
        "nat_networks": [
            {"name": network.name, "wire": network.wire, "subnet": str(network.subnet)}
            for network in plan.networks
            if network.egress == "nat"
        ],
    }
    if engine == "libvirt":
        own = networks.management(plan)
        files[own.file] = own.xml
        lab |= {
            "uri": networks.SYSTEM_URI,
            "driver": plan.settings.get("libvirt", {}).get("driver", "kvm"),
            "prefix": _full_name(plan, ""),
            "management": own,
        }
    template = ruby.environment().from_string(resources.text(TEMPLATE))
    return {"Vagrantfile": template.render(lab=lab, machines=machines), **files}


def _check(plan: LabPlan, engine: Engine) -> None:
    """Names become file names and comments; the plan's are safe already, and this does not depend on it."""
    names = [plan.lab, plan.instance, *(m.name for m in plan.machines), *(n.name for n in plan.networks)]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a name in a Vagrantfile", hint="Names are lower-case letters, digits and hyphens."
            )
    for network in plan.networks:
        if not network.peers:
            raise _cannot(
                engine, f"network {network.name} has peers: false", "it does not keep the members of a network apart"
            )


def _in_order(plan: LabPlan) -> Sequence[MachinePlan]:
    """Machines in the order of their dependencies: Vagrant starts them as they stand in the file."""
    return [plan.machine(name) for wave in plan.waves for name in wave]


def _machine(
    plan: LabPlan, machine: MachinePlan, image: BootImage | None, steps: tuple[Provisioner, ...], engine: Engine
) -> _Machine:
    settings = machine.settings.get(engine, {})
    linked = settings.get("linked_clone", plan.settings.get(engine, {}).get("linked_clone", True))
    virtualbox = engine == "virtualbox"
    return _Machine(
        name=machine.name,
        full_name=_full_name(plan, machine.name),
        description=machine.description,
        box=box(machine, image),
        ssh_user=image.user if image is not None else None,
        winrm=_winrm(machine.winrm or WinRMSpec(), engine) if machine.os == "windows" else None,
        uuid=machine.uuid,
        memory=machine.memory // _MIB,
        cpus=machine.cpus,
        gui=machine.gui,
        graphics="vnc" if machine.gui else "none",
        linked_clone=linked,
        cpu_mode=settings.get("cpu_mode"),
        management_mac=_mac(machine.management_mac),
        nics=tuple(
            _nic(plan, machine, interface, slot, engine) for slot, interface in enumerate(machine.interfaces, start=2)
        ),
        customize=_customize(plan, machine, settings.get("vram")) if virtualbox else (),
        vagrant_disks=tuple({"name": disk.name, "size": disk.size} for disk in machine.disks) if virtualbox else (),
        libvirt_disks=()
        if virtualbox
        else tuple({"size": f"{disk.size // _MIB}M", "serial": disk.name} for disk in machine.disks),
        steps=steps,
    )


def _full_name(plan: LabPlan, machine: str) -> str:
    """The machine's name on the host. Dots keep it unambiguous: names have hyphens, never dots."""
    return f"labctl.{plan.lab}.{plan.instance}.{machine}"


def _mac(mac: str) -> str:
    """A MAC address as VBoxManage wants it, which vagrant-libvirt reads too."""
    return mac.replace(":", "").upper()


def _nic(plan: LabPlan, machine: MachinePlan, interface: InterfacePlan, slot: int, engine: Engine) -> _Nic:
    network = plan.network(interface.network)
    options: dict[str, object] = {"auto_config": False, "mac": _mac(interface.mac)}
    if engine == "virtualbox":
        options |= {"virtualbox__intnet": network.wire, "adapter": slot}
    else:
        options |= {
            "libvirt__network_name": network.wire,
            "libvirt__forward_mode": "veryisolated",  # no address of the host, in contrast to "none"
            "libvirt__dhcp_enabled": False,
            "libvirt__guest_ipv6": "yes",  # guests may speak IPv6 on their own segment, as they do on every wire
        }
    addresses = tuple(str(address) for address in (interface.address, interface.address6) if address is not None)
    device = management.device(interface.device) if machine.os == "linux" else interface.device
    return _Nic(device, interface.network, addresses, options)


def _customize(plan: LabPlan, machine: MachinePlan, vram: int | None) -> tuple[object, ...]:
    """Arguments of VBoxManage: the management NIC, what each NIC may see, display memory (bytes) where it is set."""
    made: list[object] = ["modifyvm", ruby.Symbol("id"), "--mac-address1", _mac(machine.management_mac)]
    made += ["--nat-net1", str(plan.management.subnet)]
    for slot, interface in enumerate(machine.interfaces, start=2):
        network = plan.network(interface.network)
        if network.egress == "nat":
            made += [f"--nic{slot}", "natnetwork", f"--nat-network{slot}", network.wire]
        made += [f"--nic-promisc{slot}", "allow-vms" if interface.promiscuous else "deny"]
    if vram is not None:
        made += ["--vram", str(vram // _MIB)]
    return tuple(made)


def _winrm(winrm: WinRMSpec, engine: Engine) -> _WinRM:
    """VirtualBox forwards a port to the guest; libvirt reaches it directly, so Vagrant's own forwards are put off."""
    forwards: tuple[Mapping[str, object], ...] = ()
    if engine == "libvirt":
        forwards = tuple(
            {"guest": guest, "host": host, "id": name, "disabled": True} for name, guest, host in _WINRM_FORWARDS
        )
    elif winrm.port not in (guest for _, guest, _ in _WINRM_FORWARDS):
        forwards = ({"guest": winrm.port, "host": 55985, "host_ip": "127.0.0.1", "id": "winrm", "auto_correct": True},)
    return _WinRM(winrm.username, winrm.password, ruby.Symbol(winrm.transport), winrm.port, forwards)
