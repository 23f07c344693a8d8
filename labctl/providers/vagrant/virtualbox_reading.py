"""What VBoxManage prints and what VirtualBox writes, as values. Pure, and strict: a box can bring texts of its own.

``showvminfo --machinereadable`` puts backslashes in front of quotes in most texts, but not in the names of networks and
forwarded ports (VBoxManageInfo.cpp of VirtualBox 7). So a quoted text is read to its end, over line breaks, and a key
that comes twice is an error, whoever wrote the second. What it leaves out is read from the settings file: VirtualBox
writes that at each change, of running machines too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from labctl.errors import ProviderError
from labctl.providers.vagrant.virtualbox_model import (
    Details,
    Forward,
    NatEngine,
    NatNetwork,
    Nic,
    NicKind,
    Promiscuous,
    Registered,
    SharedFolder,
    Snapshot,
)

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_PAIR = re.compile(r'^("?)([^"=\n]+)\1=(?:"((?:[^"\\]|\\.)*)"|([^"\n]*))$', re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"^.*\n?", re.MULTILINE)
# These come once per NAT adapter, without saying of which.
_REPEATED = re.compile(r"Forwarding\(\d+\)|mtu|(sock|tcpWnd)(Snd|Rcv)|localhostReachable|forwardBroadcast|enableTFTP")
_REGISTERED = re.compile(rf'"(.*)" \{{({UUID.pattern})\}}')
_FACT = re.compile(r"(\S[^:]*):\s+(.*)")
_KINDS: Mapping[str, tuple[NicKind, str]] = {  # VBoxManage's word, and its key for the network's name
    "nat": ("nat", "natnet"),
    "intnet": ("intnet", "intnet"),
    "natnetwork": ("natnetwork", "nat-network"),
    "hostonly": ("hostonly", "hostonlyadapter"),
    "bridged": ("bridged", "bridgeadapter"),
    "Generic": ("generic", "generic"),
    "null": ("null", ""),
}
_POLICIES: Mapping[str | None, Promiscuous] = {
    None: "deny",
    "Deny": "deny",
    "AllowNetwork": "allow-vms",
    "AllowAll": "allow-all",
}


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What only the settings file has of an adapter."""

    promiscuous: Promiscuous
    nat: NatEngine


def pairs(text: str) -> dict[str, tuple[str, ...]]:
    """``key="value"`` as a mapping to the values, one each but for keys that may be repeated. Raises ProviderError.

    Lines of another form are passed over: Debian's warnings, and a few of VBoxManage's own.
    """
    found: dict[str, tuple[str, ...]] = {}
    place = 0
    while place < len(text):
        match = _PAIR.match(text, place)
        if match is None:
            line = _LINE.match(text, place)
            place = line.end() if line else len(text)
            continue
        key, quoted, bare = match.group(2, 3, 4)
        if key in found and not _REPEATED.fullmatch(key):
            raise _unreadable("showvminfo", f"{key} comes twice")
        value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        found[key] = (*found.get(key, ()), value)
        place = match.end() + 1
    return found


def settings_file(facts: Mapping[str, tuple[str, ...]]) -> Path:
    """Where the machine's settings are. Raises ProviderError."""
    return Path(_one(facts, "CfgFile"))


def details(facts: Mapping[str, tuple[str, ...]], adapters: Mapping[int, AdapterSettings] | None) -> Details:
    """A machine from ``pairs`` of what showvminfo says and ``settings`` of its file. Raises ProviderError."""
    used = {
        "audio": _one(facts, "audio") != "none",
        "usb": "on" in (_one(facts, "usb"), _one(facts, "ehci"), _one(facts, "xhci")),
    }
    return Details(
        name=_one(facts, "name"),
        uuid=_one(facts, "UUID"),
        state=_one(facts, "VMState"),
        settings_file=settings_file(facts),
        nics=tuple(_nics(facts, adapters)),
        forwards=tuple(
            _forward(value) for key, values in facts.items() if key.startswith("Forwarding(") for value in values
        ),
        shared_folders=tuple(_shared_folders(facts)),
        clipboard=_one(facts, "clipboard"),
        clipboard_files=_one(facts, "clipboard_file_transfers", "off") != "off",
        drag_and_drop=_one(facts, "draganddrop"),
        screen_served=_one(facts, "vrde", "off") != "off",
        host_devices=tuple(kind for kind, on in used.items() if on),
        snapshots=tuple(_snapshots(facts)),
    )


