"""Machines of a Vagrantfile, as Vagrant understood it, put into a draft.

Source of the meanings: developer.hashicorp.com/vagrant/docs, "Networking", "VirtualBox", and vagrant-libvirt's manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from labctl.lifecycle.foreign import boxes, untyped
from labctl.lifecycle.foreign.draft import Draft, Machine, Network
from labctl.lifecycle.foreign.vagrant_provision import Provisioning
from labctl.spec.problems import quoted

_MIB = 1 << 20
# Vagrant's own forwards, by which it logs in.
_OWN_PORTS = frozenset({"ssh", "winrm", "winrm-ssl"})
_VIRTUALBOX_SUBNET = "192.168.56.0/24"  # what VirtualBox allows host-only networks without further ado
_PLAYS_OUTSIDE = "203.0.113.0/24"
_SIZE = re.compile(r"\s*([0-9]{1,9})\s*([KMGT]?)i?B?\s*\Z", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_WINDOWS_BOX = re.compile(r"(^|[/_.-])win(dows|2k|xp|[0-9])", re.IGNORECASE)
_OWN_SHARE = "/vagrant"

Key = tuple[object, ...]


def fill(draft: Draft, described: Mapping[str, Any], provisioning: Provisioning) -> None:
    """Put what ``evaluate`` gave into the draft."""
    wires = _Wires(draft)
    for entry in map(untyped.mapping, untyped.items(described.get("machines"))):
        machine = _machine(draft, entry)
        promiscuous = _settings(machine, entry)
        wires.seat(machine, entry, promiscuous)
        _disks(machine, entry)
        provisioning.carry_over(machine, entry)
        _shares(draft, machine, entry)
    draft.note("Vagrant gives every machine a way out by NAT; here nothing leaves until a network has egress: nat")


def _machine(draft: Draft, entry: Mapping[str, Any]) -> Machine:
    name, host = untyped.text(entry.get("name")), untyped.text(entry.get("hostname"))
    box, guest = untyped.text(entry.get("box")), untyped.text(entry.get("guest"))
    told = untyped.text(entry.get("communicator")).startswith("win") or guest == "windows"
    windows = told or (not guest and bool(_WINDOWS_BOX.search(box)))
    machine = draft.machine(host.partition(".")[0] or name, windows=windows, original=name)
    if windows and not told:
        machine.notes.append("os: windows is a reading of the box's name")
    if "." in host:
        machine.notes.append(f"its full host name was {quoted(host)}")
    boxes.choose(draft, machine, box)
    if entry.get("autostart") is False:
        machine.notes.append("not carried over: autostart: false; labctl starts all machines")
    return machine


def _settings(machine: Machine, entry: Mapping[str, Any]) -> set[int]:
    """Memory, processors and window. Gives the numbers of the NICs that see everything."""
    settings = untyped.mapping(entry.get("settings"))
    vmx = untyped.mapping(settings.get("vmx"))
    memory = settings.get("memory", vmx.get("memsize", settings.get("guest_memsize")))
    cpus = untyped.whole(settings.get("cpus", vmx.get("numvcpus", settings.get("guest_numvcpus"))))
    machine.gui = untyped.truth(settings.get("gui"))
    promiscuous: set[int] = set()
    ignored: list[str] = []
    for option, value in _customizations(settings):
        if option == "--memory":
            memory = value
        elif option == "--cpus":
            cpus = untyped.whole(value)
        elif re.match(r"--nicpromisc[0-9]{1,2}\Z", option):
            promiscuous |= {int(option[12:])} if value.startswith("allow") else set()
        elif option == "--size":
            machine.has_disk("disk", (untyped.whole(value) or 0) * _MIB)
        elif option not in ignored:
            ignored.append(option)
    if ignored:
        machine.notes.append(f"not carried over: settings of VirtualBox: {', '.join(map(quoted, ignored))}")
    if size := _bytes(memory, unit=_MIB):
        machine.has_memory(size)
    if cpus is not None:
        machine.has_cpus(cpus)
    return promiscuous


def _customizations(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Option and value of each ``VBoxManage modifyvm``, and ``--size`` of each disk made; other commands by name."""
    for customization in untyped.items(settings.get("customizations")):
        command = (untyped.items(customization) or [None])[-1]
        words = [untyped.text(word) for word in untyped.items(command)]
        options = list(zip(words, [*words[1:], ""], strict=False))
        if words[:1] == ["modifyvm"]:
            yield from ((option, value) for option, value in options if option.startswith("--"))
        elif words[:1] in (["createhd"], ["createmedium"]):
            yield from ((option, value) for option, value in options if option == "--size")
        elif words and words[0] not in ("storageattach", "storagectl"):
            yield words[0], ""


def _bytes(value: Any, *, unit: int) -> int | None:
    """A size: a bare number counts units."""
    found = _SIZE.match(untyped.text(value))
    if not found:
        return None
    return int(found[1]) * (_UNITS[found[2].upper()] if found[2] else unit)


