"""Whether a lab fits on this host, before anything of it is started: numbers in, what is short and why out.

All of it is pure but ``check``, which looks at the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labctl.errors import HostError
from labctl.events import Event, Listener
from labctl.host import ports
from labctl.host.room import Room, room
from labctl.lifecycle.locate import Running
from labctl.plan.diff import Action
from labctl.providers.base import BootImage, Footprint, Observed

# For labctl itself and the rest of the host; a host without any memory left ends processes of its own choice.
MEMORY_LEFT = 64 << 20
DISK_LEFT = 256 << 20
# labctl holds a few connections to every machine at the same time when it makes all of them stand still.
FILES, FILES_PER_MACHINE = 64, 4
# Where labctl logs in.
PORTS_PER_MACHINE = 1
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Shortage:
    """Something a host has too little of. needed, there: bytes, or a count. drop: machines without which it fits."""

    what: str
    needed: int
    there: int
    drop: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for people."""
        needed, there = (size(self.needed), size(self.there)) if self.what in _IN_BYTES else (self.needed, self.there)
        return f"{self.what}: {needed} needed, {there} free"


_IN_BYTES = ("memory", "disk")


def shortages(
    needs: Mapping[str, Footprint], room: Room, *, running: int = 0, free_ports: int | None = None
) -> tuple[Shortage, ...]:
    """What is short where these machines are started beside what runs already.

    needs: by machine, in the order of the plan. running: machines of the same instance that run. free_ports: of the
    loopback, as many as are needed or all that there are; None for no limit.
    """
    found = (
        _short("memory", needs, room.memory, MEMORY_LEFT),
        _short("disk", needs, room.disk, DISK_LEFT),
        _short("processes and threads", needs, room.processes, 0),
        _short_of(
            "open files (ulimit -n)",
            needs,
            room.files,
            each=FILES_PER_MACHINE,
            beside=FILES + FILES_PER_MACHINE * running,
        ),
        _short_of("ports of the loopback", needs, free_ports, each=PORTS_PER_MACHINE),
    )
    return tuple(one for one in found if one is not None)


def later(needs: Mapping[str, Footprint], room: Room) -> str:
    """What may become short although everything can be started, for people; ``""`` where nothing may."""
    most = sum(one.most_memory for one in needs.values())
    if room.memory is None or most <= room.memory:
        return ""
    return (
        f"machines that are used or reset take up to {size(most)} of memory in all; this host has {size(room.memory)}"
    )


def refuse(short: Sequence[Shortage], count: int) -> HostError:
    """The error that says all of it. count: machines that were to be started."""
    drop = max((one.drop for one in short), key=len)
    shown = ", ".join(drop[:_NAMES_SHOWN]) + (" …" if len(drop) > _NAMES_SHOWN else "")
    fits = f"It fits without {len(drop)} of them ({shown})" if len(drop) < count else "Not even one of them fits"
    brief = f"{count} machine{'s do' if count > 1 else ' does'} not fit on this host"
    return HostError(
        brief,
        details="\n".join(one.text for one in short),
        hint=f"Nothing was started. {fits}; or give machines less, or stop another lab (labctl list). "
        "--force starts it all the same.",
    )


def check(
    lab: Running,
    actions: Mapping[str, Action],
    images: Mapping[str, BootImage],
    observed: Observed,
    *,
    force: bool,
    listener: Listener,
) -> None:
    """Refuse machines that this host has no room for, or with ``force`` say so. Raises HostError."""
    running = {status.name for status in observed.machines if status.state in ("running", "paused")}
    needs = {}
    for machine in lab.plan.machines:
        if machine.name not in running:
            # only one that is made anew may be a copy of another; one that was there boots
            image = images.get(machine.name) if actions.get(machine.name) in ("create", "replace") else None
            needs[machine.name] = lab.provider.footprint(lab.plan, machine, image)
    if not needs:
        return
    there = room(lab.folder.path)
    free_ports = ports.count_free(PORTS_PER_MACHINE * len(needs))
    short = shortages(needs, there, running=len(running), free_ports=free_ports)
    if short and not force:
        raise refuse(short, len(needs))
    if said := "; ".join(one.text for one in short) or later(needs, there):
        listener(Event("warning", "room", message=said))


def size(value: int) -> str:
    """Bytes for people."""
    return f"{value / (1 << 30):.1f} GiB" if value >= 10 << 30 else f"{-(-value // (1 << 20))} MiB"


def _short(what: str, needs: Mapping[str, Footprint], there: int | None, left: int) -> Shortage | None:
    if there is None or not needs:
        return None
    needed = total(what, needs) + left
    if needed <= there:
        return None
    kept = dict(needs)
    dropped: list[str] = []
    while kept and total(what, kept) + left > there:
        # the largest first, so that as few as can be have to go; of equal ones the last
        worst = max(reversed(kept), key=lambda name: _own(what, needs[name]))
        dropped.append(worst)
        del kept[worst]
    return Shortage(what, needed, there, tuple(dropped))


def _short_of(
    what: str, needs: Mapping[str, Footprint], there: int | None, *, each: int, beside: int = 0
) -> Shortage | None:
    """Of what every machine takes equally much, so that the last ones are dropped. beside: taken in any case."""
    needed = beside + each * len(needs)
    if there is None or not needs or needed <= there:
        return None
    too_many = -(-(needed - there) // each)
    return Shortage(what, needed, there, tuple(list(needs)[::-1][:too_many]))


def total(what: str, needs: Mapping[str, Footprint]) -> int:
    """What machines take together of memory or disk in bytes, or of processes; what several share counts once."""
    own = sum(_own(what, one) for one in needs.values())
    shared = {one.shared: one.shared_memory for one in needs.values() if one.shared} if what == "memory" else {}
    return own + sum(shared.values())


def _own(what: str, one: Footprint) -> int:
    return {"memory": one.memory, "disk": one.disk}.get(what, one.processes)
