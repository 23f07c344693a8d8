"""How much of this host is left for machines: memory, disk, processes, open files."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# What systems without a limit write instead of one (cgroup v1).
_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Room:
    """What is left. memory and disk in bytes; processes counts threads too. None: no limit is known.

    files: how many one process may have open. disk: of the file system that holds the folder asked about.
    """

    memory: int | None
    disk: int | None
    processes: int | None
    files: int | None


def room(folder: Path) -> Room:
    """What is left here, for labctl and what it starts. folder: where the disks go; it need not exist yet."""
    import psutil  # costs more to import than most verbs take

    memory = _least(int(psutil.virtual_memory().available), group_left("memory"))
    return Room(memory, free_bytes(folder), _least(_processes(), group_left("pids")), _files())


def processors() -> int:
    """How many processors this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes(folder: Path) -> int | None:
    """Free bytes of the file system that holds a folder, which need not exist yet."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return shutil.disk_usage(there).free if there is not None else None


def group_left(what: str, *, own: Path = _OWN, root: Path = _CGROUPS) -> int | None:
    """What is left of a limit of this process's control groups and those above: ``memory`` in bytes, or ``pids``.

    None where there is no limit, and on systems without control groups. own: lines such as ``0::/user.slice`` (v2) or
    ``4:memory:/x`` (v1).
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    left: int | None = None
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers == "":
            top, limit, used = root, f"{what}.max", f"{what}.current"
        elif what in controllers.split(","):
            top = root / what
            limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if what == "memory" else _V1_PIDS
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            left = _least(left, _left_in(top.joinpath(*parts[:depth]), limit, used, what))
    return left


_V1_PIDS = ("pids.max", "pids.current")


def _left_in(folder: Path, limit: str, used: str, what: str) -> int | None:
    most, now = _number(folder / limit), _number(folder / used)
    if most is None or now is None or most >= _UNLIMITED:
        return None
    # Pages of files that nobody has used lately are given back when memory is wanted.
    spare = _inactive(folder / "memory.stat") if what == "memory" else 0
    return max(0, most - now + spare)


def _inactive(statistics: Path) -> int:
    try:
        rows = dict(line.split(maxsplit=1) for line in statistics.read_text(encoding="utf-8").splitlines())
        return int(rows.get("total_inactive_file", rows.get("inactive_file", "0")))
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max" is no number
        return None


def _processes() -> int | None:
    """What the user may still start; nothing limits root."""
    try:
        import os
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        if limit == resource.RLIM_INFINITY or os.geteuid() == 0:
            return None
    except (ImportError, AttributeError, OSError):
        return None
    import psutil

    threads = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == os.getuid():
                threads += process.num_threads()
    return max(0, limit - threads)


def _files() -> int | None:
    try:
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except (ImportError, OSError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)
