"""How many instances of a lab fit on this host beside what runs, and what each costs. Pure: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from labctl.host.room import Room
from labctl.lifecycle import capacity
from labctl.providers.base import ENGINE_MEMORY, Footprint

Needs = Mapping[str, Footprint]
"""Machine to what its start takes, of one instance; machines that run already are left out."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the class file and the host allow. instances, memory (bytes): what is left of the class's own limits, None
    for no limit. ports: of the loopback that are free. files: that labctl needs open for one instance it works on."""

    room: Room
    jobs: int
    ports: int
    instances: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that instances take. each: of the first instance that is to be started, alone; what machines share is
    in it. needed: of all that are to be started. fits: how many of them, in their order, there is enough for.

    in_bytes: else a count. refuses: instances beyond it are not started; otherwise it is said and no more.
    """

    what: str
    each: int
    needed: int
    there: int
    fits: int
    in_bytes: bool = False
    refuses: bool = True

    @property
    def short(self) -> bool:
        """Whether there is too little of it."""
        return self.needed > self.there

    def shown(self, value: int) -> str:
        """A value of it for people."""
        return capacity.size(value) if self.in_bytes else str(value)


@dataclass(frozen=True, slots=True)
class Estimate:
    """All that is counted. starts: instances that have to be started, wholly or in part. fits: how many of them may."""

    starts: int
    resources: tuple[Resource, ...]

    @property
    def fits(self) -> int:
        return min((one.fits for one in self.resources if one.refuses), default=self.starts)

    @property
    def short(self) -> tuple[Resource, ...]:
        """What there is too little of, and refuses."""
        return tuple(one for one in self.resources if one.refuses and one.short)

    @property
    def notes(self) -> tuple[str, ...]:
        """What may become short although everything can be started, for people."""
        return tuple(
            f"{one.what}: {one.shown(one.needed)} wanted, {one.shown(one.there)} there"
            for one in self.resources
            if not one.refuses and one.short
        )


def estimate(needs: Sequence[Needs], bounds: Bounds) -> Estimate:
    """What starting these takes. needs: per instance, in the order of the roster; those with nothing to start too."""
    starts = [one for one in needs if one]
    room = bounds.room
    resources = (
        _counted("memory", starts, _memory, room.memory, in_bytes=True),
        _counted("memory that the class may take", starts, _own_memory, bounds.memory, in_bytes=True),
        _counted("disk", starts, _disk, room.disk, in_bytes=True),
        _counted("processes and threads", starts, _processes, room.processes),
        _counted("ports of the loopback", starts, lambda part: len(_all(part)), bounds.ports),
        _counted("open files (ulimit -n)", starts, lambda part: _files(part, bounds.jobs), room.files),
        _counted("instances that the class may have", starts, len, bounds.instances),
        _counted("disk with what `class reset` goes back to", starts, _disk_fresh, room.disk, in_bytes=True, soft=True),
        _counted("memory once machines are used", starts, _most, room.memory, in_bytes=True, soft=True),
    )
    return Estimate(len(starts), tuple(one for one in resources if one is not None))


def _counted(
    what: str,
    needs: Sequence[Needs],
    cost: Callable[[Sequence[Needs]], int],
    there: int | None,
    *,
    in_bytes: bool = False,
    soft: bool = False,
) -> Resource | None:
    """there: None where no limit is known. soft: being short of it refuses nothing."""
    if there is None:
        return None
    fits = _most_that_fit(needs, cost, there)
    return Resource(what, cost(needs[:1]), cost(needs), there, fits, in_bytes, refuses=not soft)


def _most_that_fit(needs: Sequence[Needs], cost: Callable[[Sequence[Needs]], int], there: int) -> int:
    """How many of the first instances cost no more than there is: costs only grow."""
    low, high = 0, len(needs)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(needs[:middle]) <= there else (low, middle - 1)
    return low


def _all(needs: Sequence[Needs]) -> dict[str, Footprint]:
    return {f"{number}/{name}": one for number, part in enumerate(needs) for name, one in part.items()}


def _own_memory(needs: Sequence[Needs]) -> int:
    return capacity.total("memory", _all(needs))


def _processes(needs: Sequence[Needs]) -> int:
    return capacity.total("processes", _all(needs))


def _memory(needs: Sequence[Needs]) -> int:
    return _own_memory(needs) + capacity.MEMORY_LEFT if needs else 0


def _disk(needs: Sequence[Needs]) -> int:
    return capacity.total("disk", _all(needs)) + capacity.DISK_LEFT if needs else 0


def _disk_fresh(needs: Sequence[Needs]) -> int:
    """A checkpoint takes at most what its machines have of memory."""
    kept = sum(max(0, one.most_memory - ENGINE_MEMORY) for part in needs for one in part.values())
    return _disk(needs) + kept


def _most(needs: Sequence[Needs]) -> int:
    return sum(one.most_memory for part in needs for one in part.values())


def _files(needs: Sequence[Needs], jobs: int) -> int:
    """labctl has connections to the machines of as many instances as it works on at once, the largest at worst."""
    sizes = sorted((len(part) for part in needs), reverse=True)[:jobs]
    return capacity.FILES + capacity.FILES_PER_MACHINE * sum(sizes) if sizes else 0
