"""The same verb for many instances at once: one that fails stops no other, an interruption stops all of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from labctl.errors import BusyError, ExitCode, LabctlError
from labctl.events import Event, Listener
from labctl.host.bugs import as_bug
from labctl.lifecycle.classroom.seats import Place
from labctl.providers.workers import CancelledError, Stop


@dataclass(frozen=True, slots=True)
class Result:
    """How a verb went for one instance. did: one word or a few for people. facts: more, for scripts."""

    place: Place
    did: str
    seconds: float
    error: LabctlError | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """What one instance's part of a verb gives: ``Result`` without its frame."""

    did: str
    facts: Mapping[str, Any] = field(default_factory=dict)


Part = Callable[[Place, Listener], Done]


def each(
    there: Sequence[Place], part: Part, *, verb: str, jobs: int, listener: Listener, quiet: bool = False
) -> tuple[Result, ...]:
    """Do ``part`` for every place, ``jobs`` at a time, in their order.

    What happens inside is passed on as progress of the instance, warnings and its end as such. quiet: only failures
    are. A KeyboardInterrupt stops the others at their next step and is raised when all have ended.
    """
    if not there:
        return ()
    stop, lock, ended = Stop(), threading.Lock(), itertools.count(1)

    def tell(event: Event) -> None:
        with lock:
            listener(event)

    def one(place: Place) -> Result:
        result = attempt(place)
        if not quiet:
            tell(Event("progress", verb, f"{len(there)} instances", f"{next(ended)} done"))
        return result

    def attempt(place: Place) -> Result:
        stop.check()
        began = time.monotonic()
        if not quiet:
            tell(Event("started", verb, place.instance))
        try:
            done = part(place, _inner(place.instance, verb, tell, stop))
        except LabctlError as error:
            tell(Event("failed", verb, place.instance, error.brief, time.monotonic() - began))
            return Result(place, "failed", time.monotonic() - began, error)
        except (CancelledError, KeyboardInterrupt):
            stop.set()
            raise
        except Exception as error:  # a bug of ours is one student's trouble too
            found = as_bug(error)
            tell(Event("failed", verb, place.instance, found.brief, time.monotonic() - began))
            return Result(place, "failed", time.monotonic() - began, found)
        if not quiet:
            tell(Event("done", verb, place.instance, done.did, time.monotonic() - began))
        return Result(place, done.did, time.monotonic() - began, None, done.facts)

    return _gathered([(place, one) for place in there], jobs, stop)


def worst(results: Sequence[Result]) -> ExitCode:
    """What the shell is told: busy only where nothing but another labctl was in the way."""
    errors = [result.error for result in results if result.error is not None]
    if not errors:
        return ExitCode.OK
    return ExitCode.BUSY if all(isinstance(error, BusyError) for error in errors) else ExitCode.ERROR


def _gathered(tasks: Sequence[tuple[Place, Callable[[Place], Result]]], jobs: int, stop: Stop) -> tuple[Result, ...]:
    pool = ThreadPoolExecutor(max_workers=max(1, min(jobs, len(tasks))), thread_name_prefix="labctl-class")
    futures: list[Future[Result]] = [pool.submit(task, place) for place, task in tasks]
    try:
        left = set(futures)
        while left:
            done, left = wait(left, timeout=0.2)  # short waits, so that Ctrl-C is seen
            for error in (future.exception() for future in done):
                if error is not None and not isinstance(error, CancelledError):  # those have a cause, which comes
                    raise error
        return tuple(future.result() for future in futures)
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _inner(instance: str, verb: str, tell: Listener, stop: Stop) -> Listener:
    """What listens inside an instance: whatever happens there is a step of the one line that it has."""

    def heard(event: Event) -> None:
        stop.check()
        where = f"{event.subject} " if event.subject else ""
        if event.status == "warning":
            tell(Event("warning", verb, instance, f"{where}{event.step}: {event.message}"))
        else:
            tell(Event("progress", verb, instance, f"{where}{event.step}"))

    return heard
