"""How well leaks are found, counted over a whole test run and said in its summary."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

LEAK, CLEAN = "leak found", "clean lab undisturbed"
"""Names of the properties that tests record: each is true or false."""


def line(reports: Iterable[pytest.TestReport]) -> str:
    """``leaks found N/M, false alarms 0/K``; empty where no leak was planted and no clean lab verified."""
    seen: dict[str, list[bool]] = {LEAK: [], CLEAN: []}
    for report in reports:
        for name, value in report.user_properties:
            if name in seen and report.when == "call":
                seen[name].append(bool(value))
    found, clean = seen[LEAK], seen[CLEAN]
    if not found and not clean:
        return ""
    return f"leaks found {sum(found)}/{len(found)}, false alarms {len(clean) - sum(clean)}/{len(clean)}"
