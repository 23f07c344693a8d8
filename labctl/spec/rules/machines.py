"""What a machine is: its image, its hardware, its operating system."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.spec.model import FileStep, PackagesStep
from labctl.spec.problems import Finding, Keys, quoted
from labctl.spec.rules.context import Context

_MIB = 1 << 20
MIN_MEMORY = 64 * _MIB
MAX_MEMORY = 1 << 40
MIN_DISK = _MIB
MAX_DISK = 16 << 40
MAX_VRAM = 256 * _MIB


def without_image(context: Context) -> Iterator[Finding]:
    """Machines without anything to boot."""
    for machine in context.spec.machines.values():
        if not machine.image:
            yield Finding(
                ("machines", machine.name),
                f"{machine.name} has no image",
                hint="Write image: here or under defaults. `labctl image list` shows the images.",
                on_key=True,
            )


def memory_bounds(context: Context) -> Iterator[Finding]:
    """Sizes that no guest boots with or no host has."""
    for machine in context.spec.machines.values():
        at = ("machines", machine.name)
        if not MIN_MEMORY <= machine.memory <= MAX_MEMORY:
            yield Finding((*at, "memory"), "this is no memory that a machine can run in", "64 MiB to 1 TiB")
        for disk in machine.disks:
            if not MIN_DISK <= disk.size <= MAX_DISK:
                yield Finding((*at, "disks", disk.name), "this is no size of a disk", "1 MiB to 16 TiB")
        if machine.providers.get("virtualbox", {}).get("vram", _MIB) not in range(_MIB, MAX_VRAM + 1):
            yield Finding((*at, "providers", "virtualbox", "vram"), "this is no video memory", "1 MiB to 256 MiB")


def windows_lacks(context: Context) -> Iterator[Finding]:
    """What labctl does on Linux guests only."""
    for machine in context.spec.machines.values():
        if machine.os != "windows":
            continue
        at = ("machines", machine.name)
        if machine.router:
            yield Finding((*at, "router"), "a Windows machine cannot be a router", hint="Routers filter with nftables.")
        for index, step in enumerate(machine.provision):
            if isinstance(step, PackagesStep):
                keys = (*at, "provision", index, "packages")
                hint = "Install Windows programs with shell: or script:."
                yield Finding(keys, "packages are those of a Linux distribution", hint=hint, on_key=True)
        for user, settings in context.written(machine.name).get("users", {}).items():
            for key in ("sudo", "shell"):
                if key in (settings or {}):
                    yield Finding((*at, "users", user, key), f"{key} means nothing on Windows", on_key=True)


def winrm_without_windows(context: Context) -> Iterator[Finding]:
    """WinRM settings of a machine that does not speak it."""
    for machine in context.spec.machines.values():
        if machine.os != "windows" and "winrm" in context.written(machine.name):
            yield Finding(
                ("machines", machine.name, "winrm"),
                "only a Windows machine is reached over WinRM",
                hint="Write os: windows, or remove this.",
                on_key=True,
            )


def file_targets(context: Context) -> Iterator[Finding]:
    """Paths of the other operating system."""
    for machine in context.spec.machines.values():
        for index, step in enumerate(machine.provision):
            if not isinstance(step, FileStep) or step.target.startswith("/") == (machine.os == "linux"):
                continue
            keys: Keys = ("machines", machine.name, "provision", index, "file", "target")
            allowed = "a path such as /etc/motd" if machine.os == "linux" else "a path such as C:\\Lab\\readme.txt"
            yield Finding(keys, f"{quoted(step.target)} is no full path on {machine.os}", allowed)


def macs(context: Context) -> Iterator[Finding]:
    """Hardware addresses that a NIC cannot have, or that two have."""
    owner: dict[str, str] = {}
    for placed in context.interfaces:
        mac, machine = placed.interface.mac, placed.machine
        if mac is None:
            continue
        keys = placed.at("mac")
        if int(mac[:2], 16) & 1:
            meant = f"{int(mac[:2], 16) & 0xFE:02x}{mac[2:]}"
            yield Finding(keys, f"{quoted(mac)} is a multicast address; a NIC has none", "an even first byte", meant)
        elif mac == "00:00:00:00:00:00":
            yield Finding(keys, f"{quoted(mac)} is no address of a NIC")
        if machine.count is not None and machine.count > 1:
            hint = "Leave mac out; the plan gives each copy its own."
            yield Finding(keys, f"{machine.count} copies of {machine.name} cannot have one MAC", hint=hint)
        if mac in owner:
            yield Finding(keys, f"{quoted(mac)} is the MAC of {owner[mac]} already")
        owner.setdefault(mac, machine.name)
