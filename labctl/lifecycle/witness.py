"""Marks in guests by which a restored checkpoint is known again: one in memory, one on disk.

A snapshot that restores nothing and reports success exists in the field. So before a save each guest gets a mark, after
it another one, and a restore counts only when both places hold the first again. Then they get another one again: the
next restore has to bring the first back too.

Every program costs an emulated guest a tenth of a second, and a lab has many guests. So a mark is written over the one
that is there, without any program where the engine can do that, and else by a shell alone: the file on the disk is one
that the kernel writes through, so that nothing but the mark has to reach the disk, and no ``sync`` has to follow.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from labctl.errors import GuestError, LabctlError
from labctl.lifecycle.locate import Running
from labctl.providers.base import SealedError
from labctl.providers.clock import SET_CLOCK
from labctl.providers.marks import LAZY, MEMORY, ON_DISK, READY
from labctl.providers.workers import Stop, each, raise_failures

_SECONDS = 60.0
_JOBS = 8
_BEFORE = "/var/lib/labctl/checkpoint"  # where earlier releases left the mark on the disk
# What is longer than a mark may stay behind it on the next line.
_FOLDER = MEMORY.rpartition("/")[0]
_LEAVE = f"""\
[ -d {_FOLDER} ] || mkdir -p {_FOLDER} || exit 1
{READY} || exit 1
disk={ON_DISK}; [ -e "$disk" ] || disk={LAZY}
echo "$1" 1<>{MEMORY} && echo "$1" 1<>"$disk" || exit 1
"""
_NOW = f"[ ! -e {LAZY} ] || exec sync {LAZY}\n"
_SOON = f"[ ! -e {LAZY} ] || sync {LAZY} >/dev/null 2>&1 &\n"
# The clock first: what comes after may depend on it. The disk is read past the page cache, which is memory.
_LOOK = f"""\
now=$1
{SET_CLOCK}\
read -r memory <{MEMORY}; printf '%s\\n' "$memory"
for disk in {ON_DISK} {LAZY} {_BEFORE}; do [ ! -s "$disk" ] || break; done
dd "if=$disk" iflag=direct bs=4096 count=1 2>/dev/null || cat "$disk"
echo "$2" 1<>{MEMORY}; echo "$2" 1<>"$disk"
{_SOON}"""


def leave(lab: Running, machines: Iterable[str], mark: str, *, soon: bool = False) -> tuple[str, ...]:
    """Leave a mark in running guests, over the one that is there. Gives those that took it.

    It is on the disk when this returns, as it has to be before a save; soon: a moment later will do. A guest without a
    shell, or one that labctl cannot reach, such as a sealed one on VirtualBox, takes none.
    """
    took: list[str] = []
    script = _LEAVE + (_SOON if soon else _NOW)
    files = dict.fromkeys((MEMORY, ON_DISK), f"{mark}\n".encode())

    def one(name: str) -> None:
        provider, plan = lab.provider, lab.plan
        if (
            provider.write_over(plan, name, files)
            or provider.execute(plan, name, ["sh", "-c", script, "labctl", mark], timeout=_SECONDS).code == 0
        ):
            took.append(name)

    each([name for name in machines if lab.plan.machine(name).os == "linux"], one, jobs=_JOBS, stop=Stop())
    return tuple(sorted(took))


def replaced(mark: str) -> str:
    """What stands in the place of a mark while the guest is not in the state that it names."""
    return f"after {mark}"


def look(
    lab: Running, machines: Iterable[str], mark: str, places: Sequence[str] = ("memory", "disk")
) -> tuple[str, ...]:
    """Set the clocks of restored guests right, find the mark in each and replace it.

    places: where it has to be. Gives those that nothing leads into.
    Raises GuestError naming those without the mark.
    """
    closed: list[str] = []

    def one(name: str) -> None:
        argv = ["sh", "-c", _LOOK, "labctl", f"{time.time():.3f}", replaced(mark)]
        try:
            found = lab.provider.execute(lab.plan, name, argv, timeout=_SECONDS)
        except SealedError:
            closed.append(name)
            return
        memory, disk, *_ = [*found.stdout.decode(errors="replace").split("\n"), "", ""]
        wrong = [
            place for place, text in (("memory", memory), ("disk", disk)) if place in places and text.strip() != mark
        ]
        if wrong:
            raise GuestError(f"{name} was not restored: its {' and '.join(wrong)} hold another state")

    names = list(machines)
    failures = each(names, one, jobs=_JOBS, stop=Stop())
    try:
        raise_failures(failures, len(names))
    except LabctlError as error:
        hint = "labctl logs [LAB] MACHINE shows what the machine says."
        raise GuestError(error.brief, details=error.details, hint=hint) from error
    return tuple(closed)
