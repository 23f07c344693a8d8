"""What happens while a lab changes, as values. Whoever shows progress listens; whoever works does not print."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["started", "progress", "done", "skipped", "failed", "warning"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    subject: a machine, network or image name, or ``""`` for the lab as a whole. step: the verb being done, such as
    ``boot`` or ``provision``. message: free text for people. seconds: how long a finished step took, else None.
    """

    status: Status
    step: str
    subject: str = ""
    message: str = ""
    seconds: float | None = None
    at: float = field(default_factory=time.time)


Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """A listener for callers that do not show progress."""