def _disks(machine: Machine, entry: Mapping[str, Any]) -> None:
    for disk in map(untyped.mapping, untyped.items(entry.get("disks"))):
        name, size = untyped.text(disk.get("name")) or "disk", _bytes(disk.get("size"), unit=1)
        if untyped.truth(disk.get("primary")) or untyped.text(disk.get("type")) != "disk" or size is None:
            machine.notes.append(f"not carried over: the {untyped.text(disk.get('type'))} {quoted(name)}")
        else:
            machine.has_disk(name, size)
    for disk in map(untyped.mapping, untyped.items(untyped.mapping(entry.get("settings")).get("disks"))):
        machine.has_disk(untyped.text(disk.get("device")) or "disk", _bytes(disk.get("size"), unit=1) or 0)


def _shares(draft: Draft, machine: Machine, entry: Mapping[str, Any]) -> None:
    for share in map(untyped.mapping, untyped.items(entry.get("synced_folders"))):
        source, target = untyped.text(share.get("hostpath")), untyped.text(share.get("guestpath"))
        if untyped.truth(share.get("disabled")):
            continue
        if target == _OWN_SHARE:
            draft.note(f"not carried over: the synced folder {quoted(source)} -> {_OWN_SHARE}; labs share nothing")
        else:
            machine.notes.append(f"not carried over: synced folder {quoted(source)} -> {quoted(target)}")


@dataclass(slots=True)
class _Wires:
    """The networks of all machines, by what makes two interfaces of Vagrant meet."""

    draft: Draft
    known: dict[Key, Network] = field(default_factory=dict)

    def seat(self, machine: Machine, entry: Mapping[str, Any], promiscuous: set[int]) -> None:
        """Put a machine on its networks. promiscuous: numbers of NICs; the first is Vagrant's own, on NAT."""
        for kind, options in _networks(entry):
            if kind == "forwarded_port":
                _forwarded(machine, options)
            elif kind in ("private_network", "public_network"):
                self._sit(machine, options, public=kind == "public_network")
                machine.seats[-1].promiscuous = len(machine.seats) + 1 in promiscuous
            else:
                machine.notes.append(f"not carried over: a network of the kind {quoted(kind)}")

    def _sit(self, machine: Machine, options: Mapping[str, Any], *, public: bool) -> None:
        address = untyped.text(options.get("ip"))
        cidr = _cidr(address, options)
        key, name = ((_PLAYS_OUTSIDE,), "public") if public else _meets(cidr, options)
        network = self.known.get(key)
        if network is None:
            network = self.known[key] = self.draft.network(name, named=bool(_given(options)) and not public)
            network.wanted = "" if _bare(options) else _PLAYS_OUTSIDE if public else _VIRTUALBOX_SUBNET
            if public:
                network.notes.append("a public_network in the source: joined to the host's LAN there, isolated here")
        if cidr:
            network.give(cidr)
        if options.get("auto_config") is False:
            machine.notes.append(f"it sets its own address on {network.name}: auto_config was false")
        machine.sit(network, address, silent=options.get("auto_config") is False)
        if mode := untyped.text(options.get("libvirt__forward_mode")):
            network.notes += (
                [] if mode in ("none", "veryisolated") else [f"not carried over: forward_mode {quoted(mode)}"]
            )
        if "mac" in options:
            machine.notes.append(f"not carried over: the MAC address {quoted(options['mac'])} on {network.name}")


def _networks(entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for network in untyped.items(entry.get("networks")):
        kind, options, *_ = [*untyped.items(network), None, None]
        yield untyped.text(kind), untyped.mapping(options)


def _meets(cidr: str, options: Mapping[str, Any]) -> tuple[Key, str]:
    """What two interfaces have in common that are on one private network, and what that network may be called."""
    if name := _given(options):
        return ("named", name), name
    if ports := _tunnel(options):
        return ("tunnel", ports), "tunnel"
    try:
        return ("subnet", ip_interface(cidr).network), "private"
    except ValueError:
        return ("dhcp",), "private"


def _given(options: Mapping[str, Any]) -> str:
    """The name of a network of which only the name counts."""
    intnet = options.get("virtualbox__intnet")
    return "intnet" if intnet is True else untyped.text(intnet or options.get("libvirt__network_name"))


def _tunnel(options: Mapping[str, Any]) -> frozenset[str]:
    """The two ports of a cable that libvirt makes between two machines."""
    ports = (options.get("libvirt__tunnel_port"), options.get("libvirt__tunnel_local_port"))
    return frozenset(untyped.text(port) for port in ports if port is not None)


def _bare(options: Mapping[str, Any]) -> bool:
    """Whether nobody gives addresses on such a network."""
    return untyped.text(options.get("type")) != "dhcp" and bool(_given(options) or _tunnel(options))


def _cidr(address: str, options: Mapping[str, Any]) -> str:
    """The address with the prefix length or netmask that belongs to it, or ``""``."""
    base = address or untyped.text(options.get("libvirt__network_address"))
    mask = untyped.text(options.get("netmask") or options.get("libvirt__netmask"))
    return f"{base}/{mask or ('64' if ':' in base else '24')}" if base else ""


def _forwarded(machine: Machine, options: Mapping[str, Any]) -> None:
    if untyped.text(options.get("id")) not in _OWN_PORTS and not untyped.truth(options.get("disabled")):
        ends = (untyped.text(options.get(key)) for key in ("protocol", "host", "guest"))
        machine.notes.append("not carried over: forwarded port {} {} -> {}".format(*map(str, ends)))
