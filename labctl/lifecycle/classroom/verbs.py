"""The verbs of a class. Each works on the places it is given, side by side, and gives one result for each of them."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from labctl.errors import BusyError, HostError, LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.host.room import free_bytes
from labctl.lifecycle import capacity, converge, fresh, inspect, pins, teardown
from labctl.lifecycle.classroom import door, key, tidying, work
from labctl.lifecycle.classroom.seats import Place
from labctl.lifecycle.classroom.survey import Intent, refusal, survey
from labctl.lifecycle.classroom.work import Done, Result
from labctl.lifecycle.locate import Draft, Running, running
from labctl.spec.classfile import ClassSpec
from labctl.spec.load import load
from labctl.spec.problems import choices
from labctl.state.lock import class_locked

if TYPE_CHECKING:
    from labctl.lifecycle.checking import Choice

LOOK_JOBS = 8


def up(
    spec: ClassSpec,
    chosen: Sequence[Place],
    *,
    provider: str | None = None,
    jobs: int,
    only_locked: bool = False,
    force: bool = False,
    keep_fresh: bool = True,
    anyway: bool = False,
    listener: Listener = ignore,
) -> tuple[Result, ...]:
    """Make every chosen instance what the lab's file says. Safe to repeat after any interruption.

    What ``tidy`` has stopped goes on as it was. anyway: although the class is closed, which raises LabctlError else.
    Raises BusyError where another labctl brings this class up, HostError where it does not fit, before anything is
    started; and what is wrong with all of them: SpecError, UsageError, ImageError.
    """
    now = time.time()
    if not anyway:
        tidying.check_open(spec, now)
    with class_locked(spec.name):
        if load(spec.lab).secrets:
            key.make(spec)
        found = survey(spec, chosen, provider=provider, jobs=jobs, listener=listener, count_ports=False)
        _images(found.intents, only_locked, listener)
        if found.images_missing:  # what machines share is known only now
            found = survey(spec, chosen, provider=provider, jobs=jobs, count_ports=False)
        if found.estimate.short and not force:
            raise refusal(found, spec)
        for note in found.estimate.notes:
            listener(Event("warning", "room", message=note))
        ready = {intent.place.instance: intent for intent in found.intents}

        def part(place: Place, heard: Listener) -> Done:
            intent = ready[place.instance]
            if intent.error is not None or intent.draft is None:
                raise intent.error or UsageError(f"{place.instance} is no longer on the roster")
            resumed = tidying.resume(intent.draft.folder, heard)
            done = _up(intent.draft, only_locked, force, keep_fresh, heard)
            tidying.spare(spec, intent.draft.folder, now)
            return replace(done, did="as it was left") if resumed else done

        listed = [place for place in chosen if place.instance in ready]
        if any(i.draft is not None and i.draft.backend.name == "virtualbox" for i in found.intents):
            jobs = 1  # imports of one box at the same time collide (Vagrant #9447)
        results = work.each(listed, part, verb="up", jobs=jobs, listener=listener)
        door.renew(spec, listener)
        return results


def _images(intents: Sequence[Intent], only_locked: bool, listener: Listener) -> None:
    """Make the images first, once and for all: every instance starts from the same ones."""
    draft = next((intent.draft for intent in intents if intent.draft is not None), None)
    if draft is not None and any(intent.needs for intent in intents):
        choice = pins.choose(draft, listener, only_locked=only_locked)
        converge.boot_images(draft.plan, draft.backend.images, listener, choice.images)


def _up(draft: Draft, only_locked: bool, force: bool, keep_fresh: bool, heard: Listener) -> Done:
    new = draft.record is None

    def once(event: Event) -> None:
        if event.step != "lock":  # said of all of them already
            heard(event)

    try:
        outcome = converge.up(draft, listener=once, only_locked=only_locked, force=force, keep_fresh=keep_fresh)
    except LabctlError as error:
        if new and _no_room(error, draft) and _half_made(draft):
            # What the host has no room for is not left half made: it would take what the others need.
            teardown.destroy(draft.folder)
        raise
    did = "nothing had to change" if outcome.unchanged else "made" if new else "mended"
    return Done(did, {"changes": outcome.changes, "started": outcome.started})


def _no_room(error: LabctlError, draft: Draft) -> bool:
    if isinstance(error, UsageError | BusyError):  # refused before anything was made
        return False
    free = free_bytes(draft.folder.path)
    return isinstance(error, HostError) or (free is not None and free < capacity.DISK_LEFT)


def _half_made(draft: Draft) -> bool:
    """Whether what is there now is this ``up``'s own beginning: somebody may have made it by hand meanwhile."""
    record = draft.folder.record()
    return record is not None and record.owner == draft.owner and record.phase == "changing"


def down(
    chosen: Sequence[Place], *, machines: Sequence[str] = (), jobs: int, listener: Listener = ignore
) -> tuple[Result, ...]:
    """Stop machines of the chosen instances; all of them unless some are named."""

    def part(place: Place, heard: Listener) -> Done:
        stopped = teardown.down(_running(place, heard), machines)
        return Done("stopped" if stopped else "was down", {"stopped": stopped})

    return work.each(existing(chosen), part, verb="down", jobs=jobs, listener=listener)


