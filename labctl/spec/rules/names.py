"""Names: who has which, and whether every name that is used is had by somebody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labctl.spec.problems import Finding, Keys, listed, nearest, quoted
from labctl.spec.rules.context import Context

# Words that the plan, the probes and the guests use for themselves.
RESERVED = frozenset({"host", "localhost", "management"})
MAX_MACHINES = 1000
MAX_LABEL = 63
MAX_WINDOWS_NAME = 15


def reserved(context: Context) -> Iterator[Finding]:
    """Machines and networks that are called like a part of labctl."""
    for kind, names in (("machines", context.spec.machines), ("networks", context.spec.networks)):
        for name in names:
            if name in RESERVED:
                yield Finding((kind, name), f"the name {quoted(name)} is labctl's own", "any other name", on_key=True)


def too_long(context: Context) -> Iterator[Finding]:
    """Names that become too long with their number, or for Windows."""
    for machine in context.spec.machines.values():
        longest = machine.copies()[-1]
        limit = MAX_WINDOWS_NAME if machine.os == "windows" else MAX_LABEL
        if len(longest) > limit:
            system = "a Windows computer" if machine.os == "windows" else "a host"
            message = f"the name {quoted(longest)} is too long for {system}"
            yield Finding(("machines", machine.name), message, f"{limit} characters at most", on_key=True)


def clashing(context: Context) -> Iterator[Finding]:
    """Two things with one name: rule ends would be ambiguous."""
    taken = {name: f"the network {name}" for name in context.spec.networks}
    for machine in context.spec.machines.values():
        what = f"the machine {machine.name}" + (f" (count: {machine.count})" if machine.count else "")
        for name in dict.fromkeys((machine.name, *machine.copies())):
            if name in taken:
                yield Finding(
                    ("machines", machine.name),
                    f"the name {quoted(name)} is also that of {taken[name]}",
                    hint="Machines, their numbered copies and networks share one set of names.",
                    on_key=True,
                )
            taken.setdefault(name, what)


def too_many(context: Context) -> Iterator[Finding]:
    """More machines than one lab can be."""
    total = sum(machine.count or 1 for machine in context.spec.machines.values())
    if total > MAX_MACHINES:
        yield Finding(("machines",), f"this lab has {total} machines", f"{MAX_MACHINES} at most", on_key=True)


def dangling_networks(context: Context) -> Iterator[Finding]:
    """Seats on a network that is not there."""
    networks = context.spec.networks
    for placed in context.interfaces:
        name = placed.interface.network
        if name not in networks:
            yield _unknown(placed.at("network"), "network", name, networks, on_key=placed.at("network") == placed.keys)


def dangling_dependencies(context: Context) -> Iterator[Finding]:
    """Machines to wait for that are not there."""
    for machine in context.spec.machines.values():
        for index, name in enumerate(machine.depends_on):
            if name not in context.entry_of:
                keys = ("machines", machine.name, "depends_on", index)
                yield _unknown(keys, "machine", name, context.entry_of)


def dependency_cycles(context: Context) -> Iterator[Finding]:
    """Machines that wait for each other; each cycle is told once, at the entry that comes first in the file."""
    waits = {
        machine.name: tuple(context.entry_of[n].name for n in machine.depends_on if n in context.entry_of)
        for machine in context.spec.machines.values()
    }
    done: set[str] = set()
    for start in waits:
        cycle = _cycle(start, waits, done)
        if cycle:
            shown = cycle if len(cycle) <= 8 else (*cycle[:4], "…", *cycle[-3:])
            chain = " → ".join((*shown, cycle[0]))
            following = cycle[1 % len(cycle)]
            named = context.spec.machines[cycle[0]].depends_on
            index = next(
                i for i, n in enumerate(named) if n in context.entry_of and context.entry_of[n].name == following
            )
            yield Finding(("machines", cycle[0], "depends_on", index), f"machines wait for each other: {chain}")


def _cycle(start: str, waits: dict[str, tuple[str, ...]], done: set[str]) -> tuple[str, ...]:
    """A cycle that can be reached from ``start``, or nothing. Adds to ``done`` what need not be looked at again."""
    path: list[str] = []
    stack = [(start, iter(waits[start]))] if start not in done else []
    path += [start] if stack else []
    found: tuple[str, ...] = ()
    while stack:
        name, rest = stack[-1]
        following = next((n for n in rest if n not in done), None)
        if following is None:
            done.add(name)
            stack.pop()
            path.pop()
        elif following in path:
            found = found or tuple(path[path.index(following) :])
            continue
        else:
            path.append(following)
            stack.append((following, iter(waits[following])))
    return found


def seats_twice(context: Context) -> Iterator[Finding]:
    """A machine twice on a network, written as a plain name: most often a slip."""
    seen: set[tuple[str, str]] = set()
    for placed in context.interfaces:
        seat = (placed.machine.name, placed.interface.network)
        if seat in seen and not placed.written:
            yield Finding(
                placed.keys,
                f"{placed.machine.name} is on {placed.interface.network} already",
                hint="To sit twice on a network, write mappings: [{network: NAME}, {network: NAME}].",
            )
        seen.add(seat)


def _unknown(keys: Keys, kind: str, name: str, known: Iterable[str], *, on_key: bool = False) -> Finding:
    names = list(known)
    shown = listed(names[:20]) + (", …" if len(names) > 20 else "")
    return Finding(
        keys,
        f"there is no {kind} {quoted(name)}",
        shown or f"no {kind} is declared",
        nearest(name, names),
        on_key=on_key,
    )
