"""From a document that passed the schema to the frozen model. Names may still dangle; the rules say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal

from labctl.spec import values
from labctl.spec.model import (
    DiskSpec,
    FileStep,
    InterfaceSpec,
    LabSpec,
    MachineSpec,
    NetworkSpec,
    PackagesStep,
    PolicyRule,
    RuleEnd,
    ScriptStep,
    SecretSpec,
    ShellStep,
    Step,
    UserSpec,
    WinRMSpec,
)
from labctl.spec.problems import Keys

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Seat:
    """One interface as it was written: network, settings, and where it stands below the machine's ``networks``."""

    keys: Keys
    network: str
    settings: Mapping[str, Any]


def build(data: Mapping[str, Any], file: Path) -> LabSpec:
    """The model of ``data``: plain values of the document after merging its defaults."""
    networks = {name: _network(name, entry or {}) for name, entry in (data.get("networks") or {}).items()}
    machines = {name: _machine(name, entry or {}, networks) for name, entry in data["machines"].items()}
    copies = {copy for machine in machines.values() for copy in machine.copies()}
    return LabSpec(
        file=file,
        name=data["name"],
        version=int(data["version"]),
        description=data.get("description", ""),
        provider=data.get("provider"),
        seal=data.get("seal", False),
        networks=networks,
        machines=machines,
        policy=tuple(_rule(entry, copies | set(machines)) for entry in data.get("policy", ())),
        hosts=_hosts(data.get("hosts", {})),
        checks=data.get("checks"),
        secrets=tuple(_secret(name, entry) for name, entry in data.get("secrets", {}).items()),
        providers=_settings(data.get("providers", {})),
    )


def seats(networks: Any) -> Iterator[Seat]:
    """The seats that a machine's ``networks`` means, whichever way it is written, in order."""
    if isinstance(networks, Mapping):
        for name, value in networks.items():
            yield Seat((name,), name, value if isinstance(value, Mapping) else _from_text(value))
    else:
        for index, item in enumerate(networks or ()):
            if isinstance(item, str):
                yield Seat((index,), item, {})
            else:
                yield Seat((index,), item["network"], item)


def end_of(text: str, machines: set[str]) -> RuleEnd:
    """What a rule's end names; a name that nobody has counts as a network."""
    machine, dot, network = text.partition(".")
    if dot:
        return RuleEnd("interface", machine, network)
    return RuleEnd("machine", machine=text) if text in machines else RuleEnd("network", network=text)


def _from_text(value: str | None) -> Mapping[str, str]:
    """``lan: 10.0.0.5`` fixes one family and leaves the other to the plan; ``lan: none`` takes both away."""
    parsed = values.parse_seat_address(value)
    if parsed == "none":
        return {"address": "none", "address6": "none"}
    if isinstance(parsed, IPv4Address):
        return {"address": str(parsed)}
    return {"address6": str(parsed)} if isinstance(parsed, IPv6Address) else {}


def _network(name: str, entry: Mapping[str, Any]) -> NetworkSpec:
    return NetworkSpec(
        name=name,
        subnet=values.parse_subnet(entry["subnet"]) if "subnet" in entry else None,
        subnet6=values.parse_subnet6(entry["subnet6"]) if "subnet6" in entry else None,
        peers=entry.get("peers", True),
        egress=entry.get("egress", "none"),
        description=entry.get("description", ""),
    )


