"""The cache that all labs share: what is in it, who uses it, and what can go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import LabctlError, UsageError
from labctl.images import Stock, stock
from labctl.lifecycle.locate import running
from labctl.state.record import instances

# Whatever is younger may be what another labctl is about to start from.
_YOUNG_SECONDS = 3600.0
_UNUSED_DAYS = 14


@dataclass(frozen=True, slots=True)
class Kept:
    """Something in the cache. users: instances that cannot start without it. why: it may go, ``""`` where it stays."""

    stock: Stock
    users: tuple[str, ...]
    why: str


def contents(*, everything: bool = False, now: float | None = None) -> tuple[Kept, ...]:
    """All of the cache. What no instance uses and labctl can make again may go where it is two weeks old and, of
    images, there is a newer one; everything: also what is neither.
    """
    users = _users()
    found = stock()
    moment = time.time() if now is None else now
    images = {one.folder for one in found if one.kind == "image"}
    kept = {one.folder: users.get(one.folder, ()) for one in found}
    whys = {one.folder: _why(one, kept[one.folder], moment, everything) for one in found}
    for one in found:  # a template serves only where its image does
        if one.kind == "template" and one.base is not None and (one.base not in images or whys.get(one.base)):
            whys[one.folder] = "its image is gone or goes"
    return tuple(Kept(one, kept[one.folder], whys[one.folder]) for one in found)


def prune(*, everything: bool = False, dry_run: bool = False) -> tuple[Kept, ...]:
    """Remove what may go. Gives it. Raises UsageError where an instance cannot be asked what it uses."""
    gone = tuple(one for one in contents(everything=everything) if one.why)
    for one in () if dry_run else gone:
        one.stock.remove()
    return gone


def _why(one: Stock, users: tuple[str, ...], now: float, everything: bool) -> str:
    if users or not one.remade or now - one.used < _YOUNG_SECONDS:
        return ""
    if everything:
        return "no lab uses it"
    old = now - one.used > _UNUSED_DAYS * 24 * 3600
    if one.kind == "template":
        return f"not used for {_UNUSED_DAYS} days" if old else ""
    # of images nobody notes when they were last used; a newer one says that labs do not start from this one any more
    return "there is a newer one" if old and one.newer else ""


def _users() -> Mapping[Path, tuple[str, ...]]:
    """The folders of images, with the instances that use each."""
    found: dict[Path, list[str]] = {}
    for folder in instances():
        name = f"{folder.lab}/{folder.instance}"
        try:
            paths = running(folder).provider.uses()
        except LabctlError as error:
            raise UsageError(
                f"{name} cannot be asked which images it uses: {error.brief}",
                hint=f"labctl up or labctl destroy --instance {folder.instance} mends that.",
            ) from error
        for place in sorted({path.parent.resolve() for path in paths}):
            found.setdefault(place, []).append(name)
    return {place: tuple(names) for place, names in found.items()}
