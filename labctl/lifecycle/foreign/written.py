"""A settled draft as the text of a lab file: YAML from an emitter, and comments of one printable line each."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from labctl.lifecycle.foreign.draft import Draft, Machine, Network, Seat
from labctl.lifecycle.foreign.settle import rules
from labctl.spec import scalars

_WIDTH = 118
_FLOW_WIDTH = 88
_MAX_NOTE = 400
_MIB = 1 << 20
_OTHER_BREAK = re.compile("[\r\x85\u2028\u2029]")  # what YAML's parsers may count as a line break besides \\n
_TEXT, _INT, _BOOL, _MAP, _LIST = (scalars.CORE_TAG + kind for kind in ("str", "int", "bool", "map", "seq"))


def written(draft: Draft, mend: Iterable[str] = ()) -> str:
    """The lab file. mend: what `labctl validate` still says of it."""
    policy = [{"from": source, "to": target, "ports": "any"} for source, target in rules(draft)]
    lines = [
        *_comment(f"Made by `labctl import` from a {draft.origin}. Compare the two before you trust this one."),
        *_remarks("Still to mend:", mend),
        *_remarks("Not carried over, or decided:", draft.notes),
        *_yaml({"version": 1, "name": draft.name}),
    ]
    if draft.networks:
        lines += ["", "networks:"]
        lines += _entries((network.notes, {network.name: _network(network)}) for network in draft.networks)
    lines += ["", "machines:"]
    lines += _entries((machine.notes, {machine.name: _machine(machine)}) for machine in draft.machines)
    if policy:
        lines += ["", *_yaml({"policy": policy})]
    if draft.groups:
        lines += ["", *_yaml({"x-groups": draft.groups})]
    return "\n".join(lines) + "\n"


def _network(network: Network) -> dict[str, Any]:
    found = {"subnet": network.subnet, "subnet6": network.subnet6}
    return {key: str(subnet) for key, subnet in found.items() if subnet is not None}


def _machine(machine: Machine) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": machine.image}
    if machine.windows:
        entry["os"] = "windows"
    if machine.memory is not None:
        entry["memory"] = _size(machine.memory)
    if machine.cpus is not None:
        entry["cpus"] = machine.cpus
    if machine.router:
        entry["router"] = True
    if machine.gui:
        entry["gui"] = True
    if machine.seats:
        entry["networks"] = _seats(machine.seats)
    if machine.disks:
        entry["disks"] = {name: _size(size) for name, size in machine.disks.items()}
    if machine.steps:
        entry["provision"] = machine.steps
    return entry


def _size(size: int) -> str:
    mib = size // _MIB
    return f"{mib // 1024} GiB" if mib % 1024 == 0 else f"{mib} MiB"


def _seats(seats: list[Seat]) -> list[Any] | dict[str, Any]:
    settings = [(seat.network.name, _seat(seat)) for seat in seats]
    if len({name for name, _ in settings}) < len(settings):
        return [{"network": name, **setting} for name, setting in settings]
    if not any(setting for _, setting in settings):
        return [name for name, _ in settings]
    return {name: _short(setting) for name, setting in settings}


def _seat(seat: Seat) -> dict[str, Any]:
    setting: dict[str, Any] = {}
    if seat.silent and (seat.network.subnet or seat.network.subnet6):
        setting = {"address": "none", "address6": "none"}
    if seat.address is not None:
        setting["address"] = str(seat.address)
    if seat.address6 is not None:
        setting["address6"] = str(seat.address6)
    if seat.promiscuous:
        setting["promiscuous"] = True
    return setting


def _short(setting: Mapping[str, Any]) -> Any:
    """The short form of a seat, where there is one."""
    if not setting:
        return "auto"
    if setting == {"address": "none", "address6": "none"}:
        return "none"
    return next(iter(setting.values())) if set(setting) in ({"address"}, {"address6"}) else setting


def _entries(blocks: Iterable[tuple[list[str], Mapping[str, Any]]]) -> Iterator[str]:
    """Entries of a mapping, each after its comments."""
    for notes, entry in blocks:
        for line in (*(line for note in notes for line in _comment(note)), *_yaml(entry)):
            # A line of blanks may belong to a text; only an empty one may stay as it is.
            yield f"  {line}" if line else line


def _remarks(title: str, notes: Iterable[str]) -> Iterator[str]:
    for index, note in enumerate(notes):
        if not index:
            yield from _comment(title)
        yield from _comment(note, "- ", "  ")


def _comment(text: str, first: str = "", other: str = "") -> list[str]:
    """A text as comment lines, whatever it contains."""
    cut = text if len(text) <= _MAX_NOTE else text[: _MAX_NOTE - 1] + "…"
    short = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
    return textwrap.wrap(
        short, _WIDTH, initial_indent=f"# {first}", subsequent_indent=f"# {other}", break_on_hyphens=False
    ) or ["#"]


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        _ = indentless
        super().increase_indent(flow, False)


def _yaml(value: Mapping[str, Any]) -> list[str]:
    """A mapping as lines of block style."""
    text = yaml.serialize(_block(value), Dumper=_Dumper, allow_unicode=True, width=1 << 20)
    return text.removesuffix("\n").split("\n")


def _block(value: Mapping[str, Any]) -> yaml.MappingNode:
    pairs = [(_node(key), _block(below) if _is_entry(below) else _node(below)) for key, below in value.items()]
    return yaml.MappingNode(_MAP, pairs, flow_style=False)


def _is_entry(value: Any) -> bool:
    """A machine's entry is written with a line for each setting; anything else that is short on one line."""
    return isinstance(value, dict) and "image" in value


def _node(value: Any) -> yaml.Node:
    if isinstance(value, bool):
        return yaml.ScalarNode(_BOOL, "true" if value else "false")
    if isinstance(value, int):
        return yaml.ScalarNode(_INT, str(value))
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, Mapping):
        pairs = [(_node(key), _node(below)) for key, below in value.items()]
        return yaml.MappingNode(_MAP, pairs, flow_style=_fits(value))
    return yaml.SequenceNode(_LIST, [_node(item) for item in value], flow_style=_fits(value))


def _scalar(text: str) -> yaml.ScalarNode:
    if _OTHER_BREAK.search(text) or text.endswith("\n\n") or text == "\n":
        # In double quotes every line break is an escape. A block that ends with empty lines needs a marker after it.
        return yaml.ScalarNode(_TEXT, text, style='"')
    if "\n" in text:
        return yaml.ScalarNode(_TEXT, text, style="|")  # the emitter takes quotes where a block cannot hold the text
    # Quotes where the text would be a number or nothing to YAML 1.2; the emitter adds them where YAML 1.1 needs them.
    return yaml.ScalarNode(_TEXT, text, style=None if scalars.resolve(text) == text else "'")


def _fits(value: Any) -> bool:
    """Whether a collection may stand on one line; one of many mappings may not."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return not value
    return len(str(value)) <= _FLOW_WIDTH and "\\n" not in str(value)
