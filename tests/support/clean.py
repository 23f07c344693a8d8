"""Labs in which nothing is wrong, verified over and over: whatever is found in them is a false alarm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.support import score
from tests.support.command import Labctl

_RUNS = int(os.environ.get("LABCTL_CLEAN_RUNS", "0"))  # `make test-leaks` verifies each shipped lab 5 times at least


def verified_over_and_over(
    labctl: Labctl, lab: Path, record_property: Callable[[str, object], None], *, runs: int = 1
) -> None:
    """Verify a running lab so often, its own checks left out, and count the runs that found nothing."""
    alarms = []
    for _ in range(max(runs, _RUNS)):
        with labctl.start("verify", str(lab), "--json", "--quiet", "--no-checks") as process:
            out, err = process.communicate(timeout=280)
        record_property(score.CLEAN, process.returncode == 0)
        if process.returncode != 0:
            alarms.append(_alarm(out) or err.decode())
    assert alarms == []


def _alarm(report: bytes) -> str:
    """What a report says beside PASS."""
    try:
        found = json.loads(report)
    except ValueError:
        return ""
    everything = (*found["flows"], *found["host_evidence"])
    return "\n".join(str(one) for one in everything if one["verdict"] != "PASS")[:8000]
