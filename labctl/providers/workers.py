"""Work on several machines at once: waves in order, one failure does not stop the others, Ctrl-C stops them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from labctl.errors import GuestError, LabctlError, ProviderError
from labctl.events import Event, Listener
from labctl.plan.model import LabPlan


class CancelledError(Exception):
    """Work was given up because labctl was interrupted."""


class Stop:
    """Says to all workers that they should end soon."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def __call__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises CancelledError once the stop was called."""
        if self._event.is_set():
            raise CancelledError


def each(names: Sequence[str], work: Callable[[str], None], *, jobs: int, stop: Stop) -> Mapping[str, LabctlError]:
    """Do ``work`` for every name, ``jobs`` at a time. Gives the failures by name.

    A KeyboardInterrupt, or an error that is no LabctlError, stops the others at their next wait and is raised when all
    have ended.
    """
    if not names:
        return {}
    failures: dict[str, LabctlError] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, min(jobs, len(names))), thread_name_prefix="labctl")
    futures: dict[Future[None], str] = {pool.submit(work, name): name for name in names}
    try:
        left = set(futures)
        while left:
            done, left = wait(left, timeout=0.2)  # short waits, so that Ctrl-C is seen
            for future in done:
                try:
                    future.result()
                except LabctlError as error:
                    failures[futures[future]] = error
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failures


def in_waves(
    plan: LabPlan, work: Callable[[str], None], *, jobs: int, stop: Stop, listener: Listener
) -> Mapping[str, LabctlError]:
    """Do ``work`` for every machine, those that others depend on first. Gives the failures by name.

    What depends on a machine that failed is skipped, which ``listener`` is told; the others go on.
    """
    failures: dict[str, LabctlError] = {}
    lost: set[str] = set()
    for wave in plan.waves:
        ready = []
        for name in wave:
            blockers = sorted(lost & set(plan.machine(name).depends_on))
            if blockers:
                lost.add(name)
                listener(Event("skipped", "boot", name, f"it depends on {', '.join(blockers)}, which failed"))
            else:
                ready.append(name)
        failures |= each(ready, work, jobs=jobs, stop=stop)
        lost |= set(failures)
    return failures


def raise_failures(failures: Mapping[str, LabctlError], total: int) -> None:
    """Raise what went wrong as one error: a single one as it is, several in one that has them all."""
    if not failures:
        return
    if len(failures) == 1:
        raise next(iter(failures.values()))
    guests = all(isinstance(error, GuestError) for error in failures.values())
    details = "\n\n".join(
        "\n".join(part for part in (error.brief, error.details) if part) for error in failures.values()
    )
    hints = dict.fromkeys(error.hint for error in failures.values() if error.hint)
    raise (GuestError if guests else ProviderError)(
        f"{len(failures)} of {total} machines failed: {', '.join(sorted(failures))}",
        details=details,
        hint=" ".join(hints),
    )
