"""Marks in guests by which a restored checkpoint is known again: one in memory, one on disk.

A snapshot that restores nothing and reports success exists in the field. So before a save each guest gets a mark, after
it another one, and a restore counts only when both places hold the first again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from labctl.errors import GuestError, LabctlError
from labctl.lifecycle.locate import Running
from labctl.providers.base import SealedError
from labctl.providers.workers import Stop, each, raise_failures

_SECONDS = 60.0
_JOBS = 8
# /run is a tmpfs on every Linux with systemd; the other one has to be on the disk before the machine stands still.
_LEAVE = """\
mkdir -p /run/labctl /var/lib/labctl &&
echo "$1" >/run/labctl/checkpoint && echo "$1" >/var/lib/labctl/checkpoint && sync /var/lib/labctl/checkpoint
"""
# The clock first: what comes after may depend on it. The disk is read past the page cache, which is memory.
_LOOK = """\
date -u -s "@$1" >/dev/null
cat /run/labctl/checkpoint
dd if=/var/lib/labctl/checkpoint iflag=direct bs=4096 count=1 2>/dev/null || cat /var/lib/labctl/checkpoint
"""


def leave(lab: Running, machines: Iterable[str], mark: str) -> tuple[str, ...]:
    """Leave a mark in running guests, over the one that is there. Gives those that took it.

    A guest without a shell, or one that labctl cannot reach, such as a sealed one on VirtualBox, takes none.
    """
    took: list[str] = []

    def one(name: str) -> None:
        if lab.provider.execute(lab.plan, name, ["sh", "-c", _LEAVE, "labctl", mark], timeout=_SECONDS).code == 0:
            took.append(name)

    each([name for name in machines if lab.plan.machine(name).os == "linux"], one, jobs=_JOBS, stop=Stop())
    return tuple(sorted(took))


def look(lab: Running, machines: Iterable[str], mark: str) -> tuple[str, ...]:
    """Set the clocks of restored guests right, and find the mark in each. Gives those that nothing leads into.

    Raises GuestError naming those without the mark.
    """
    closed: list[str] = []

    def one(name: str) -> None:
        argv = ["sh", "-c", _LOOK, "labctl", f"{time.time():.3f}"]
        try:
            found = lab.provider.execute(lab.plan, name, argv, timeout=_SECONDS)
        except SealedError:
            closed.append(name)
            return
        memory, _, disk = found.stdout.decode(errors="replace").strip().partition("\n")
        wrong = [place for place, text in (("memory", memory), ("disk", disk)) if text.strip() != mark]
        if wrong:
            raise GuestError(f"{name} was not restored: its {' and '.join(wrong)} hold another state")

    names = list(machines)
    failures = each(names, one, jobs=_JOBS, stop=Stop())
    try:
        raise_failures(failures, len(names))
    except LabctlError as error:
        hint = "Restore it again; labctl logs [LAB] MACHINE shows what the machine says."
        raise GuestError(error.brief, details=error.details, hint=hint) from error
    return tuple(closed)