def settings(text: str) -> dict[int, AdapterSettings] | None:
    """Slot to what a settings file (``.vbox``) says of its adapter; None where it is not such a file.

    Declarations, from which XML takes its dangers, are never in one: with them it is no such file either.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - declarations are refused
    except ElementTree.ParseError:
        return None
    # Of the machine itself: those of its snapshots are deeper.
    network = root.find("{*}Machine/{*}Hardware/{*}Network")
    if root.find("{*}Machine/{*}Hardware") is None or not re.match(r"\d+\.\d+", root.get("version", "")):
        return None
    found = {}
    for adapter in network.findall("{*}Adapter") if network is not None else ():
        slot, policy = adapter.get("slot", ""), adapter.get("promiscuousModePolicy")
        if not slot.isdigit() or policy not in _POLICIES:
            return None
        found[int(slot) + 1] = AdapterSettings(_POLICIES[policy], _nat(adapter.find("{*}NAT")))
    return found


def registered(text: str) -> tuple[Registered, ...]:
    """The machines of ``list vms``. Raises ProviderError."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    found = [_REGISTERED.fullmatch(line) for line in lines]
    for line, match in zip(lines, found, strict=True):
        if match is None:
            raise _unreadable("list vms", line)
    return tuple(Registered(match[1], match[2]) for match in found if match is not None)


def machine_folder(text: str) -> Path:
    """Where machines get their folders, from ``list systemproperties``. Raises ProviderError."""
    for line in text.splitlines():
        if (match := _FACT.fullmatch(line)) and match[1] == "Default machine folder":
            return Path(match[2])
    raise _unreadable("list systemproperties", "there is no machine folder")


def internal_networks(text: str) -> tuple[str, ...]:
    """The names of ``list intnets``."""
    return tuple(block["Name"] for block in _blocks(text))


def nat_networks(text: str) -> tuple[NatNetwork, ...]:
    """The networks of ``list natnets``. Raises ProviderError."""
    found = []
    for block in _blocks(text):
        try:
            on = {key: {"Yes": True, "No": False}[block[key]] for key in ("DHCP Server", "IPv6")}
            found.append(NatNetwork(block["Name"], block["Network"], on["DHCP Server"], on["IPv6"]))
        except KeyError as error:
            raise _unreadable("list natnets", f"{error} of {block['Name']}") from error
    return tuple(found)


def _one(facts: Mapping[str, tuple[str, ...]], key: str, otherwise: str | None = None) -> str:
    values = facts.get(key)
    if values is None and otherwise is None:
        raise _unreadable("showvminfo", f"{key} is missing")
    return values[0] if values else otherwise or ""


def _blocks(text: str) -> Iterator[Mapping[str, str]]:
    """Groups of ``Key: value`` lines, each from its ``Name`` on."""
    block: dict[str, str] = {}
    for line in text.splitlines():
        match = _FACT.fullmatch(line)
        if match is None:
            continue
        if match[1] == "Name":
            if block:
                yield block
            block = {}
        elif not block:
            continue
        block.setdefault(match[1], match[2])
    if block:
        yield block