def _machine(name: str, entry: Mapping[str, Any], networks: Mapping[str, NetworkSpec]) -> MachineSpec:
    windows = entry.get("os") == "windows"
    return MachineSpec(
        name=name,
        image=entry.get("image", ""),
        os="windows" if windows else "linux",
        description=entry.get("description", ""),
        memory=values.parse_size(entry["memory"]) if "memory" in entry else (2 * _GIB if windows else _GIB // 4),
        cpus=int(entry.get("cpus", 2 if windows else 1)),
        count=int(entry["count"]) if "count" in entry else None,
        router=entry.get("router", False),
        gui=entry.get("gui", False),
        interfaces=tuple(_interface(seat, networks.get(seat.network)) for seat in seats(entry.get("networks"))),
        gateway=values.parse_ipv4(entry["gateway"]) if "gateway" in entry else None,
        gateway6=values.parse_ipv6(entry["gateway6"]) if "gateway6" in entry else None,
        services=tuple(values.parse_service(text) for text in entry.get("services", ())),
        provision=tuple(_step(step) for step in entry.get("provision", ())),
        hosts=_hosts(entry.get("hosts", {})),
        names=entry.get("names", True),
        users=tuple(_user(user, settings or {}) for user, settings in entry.get("users", {}).items()),
        disks=tuple(DiskSpec(disk, values.parse_size(size)) for disk, size in entry.get("disks", {}).items()),
        depends_on=tuple(entry.get("depends_on", ())),
        secrets=tuple(entry.get("secrets", ())),
        winrm=_winrm(entry.get("winrm", {})) if windows else None,
        providers=_settings(entry.get("providers", {})),
    )


def _interface(seat: Seat, network: NetworkSpec | None) -> InterfaceSpec:
    address: IPv4Address | Literal["auto", "none"]
    address6: IPv6Address | Literal["auto", "none"]
    address = values.parse_seat_ipv4(seat.settings.get("address", "auto"))
    address6 = values.parse_seat_ipv6(seat.settings.get("address6", "auto"))
    no_subnet = network is None or network.subnet is None
    no_subnet6 = network is None or network.subnet6 is None
    mac = seat.settings.get("mac")
    return InterfaceSpec(
        network=seat.network,
        address=None if address == "none" or (address == "auto" and no_subnet) else address,
        address6=None if address6 == "none" or (address6 == "auto" and no_subnet6) else address6,
        mac=mac.lower() if mac else None,
        promiscuous=seat.settings.get("promiscuous", False),
    )


def _step(entry: Mapping[str, Any]) -> Step:
    ((kind, value),) = entry.items()
    if kind == "packages":
        return PackagesStep(tuple(value))
    if kind == "shell":
        return ShellStep(value)
    if kind == "script":
        script = {"source": value} if isinstance(value, str) else value
        return ScriptStep(script["source"], tuple(script.get("args", ())))
    return FileStep(**_known(value))


def _user(name: str, entry: Mapping[str, Any]) -> UserSpec:
    return UserSpec(
        name=name,
        password=entry.get("password"),
        groups=tuple(entry.get("groups", ())),
        keys=tuple(entry.get("keys", ())),
        sudo=entry.get("sudo", False),
        shell=entry.get("shell", "/bin/bash"),
    )


def _secret(name: str, entry: Mapping[str, Any]) -> SecretSpec:
    settings = _known(entry)
    for key in ("length", "first", "last"):
        if key in settings:
            settings[key] = int(settings[key])
    if "points" in settings:
        settings["points"] = float(settings["points"])
    return SecretSpec(name, **{**settings, "of": tuple(map(str, settings.get("of", ())))})


def _winrm(entry: Mapping[str, Any]) -> WinRMSpec:
    settings = _known(entry)
    if "port" in settings:
        settings["port"] = int(settings["port"])
    return WinRMSpec(**settings)


def _rule(entry: Mapping[str, Any], machines: set[str]) -> PolicyRule:
    ports = entry["ports"]
    return PolicyRule(
        source=end_of(entry["from"], machines),
        target=end_of(entry["to"], machines),
        ports=tuple(values.parse_ports(text) for text in ([ports] if isinstance(ports, str) else ports)),
        action=entry.get("action", "allow"),
        description=entry.get("description", ""),
    )


def _hosts(entry: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (str(values.parse_address(address)), (names,) if isinstance(names, str) else tuple(names))
        for address, names in entry.items()
    )


def _settings(entry: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Settings by provider; sizes become bytes here as everywhere."""
    return {
        provider: {key: values.parse_size(value) if key == "vram" else value for key, value in _known(settings).items()}
        for provider, settings in _known(entry).items()
    }


def _known(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry without extensions, which are not labctl's."""
    return {key: value for key, value in entry.items() if not key.startswith("x-")}
