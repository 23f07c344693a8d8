"""Blast radii on the screen and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labctl.cli.output import say, table
from labctl.plan.reach import Blast, Reached
from labctl.spec.model import Ports


def show_all(blasts: Sequence[Blast]) -> None:
    """One row for each machine: whom its owner reaches, in steps, only over a fallen router, and not at all."""
    table(
        ("FROM", "DIRECTLY", "THEN", "ONLY IF A ROUTER FALLS", "NEVER"),
        [
            (
                blast.machine,
                _listed([*(_door(one) for one in blast.reached if one.direct), *_ways_out(blast)]),
                _listed([one.machine for one in blast.by_steps(router=False)]),
                _listed([one.machine for one in blast.by_steps(router=True)]),
                _listed(blast.safe),
            )
            for blast in blasts
        ],
    )


def show_one(blast: Blast) -> None:
    """Everything about one machine: path, ports and reasons."""
    table(
        ("TO", "BY WAY OF", "PORTS", "WHY"),
        [
            (
                one.machine,
                " → ".join(one.path) + (" (a router falls)" if one.router else ""),
                _ports(one.ports),
                "; ".join(one.ways),
            )
            for one in sorted(blast.reached, key=lambda one: (one.router, len(one.path)))
        ],
    )
    for text in _ways_out(blast):
        say(f"Also: {text}.")
    say(f"Never: {_listed(blast.safe)}")


def to_json(blast: Blast) -> dict[str, Any]:
    """One machine's answer."""
    return {
        "machine": blast.machine,
        "reaches": [
            {
                "machine": one.machine,
                "path": one.path,
                "ports": [str(ports) for ports in one.ports],
                "why": one.ways,
                "router_falls": one.router,
            }
            for one in blast.reached
        ],
        "never": blast.safe,
        "way_out": blast.outside,
    }


def _door(one: Reached) -> str:
    return f"{one.machine} ({_ports(one.ports)})"


def _ports(ports: Sequence[Ports]) -> str:
    return " ".join(str(one) for one in ports)


def _ways_out(blast: Blast) -> list[str]:
    return [f"the way out of {network}" for network in blast.outside]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"