def _nics(facts: Mapping[str, tuple[str, ...]], adapters: Mapping[int, AdapterSettings] | None) -> Iterator[Nic]:
    slots = sorted(int(match[1]) for key in facts if (match := re.fullmatch(r"nic(\d+)", key)))
    if not slots:
        raise _unreadable("showvminfo", "there are no adapters")
    reachable = _reachable(facts, [slot for slot in slots if facts[f"nic{slot}"] == ("nat",)])
    for slot in slots:
        (word,) = facts[f"nic{slot}"]
        if word == "none":
            continue
        kind, key = _KINDS.get(word, ("other", ""))
        (mac,) = facts.get(f"macaddress{slot}", ("",))
        (cable,) = facts.get(f"cableconnected{slot}", ("",))
        if not re.fullmatch(r"[0-9A-F]{12}", mac) or cable not in ("on", "off"):
            raise _unreadable("showvminfo", f"adapter {slot}: {mac}, {cable}")
        own = adapters.get(slot) if adapters is not None else None
        yield Nic(
            slot=slot,
            kind=kind,
            network=word if kind == "other" else facts.get(f"{key}{slot}", ("",))[0],
            mac=":".join(mac[i : i + 2] for i in range(0, 12, 2)).lower(),
            connected=cable == "on",
            promiscuous=own.promiscuous if own else None,
            nat=_as_it_is(own.nat, reachable.get(slot)) if own and kind == "nat" else None,
        )


def _reachable(facts: Mapping[str, tuple[str, ...]], slots: Sequence[int]) -> dict[int, bool]:
    """Slot to whether the loopback is open to it, for adapters with NAT; empty where VirtualBox does not say.

    The file does not tell: measured with 7.2.22, ``off`` is left out when it is written, and read as ``on`` by the next
    server. Once per adapter with NAT it is said, in their order.
    """
    said = facts.get("localhostReachable", ())
    return {slot: word != "0" for slot, word in zip(slots, said, strict=True)} if len(said) == len(slots) else {}


def _as_it_is(written: NatEngine, reachable: bool | None) -> NatEngine:
    return written if reachable is None else replace(written, localhost_reachable=reachable)


def _forward(value: str) -> Forward:
    parts = value.split(",")
    if len(parts) != 6 or not (parts[3].isdigit() and parts[5].isdigit()):
        raise _unreadable("showvminfo", f"forwarded port {value}")
    return Forward(parts[0], parts[1], parts[2], int(parts[3]), parts[4], int(parts[5]))


def _shared_folders(facts: Mapping[str, tuple[str, ...]]) -> Iterator[SharedFolder]:
    for key, values in facts.items():
        if match := re.fullmatch(r"SharedFolderName(\w+Mapping\d+)", key):
            yield SharedFolder(values[0], facts.get(f"SharedFolderPath{match[1]}", ("",))[0])


def _snapshots(facts: Mapping[str, tuple[str, ...]]) -> Iterator[Snapshot]:
    current = facts.get("CurrentSnapshotUUID", ("",))[0]
    for key, values in facts.items():
        if match := re.fullmatch(r"SnapshotUUID((?:-\d+)*)", key):
            yield Snapshot(facts.get(f"SnapshotName{match[1]}", ("",))[0], values[0], values[0] == current)


def _nat(element: ElementTree.Element | None) -> NatEngine:
    dns = element.find("{*}DNS") if element is not None else None

    def on(name: str, otherwise: bool = False, *, of: ElementTree.Element | None = element) -> bool:
        value = of.get(name) if of is not None else None
        return otherwise if value is None else value != "false"

    return NatEngine(
        dns_proxy=on("use-proxy", of=dns),
        host_resolver=on("use-host-resolver", of=dns),
        pass_domain=on("pass-domain", True, of=dns),
        localhost_reachable=on("localhost-reachable", True),
        tftp=on("enable-tftp"),
        broadcast=on("forward-broadcast"),
    )


def _unreadable(what: str, why: str) -> ProviderError:
    return ProviderError(
        f"VBoxManage {what} says something that labctl cannot read",
        details=why[:500],
        hint="Run the same command and look; if nothing is wrong there, labctl does not know this VirtualBox.",
    )
