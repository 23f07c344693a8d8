"""Whose instances a verb is about: what the class file says, what exists, and what the user picked of both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import LabctlError, UsageError
from labctl.spec.classfile import ClassSpec, Seat
from labctl.spec.problems import nearest
from labctl.state.record import InstanceFolder, Record, instances

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?\Z")
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A seat of a class, or an instance of it whose student is on the roster no more.

    folder: where the instance is, None where there is none yet. record: None also where it cannot be read.
    """

    instance: str
    seat: Seat | None
    folder: InstanceFolder | None
    record: Record | None

    @property
    def people(self) -> str:
        """Who sits there, for people."""
        return self.seat.people if self.seat is not None else "no longer on the roster"


def places(spec: ClassSpec) -> tuple[Place, ...]:
    """Every seat in the order of the roster, then instances that nobody on it has any more.

    The lab's file is not read: a class whose lab has been broken since can still be stopped.
    """
    ours = {folder.instance: (folder, record) for folder, record in _instances(spec)}
    seated = [Place(seat.instance, seat, *ours.pop(seat.instance, (None, None))) for seat in spec.seats]
    return (*seated, *(Place(name, None, folder, record) for name, (folder, record) in sorted(ours.items())))


def pick(spec: ClassSpec, there: Sequence[Place], only: Sequence[str]) -> tuple[Place, ...]:
    """The places that ``--only`` names, in their order; all where it names none.

    Words are separated by commas: an id (which means the team's instance for who is in one), a team, or a place in the
    class, counted from 1, such as ``1-10``. Raises UsageError.
    """
    words = [word.strip() for part in only for word in part.split(",") if word.strip()]
    if only and not words:
        raise UsageError("--only names nobody", hint="Such as --only s01,s02 or --only 1-10 or --only team-a.")
    by_word = {place.instance: place for place in there}
    for place in there:
        by_word |= {student.id: place for student in (place.seat.students if place.seat else ())}
    wanted: set[str] = set()
    for word in words:
        if word in by_word:
            wanted.add(by_word[word].instance)
        elif found := _RANGE.match(word):
            wanted |= {place.instance for place in _counted(spec, there, word, found)}
        else:
            raise UsageError(
                f"{spec.name} has nobody called {word!r}", hint=_hint(word, list(by_word), len(spec.seats))
            )
    return tuple(place for place in there if not words or place.instance in wanted)


def _counted(spec: ClassSpec, there: Sequence[Place], word: str, found: re.Match[str]) -> Sequence[Place]:
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last <= len(spec.seats):
        raise UsageError(f"{word} is no range of this class", hint=f"Its seats are 1-{len(spec.seats)}.")
    return there[first - 1 : last]


def _hint(word: str, known: list[str], seats: int) -> str:
    close = nearest(word, known)
    shown = ", ".join(known[:_SHOWN]) + (f" … ({len(known)} in all)" if len(known) > _SHOWN else "")
    return f"{f'Did you mean {close}? ' if close else ''}Ids and teams: {shown}. Places: 1-{seats}."


def _instances(spec: ClassSpec) -> list[tuple[InstanceFolder, Record | None]]:
    """Instances of the class's lab with the class's mark; of those whose record cannot be read, its students'."""
    lab, names = spec.lab.resolve(), {seat.instance for seat in spec.seats}
    found: list[tuple[InstanceFolder, Record | None]] = []
    for folder in instances():
        try:
            record = folder.record()
        except LabctlError:
            if folder.instance in names and _lab_of(folder, found):
                found.append((folder, None))
            continue
        if record is not None and record.owner == spec.name and Path(record.spec_file).resolve() == lab:
            found.append((folder, record))
    return found


def _lab_of(folder: InstanceFolder, found: Sequence[tuple[InstanceFolder, Record | None]]) -> bool:
    return any(other.lab == folder.lab for other, _ in found)