def tidy(
    spec: ClassSpec, chosen: Sequence[Place], *, dry_run: bool = False, jobs: int, listener: Listener = ignore
) -> tuple[Result, ...]:
    """Stop instances that nobody uses, or that run while the class is closed, and keep their state."""
    return tidying.tidy(spec, existing(chosen), time.time(), dry_run=dry_run, jobs=jobs, listener=listener)


def reset(chosen: Sequence[Place], *, jobs: int, listener: Listener = ignore) -> tuple[Result, ...]:
    """Put the chosen instances back to how ``up`` made them."""

    def part(place: Place, heard: Listener) -> Done:
        restored = fresh.reset(_running(place, heard), listener=heard)
        return Done("as new", {"checkpoint": restored.name, "behind": inspect.behind(_running(place, heard))})

    return work.each(existing(chosen), part, verb="reset", jobs=jobs, listener=listener)


def destroy(chosen: Sequence[Place], *, jobs: int, listener: Listener = ignore) -> tuple[Result, ...]:
    """Remove the chosen instances with all that is theirs."""

    def part(place: Place, heard: Listener) -> Done:
        if place.folder is not None:
            teardown.destroy(place.folder, listener=heard)
        return Done("removed")

    return work.each(existing(chosen), part, verb="destroy", jobs=jobs, listener=listener)


def status(chosen: Sequence[Place]) -> tuple[Result, ...]:
    """Look at every chosen instance. facts: ``status``, a LabStatus, where there is one."""

    def part(place: Place, heard: Listener) -> Done:
        if place.folder is None:
            return Done("not made")
        now = inspect.status(_running(place, heard))
        return Done(now.summary, {"status": now})

    return work.each(chosen, part, verb="status", jobs=LOOK_JOBS, listener=ignore, quiet=True)


def verify(
    chosen: Sequence[Place],
    *,
    checks: Choice,
    report: Path | None = None,
    jobs: int,
    listener: Listener = ignore,
) -> tuple[Result, ...]:
    """Prove the isolation of each of the chosen instances. facts: ``verdict`` and how many flows had which.

    report: a folder that gets one with the reports of each instance.
    """
    from labctl.lifecycle import proof  # half a second, for this verb alone

    def part(place: Place, heard: Listener) -> Done:
        proven = proof.prove(_running(place, heard), checks=checks, listener=heard)
        where = proof.write(proven, report / place.instance) if report is not None else (proven.path,)
        verdict, counts = proven.report.verdict.value, proven.report.summary
        facts = {"verdict": verdict, "summary": {word.value: count for word, count in counts.items()}}
        return Done(verdict, {**facts, "reports": [str(path) for path in where]})

    return work.each(existing(chosen), part, verb="verify", jobs=jobs, listener=listener)


def score(chosen: Sequence[Place], *, choice: Choice, jobs: int, listener: Listener = ignore) -> tuple[Result, ...]:
    """Count the points of each of the chosen instances. facts: ``score``, a Score."""
    from labctl.lifecycle import scoring  # as in verify

    def part(place: Place, heard: Listener) -> Done:
        found = scoring.score(_running(place, heard), choice, listener=heard)
        return Done(f"{found.earned:g} of {found.possible:g} points", {"score": found})

    return work.each(existing(chosen), part, verb="score", jobs=jobs, listener=listener)


def sample(chosen: Sequence[Place], count: int, seed: int | None = None) -> tuple[Place, ...]:
    """Some of the chosen instances that exist, picked by chance, in their order. seed: gives the same ones again."""
    there = existing(chosen)
    picked = random.Random(seed).sample(range(len(there)), min(count, len(there)))  # noqa: S311 - no secret is made
    return tuple(there[index] for index in sorted(picked))


def existing(chosen: Sequence[Place]) -> tuple[Place, ...]:
    """Those of the chosen that have an instance."""
    return tuple(place for place in chosen if place.folder is not None)


def on_roster(chosen: Sequence[Place]) -> tuple[Place, ...]:
    """Those of the chosen that somebody on the roster has."""
    return tuple(place for place in chosen if place.seat is not None)


def was_up(chosen: Sequence[Place]) -> tuple[Place, ...]:
    """Those that labctl left up, or was changing, when it last worked on them: what a host that restarts has lost."""
    return tuple(place for place in chosen if place.record is not None and place.record.phase in ("up", "changing"))


def check_machines(chosen: Sequence[Place], machines: Sequence[str]) -> None:
    """Raises UsageError for a machine that none of the chosen instances has."""
    known: set[str] = set()
    for place in existing(chosen):
        try:
            known |= {machine.name for machine in _running(place, ignore).plan.machines}
        except LabctlError:
            continue  # the verb itself says what is wrong with it
    unknown = sorted(set(machines) - known) if known else []
    if unknown:
        raise UsageError(
            f"no instance has a machine called {', '.join(unknown)}", hint=choices("Machines", sorted(known), *unknown)
        )


def _running(place: Place, heard: Listener) -> Running:
    if place.folder is None:
        raise UsageError(f"{place.instance} has no instance", hint="labctl class up makes it.")
    return running(place.folder, listener=heard)
