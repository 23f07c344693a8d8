"""Checkpoints as people and scripts see them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from labctl.cli.output import size as bytes_for_people

if TYPE_CHECKING:
    from labctl.lifecycle.checkpoint import Listing
    from labctl.providers.base import SnapshotSize
    from labctl.state.checkpoints import Checkpoint


def fields(one: Checkpoint) -> dict[str, object]:
    """What ``--json`` shows of one."""
    return {
        "id": one.id,
        "name": one.name,
        "parent": one.parent,
        "created": one.created,
        "machines": one.machines,
        "completed": one.completed,
        "skew": one.skew,
        "witnesses": one.witnesses,
        "sealed": one.sealed,
        "automatic": one.automatic,
        "images": one.images,
        "plan_digest": one.plan_digest,
        "checked": one.checked,
    }


def size(taken: SnapshotSize | None) -> str:
    """What one takes on the disk."""
    return "-" if taken is None else f"{bytes_for_people(taken.own)} + {bytes_for_people(taken.shared)} shared"


def skew(one: Checkpoint) -> str:
    """How far apart its machines stood still."""
    return "-" if one.skew is None else f"{one.skew * 1000:.0f} ms"


def words(one: Checkpoint) -> list[str]:
    """What is unusual about a checkpoint."""
    unusual = {"automatic": one.automatic, "sealed": one.sealed, "no checksum": not one.checked}
    return [word for word, holds in unusual.items() if holds]


def when(one: Checkpoint) -> str:
    """When it was saved, by this host's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.created))


def tree(found: Listing) -> list[str]:
    """A line for each, below the one that it was made after and further in; at the top where that one is damaged."""
    known = {one.id for one in found.checkpoints}
    return [line for one in found.checkpoints if one.parent not in known for line in _branch(found, one, "")]


def _branch(found: Listing, top: Checkpoint, indent: str) -> list[str]:
    star = " *" if top.id == found.current else ""
    apart = [] if top.skew is None else [f"skew {skew(top)}"]
    about = ", ".join([when(top), f"machines: {' '.join(top.machines)}", *apart, *words(top)])
    lines = [f"{indent}{top.name}{star}  ({about})"]
    for one in found.checkpoints:
        if one.parent == top.id:
            lines += _branch(found, one, indent + "  ")
    return lines
