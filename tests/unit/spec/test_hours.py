"""Opening hours: weeks, nights, time zones and the days on which clocks are changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from labctl.spec.hours import Hours

pytestmark = pytest.mark.unit

WEEK: list[dict[str, Any]] = [
    {"days": ["mon", "wed"], "from": "08:00", "to": "12:30"},
    {"days": ["mon"], "from": "12:30", "to": "18:00"},
    {"days": ["fri"], "from": "22:00", "to": "02:00"},
]
BERLIN = Hours.of({"timezone": "Europe/Berlin", "open": WEEK})


def at(text: str) -> float:
    """A moment, such as ``2026-11-30 08:00 +0100``: a Monday."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M %z").timestamp()


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-30 07:59 +0100", False),
        ("2026-11-30 08:00 +0100", True),
        ("2026-11-30 06:59 +0000", False),
        ("2026-11-30 07:00 +0000", True),
        ("2026-11-30 12:30 +0100", True),
        ("2026-11-30 17:59 +0100", True),
        ("2026-11-30 18:00 +0100", False),
        ("2026-12-01 10:00 +0100", False),
        ("2026-12-02 12:29 +0100", True),
        ("2026-12-02 12:30 +0100", False),
        ("2026-12-04 23:00 +0100", True),
        ("2026-12-05 01:59 +0100", True),
        ("2026-12-05 02:00 +0100", False),
        ("2026-12-04 01:00 +0100", False),
        ("2026-07-06 08:00 +0200", True),
        ("2026-07-06 07:30 +0200", False),
    ],
)
def test_it_is_open_from_the_first_minute_to_before_the_last(moment: str, is_open: bool) -> None:
    assert BERLIN.is_open(at(moment)) is is_open


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        ("2026-11-30 07:00 +0100", "2026-11-30 08:00 +0100"),
        ("2026-11-30 18:00 +0100", "2026-12-02 08:00 +0100"),
        ("2026-12-05 02:00 +0100", "2026-12-07 08:00 +0100"),
        ("2026-03-28 02:00 +0100", "2026-03-30 08:00 +0200"),  # clocks go forward in between
    ],
)
def test_when_it_opens_next(moment: str, opens: str) -> None:
    assert BERLIN.opens(at(moment)) == at(opens)


def test_it_closes_after_all_that_follows_without_a_gap() -> None:
    assert BERLIN.closes(at("2026-11-30 09:00 +0100")) == at("2026-11-30 18:00 +0100")
    assert BERLIN.closes(at("2026-12-02 09:00 +0100")) == at("2026-12-02 12:30 +0100")
    assert BERLIN.closes(at("2026-12-05 01:00 +0100")) == at("2026-12-05 02:00 +0100")
    closed = at("2026-12-01 09:00 +0100")
    assert BERLIN.closes(closed) == closed


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-29", 24)])
def test_a_whole_day_is_as_long_as_the_day(day: str, hours: int) -> None:
    sunday = Hours.of({"timezone": "Europe/Berlin", "open": [{"days": ["sun"], "from": "00:00", "to": "24:00"}]})
    before = at(f"{day} 00:00 +0000") - 12 * 3600
    opens = sunday.opens(before)
    assert sunday.closes(opens) - opens == hours * 3600


def test_always_open_never_opens_and_closes_later_than_anybody_asks() -> None:
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    always = Hours.of({"open": [{"days": days, "from": "00:00", "to": "24:00"}]})
    now = time.time()
    assert always.is_open(now)
    assert always.closes(now) > now + 7 * 86400


def test_once_a_week_has_a_next_time_also_in_its_last_minute() -> None:
    once = Hours.of({"timezone": "UTC", "open": [{"days": ["mon"], "from": "00:00", "to": "00:01"}]})
    assert once.opens(at("2026-11-30 00:00 +0000")) == at("2026-12-07 00:00 +0000")
    assert once.opens(at("2026-11-30 00:01 +0000")) == at("2026-12-07 00:00 +0000")


@pytest.fixture
def tokyo() -> Iterator[None]:
    """A host that is in Japan."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    del os.environ["TZ"]
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_without_a_time_zone_it_is_the_hosts() -> None:
    hours = Hours.of({"open": WEEK})
    assert hours.is_open(at("2026-11-30 08:00 +0900"))
    assert not hours.is_open(at("2026-11-30 12:00 +0100"))
    assert hours.told(at("2026-11-30 08:00 +0900")) == "Mon 30 Nov 08:00 (the time of this host)"
    assert BERLIN.told(at("2026-11-30 08:00 +0100")) == "Mon 30 Nov 08:00 (Europe/Berlin)"
