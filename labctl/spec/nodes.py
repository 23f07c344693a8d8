"""A YAML document as values that know where they stand in their file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labctl.spec.problems import Keys

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it begins. A mapping holds entries, a list nodes; an aliased node is shared."""

    value: Scalar | Mapping[str, Entry] | tuple[Node, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping's value with the place of its key."""

    key_mark: Mark
    node: Node


def plain(node: Node) -> Any:
    """The values alone, as dicts, lists and scalars."""
    if isinstance(node.value, Mapping):
        return {key: plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(item) for item in node.value]
    return node.value


def locate(root: Node, keys: Keys, *, on_key: bool = False) -> Mark:
    """Where the value (or its key) at ``keys`` stands. Where it does not exist: the deepest key on the way to it."""
    node, mark = root, root.mark
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node.value, Mapping) and key in node.value:
            entry = node.value[str(key)]
            node, mark = entry.node, entry.key_mark
            if last and not on_key:
                mark = node.mark
        elif isinstance(node.value, tuple) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            mark = node.mark
        else:
            break
    return mark


def merged(base: Node, over: Node) -> Node:
    """``over`` laid over ``base``: maps key by key, anything else replaced. Every value keeps its own place."""
    if not isinstance(base.value, Mapping) or not isinstance(over.value, Mapping):
        return over
    entries = dict(base.value)
    for key, entry in over.value.items():
        below = entries.get(key)
        entries[key] = Entry(entry.key_mark, merged(below.node, entry.node)) if below else entry
    return Node(entries, over.mark)


def with_defaults(root: Node) -> Node:
    """The document with ``defaults`` merged into every machine. Expects a document that passed the schema."""
    document = root.value
    if not isinstance(document, Mapping) or "defaults" not in document or "machines" not in document:
        return root
    defaults, machines = document["defaults"].node, document["machines"]
    if not isinstance(defaults.value, Mapping) or not isinstance(machines.node.value, Mapping):
        return root
    full = {name: Entry(entry.key_mark, _machine(defaults, entry)) for name, entry in machines.node.value.items()}
    changed = {"machines": Entry(machines.key_mark, Node(full, machines.node.mark))}
    return Node({**document, **changed}, root.mark)


def _machine(defaults: Node, entry: Entry) -> Node:
    """A machine written as nothing (``web:``) is all defaults."""
    own = entry.node if isinstance(entry.node.value, Mapping) else Node({}, entry.key_mark)
    return merged(defaults, own)
