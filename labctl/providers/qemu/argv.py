"""The command line of a machine's QEMU process: a pure function of the plan, the image and the places of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan
from labctl.providers.base import BootImage
from labctl.providers.qemu import way_in
from labctl.providers.qemu.layout import MachineFiles
from labctl.providers.qemu.options import escaped, option

BINARY = "qemu-system-x86_64"
AGENT_PORT = "org.qemu.guest_agent.0"
CHANNELS = frozenset({"qmp", "agent", "console"})
"""The character devices of a machine: all of them ends of labctl's own."""

NAMELESS = frozenset({"virtio-rng-pci", "vmgenid", "virtio-serial-pci", "virtserialport"})
"""The devices of a machine that have no name of their own."""

# TCG keeps up to 1 GiB of translated code unless told otherwise. Measured with a Debian 12 guest of 256 MiB: 249 MiB
# resident in all; 128 instead of 64 costs 70 MiB more per machine and saves about one of the boot's 12 s of CPU time.
_TRANSLATION_CACHE_MIB = 64
# A kernel looks every four seconds whether a processor stands still, which an emulated one may well do for a while.
# Its look at the clock, twice a second, stays: a memory that goes on on another computer may find another clock there.
_RESTFUL = "nowatchdog"


@dataclass(frozen=True, slots=True)
class Ram:
    """A file that is a machine's memory. shared: what the guest writes goes into it; else it is only where the guest
    begins, and QEMU waits to be given the state of the devices that belongs to it."""

    path: Path
    shared: bool


@dataclass(frozen=True, slots=True)
class Seat:
    """What the host gives a machine for one start.

    accelerator: ``kvm``, ``hvf``, ``whpx`` or ``tcg``. port: the loopback port that is forwarded to the guest's SSH; 0
    for none. netdevs: device name to the ``-netdev`` value of its wire, whose id is ``net-DEVICE``. mark: the value of
    ``-name``. ram: None for memory that is nobody else's. still: it does not move until it is told to.
    """

    accelerator: str
    port: int
    files: MachineFiles
    netdevs: Mapping[str, str]
    mark: str
    ram: Ram | None = None
    still: bool = False
    binary: str = BINARY


def machine_argv(plan: LabPlan, machine: MachinePlan, image: BootImage, seat: Seat) -> tuple[str, ...]:
    """Everything QEMU is told. Nothing is left to its defaults or to configuration files."""
    files = seat.files
    return (
        seat.binary,
        *("-name", escaped(seat.mark)),
        *("-uuid", machine.uuid),
        *("-no-user-config", "-nodefaults"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", "q35,usb=off,vmport=off,graphics=off,sata=off,smbus=off,memory-backend=ram"),
        *_processor(seat.accelerator),
        *("-smp", str(machine.cpus)),
        *(("-S",) if seat.still else ()),
        *_memory(f"{-(-machine.memory // (1 << 20))}M", seat.ram),
        *("-rtc", "base=utc"),
        *("-display", "none"),
        *("-pidfile", str(files.pid)),
        *_boot(image, seat.accelerator),
        *_disk("disk0", files.overlay, serial=""),
        *(
            part
            for number, disk in enumerate(machine.disks, 1)
            for part in _disk(f"disk{number}", files.disk(disk.name), serial=disk.name)
        ),
        *("-device", "virtio-rng-pci"),
        # Tells the guest's kernel that it is a copy of another, which must not have the same random numbers.
        *("-device", "vmgenid,guid=auto"),
        *_channels(files),
        *_management(plan, machine, seat.port),
        *(part for interface in machine.interfaces for part in _nic(interface, seat.netdevs[interface.device])),
    )


def devices_of(machine: MachinePlan) -> frozenset[str]:
    """Names of the devices that a machine has: its NICs and its disks."""
    nics = ("mgmt", *(interface.device for interface in machine.interfaces))
    return frozenset({f"nic-{name}" for name in nics} | {f"disk{n}-dev" for n in range(1 + len(machine.disks))})


def _memory(size: str, ram: Ram | None) -> tuple[str, ...]:
    """The memory has the same name wherever it is kept, so that a state that was saved with one kind fits the other."""
    if ram is None:
        return ("-m", option(size=size), "-object", option("memory-backend-ram", id="ram", size=size))
    backend = option("memory-backend-file", id="ram", size=size, mem_path=ram.path, share="on" if ram.shared else "off")
    return ("-m", option(size=size), "-object", backend, *(() if ram.shared else ("-incoming", "defer")))


def _processor(accelerator: str) -> tuple[str, ...]:
    if accelerator == "tcg":
        return ("-accel", option("tcg", tb_size=_TRANSLATION_CACHE_MIB), "-cpu", "Nehalem,+rdrand")
    return ("-accel", accelerator, "-cpu", "host" if accelerator in ("kvm", "hvf") else "max")


def _boot(image: BootImage, accelerator: str) -> tuple[str, ...]:
    """Direct boot where the image has a kernel: it saves the firmware and the boot loader."""
    if image.kernel is None:
        return ()
    cmdline = " ".join((image.cmdline, *((_RESTFUL,) if accelerator == "tcg" else ())))
    initrd = ("-initrd", str(image.initrd)) if image.initrd else ()
    return ("-kernel", str(image.kernel), *initrd, "-append", cmdline)


def _disk(name: str, path: Path, *, serial: str) -> tuple[str, ...]:
    # A guest's flushes are not passed on: the page cache outlives QEMU, and a lab need not outlive a power cut.
    block = option(
        driver="qcow2", node_name=name, discard="unmap", cache__no_flush="on", file__driver="file", file__filename=path
    )
    device = {"serial": serial} if serial else {}
    return ("-blockdev", block, "-device", option("virtio-blk-pci", id=f"{name}-dev", drive=name, **device))


def _channels(files: MachineFiles) -> tuple[str, ...]:
    """The monitor, the guest agent and the serial console, in a private folder: sockets, and pipes for the agent."""
    listen = {"server": "on", "wait": "off"}
    return (
        *("-chardev", option("socket", id="qmp", path=files.monitor, **listen)),
        *("-mon", option(chardev="qmp", mode="control")),
        *("-chardev", option("pipe", id="agent", path=files.agent)),
        *("-device", "virtio-serial-pci"),
        *("-device", option("virtserialport", chardev="agent", name=AGENT_PORT)),
        *(
            "-chardev",
            option("socket", id="console", path=files.console, logfile=files.console_log, logappend="on", **listen),
        ),
        *("-serial", "chardev:console"),
    )


def _management(plan: LabPlan, machine: MachinePlan, port: int) -> tuple[str, ...]:
    netdevs = way_in.netdevs(plan.management, port)
    return (*(part for netdev in netdevs for part in ("-netdev", netdev)), *_device("mgmt", machine.management_mac))


def _nic(interface: InterfacePlan, netdev: str) -> tuple[str, ...]:
    return ("-netdev", netdev, *_device(interface.device, interface.mac))


def _device(name: str, mac: str) -> tuple[str, ...]:
    # An empty romfile: no network boot, and 256 KiB less to load
    return ("-device", option("virtio-net-pci", id=f"nic-{name}", netdev=f"net-{name}", mac=mac, romfile=""))
