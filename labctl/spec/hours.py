"""Opening hours: spans of the week in a time zone. Moments are seconds since the epoch."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60  # minutes
_AHEAD = 9  # days that are looked at: a week, and a day at each end that a time zone may turn


@dataclass(frozen=True, slots=True)
class Period:
    """The same time of some days (0 is Monday). start, end: minutes since midnight; an end in the next day is later."""

    days: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hours:
    """When a class is open. timezone: an IANA name, ``""`` for this host's."""

    periods: tuple[Period, ...]
    timezone: str = ""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Hours:
        """From what a class file says, which passed its schema."""
        return cls(tuple(_period(entry) for entry in value["open"]), value.get("timezone", ""))

    def is_open(self, at: float) -> bool:
        """Whether a moment is in one of the spans."""
        return any(start <= at < end for start, end in self._spans(at))

    def opens(self, at: float) -> float:
        """The next beginning of a span after a moment."""
        return min(start for start, _ in self._spans(at) if start > at)

    def closes(self, at: float) -> float:
        """The end of the span that a moment is in, or of those that follow it without a gap; else the moment."""
        for start, end in sorted(self._spans(at)):
            if start <= at < end:
                at = end
        return at

    def told(self, at: float) -> str:
        """A moment for people, such as ``Mon 30 Nov 08:00 (Europe/Berlin)``."""
        return f"{datetime.fromtimestamp(at, self._zone):%a %d %b %H:%M} ({self.timezone or 'the time of this host'})"

    @property
    def _zone(self) -> zoneinfo.ZoneInfo | None:
        return zoneinfo.ZoneInfo(self.timezone) if self.timezone else None

    def _spans(self, at: float) -> Iterator[tuple[float, float]]:
        """Beginnings and ends from the day before a moment to more than a week after it."""
        zone = self._zone
        today = datetime.fromtimestamp(at, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        for number in range(-1, _AHEAD):
            day = today + timedelta(days=number)  # of the clock on the wall: days may have 23 hours
            for period in self.periods:
                if day.weekday() in period.days:
                    start, end = (day + timedelta(minutes=minutes) for minutes in (period.start, period.end))
                    yield start.timestamp(), end.timestamp()


def is_zone(name: str) -> bool:
    """Whether this host knows a time zone."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def zones() -> set[str]:
    """All that this host knows."""
    return zoneinfo.available_timezones()


def _period(entry: Mapping[str, Any]) -> Period:
    start, end = minutes(entry["from"]), minutes(entry["to"])
    return Period(tuple(DAYS.index(day) for day in entry["days"]), start, end if end > start else end + _DAY)


def minutes(text: str) -> int:
    """``08:30`` as minutes since midnight."""
    hour, _, minute = text.partition(":")
    return 60 * int(hour) + int(minute)
