"""A plan as a Vagrantfile with the files it reads. Pure: nothing is looked up on this host.

``Vagrantfile.j2`` says how the file reads; ``limits`` refuses what a Vagrant provider could only pretend to do; this
module gives the template values that are already decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl import resources
from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan
from labctl.providers.base import BootImage
from labctl.providers.vagrant import limits, management, networks, provision, ruby, vmware
from labctl.providers.vagrant.limits import Engine
from labctl.providers.vagrant.provision import Provisioner
from labctl.spec.model import WinRMSpec

TEMPLATE = "Vagrantfile.j2"

_MIB = 1 << 20
_STARTS = ("up", "reload", "resume", "snapshot_restore")  # what Vagrant calls the actions that start a machine
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
    """A machine as the template needs it. memory is in MiB.

    customize: VBoxManage's arguments for its hardware; vmx: keys of VMware's file for it.
    """

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
    vmx: vmware.Keys
    vagrant_disks: tuple[Mapping[str, object], ...]
    libvirt_disks: tuple[Mapping[str, object], ...]
    steps: tuple[Provisioner, ...]


def render_virtualbox(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    """File name to text for Vagrant's VirtualBox provider. Raises UsageError for what VirtualBox cannot hold."""
    return _render(plan, images, "virtualbox")


def render_libvirt(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    """File name to text for vagrant-libvirt. Raises UsageError for what it cannot hold."""
    return _render(plan, images, "libvirt")


def render_vmware(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    """File name to text for vagrant-vmware-desktop. Raises UsageError for what it cannot hold.

    Untested: labctl has never run such a file.
    """
    return _render(plan, images, "vmware_desktop")


def render_hyperv(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    """File name to text for Vagrant's Hyper-V provider. Raises UsageError for what it cannot hold: any lab network.

    Untested: labctl has never run such a file.
    """
    return _render(plan, images, "hyperv")


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


def _render(plan: LabPlan, images: Mapping[str, BootImage], engine: Engine) -> Mapping[str, str]:
    limits.check(plan, engine)
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
        "untested": engine in ("vmware_desktop", "hyperv"),
        "starts": tuple(ruby.Symbol(verb) for verb in _STARTS),
        "seal": plan.seal,
        "wrong_provider": f"This Vagrantfile isolates its networks with the {engine} provider and with no other.",
        "reads_lab_files": any(step.base == "lab" for machine in machines for step in machine.steps),
        "vagrant_disks": any(machine.vagrant_disks for machine in machines),
        "vmx": vmware.COMMON,
        "nat_networks": [
            {"name": network.name, "wire": network.wire, "subnet": str(network.subnet)}
            for network in plan.networks
            if network.egress == "nat"
        ],
    }
    if engine == "libvirt":
        own = networks.management(plan)
        apart = [network for network in plan.networks if not network.peers]
        files |= {own.file: own.xml} | {networks.wire_file(network): networks.wire(network) for network in apart}
        lab |= {
            "uri": networks.SYSTEM_URI,
            "driver": plan.settings.get("libvirt", {}).get("driver"),
            "prefix": _full_name(plan, ""),
            "management": own,
            "networks": (own.name, *(network.wire for network in plan.networks)),
            "apart": tuple((network.wire, networks.wire_file(network)) for network in apart),
            "not_apart": "A network of this lab was there before and lets its members meet: labctl up makes it anew.",
            "opened": tuple(device for machine in plan.machines for device in networks.opened(plan, machine)),
        }
    template = ruby.environment().from_string(resources.text(TEMPLATE))
    return {"Vagrantfile": template.render(lab=lab, machines=machines), **files}


def _in_order(plan: LabPlan) -> Sequence[MachinePlan]:
    """Machines in the order of their dependencies: Vagrant starts them as they stand in the file."""
    return [plan.machine(name) for wave in plan.waves for name in wave]


def _machine(
    plan: LabPlan, machine: MachinePlan, image: BootImage | None, steps: tuple[Provisioner, ...], engine: Engine
) -> _Machine:
    settings = machine.settings.get(engine, {})
    linked = settings.get("linked_clone", plan.settings.get(engine, {}).get("linked_clone", True))
    full_name = _full_name(plan, machine.name)
    wires = tuple(plan.network(interface.network) for interface in machine.interfaces)
    return _Machine(
        name=machine.name,
        full_name=full_name,
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
        customize=_customize(plan, machine, settings.get("vram")) if engine == "virtualbox" else (),
        vmx=vmware.keys(full_name, machine, wires) if engine == "vmware_desktop" else (),
        vagrant_disks=()
        if engine == "libvirt"
        else tuple({"name": disk.name, "size": disk.size} for disk in machine.disks),
        libvirt_disks=tuple({"size": f"{disk.size // _MIB}M", "serial": disk.name} for disk in machine.disks)
        if engine == "libvirt"
        else (),
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
    elif engine == "libvirt":
        options |= {
            "libvirt__network_name": network.wire,
            "libvirt__iface_name": networks.tap(plan, interface),
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
    """VirtualBox forwards a port to the guest; others reach it directly, so Vagrant's own forwards are put off."""
    forwards: tuple[Mapping[str, object], ...] = ()
    if engine != "virtualbox":
        forwards = tuple(
            {"guest": guest, "host": host, "id": name, "disabled": True} for name, guest, host in _WINRM_FORWARDS
        )
    elif winrm.port not in (guest for _, guest, _ in _WINRM_FORWARDS):
        forwards = ({"guest": winrm.port, "host": 55985, "host_ip": "127.0.0.1", "id": "winrm", "auto_correct": True},)
    return _WinRM(winrm.username, winrm.password, ruby.Symbol(winrm.transport), winrm.port, forwards)
