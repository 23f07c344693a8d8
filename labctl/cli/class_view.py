"""How a class looks: its plan, its state, and how a verb went for everybody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labctl.cli.output import remark, say, say_json, table

if TYPE_CHECKING:
    from labctl.lifecycle.classroom.seats import Place
    from labctl.lifecycle.classroom.survey import Intent, Survey
    from labctl.lifecycle.classroom.work import Result
    from labctl.spec.classfile import ClassSpec

_CROWDED = 8  # processors asked of each one there is, from which on work is felt to be slow
_NAMES = 6


def to_json(result: Result) -> dict[str, Any]:
    """A result as scripts get it; the keys are stable."""
    error = result.error
    facts = {key: value for key, value in result.facts.items() if key != "status"}
    now = result.facts.get("status")
    if now is not None:
        facts |= {
            "sealed": now.sealed,
            "busy": now.busy,
            "disk": now.disk,
            "machines": [{"name": r.status.name, "state": r.status.state, "ssh": r.ssh} for r in now.rows],
        }
    return {
        **_who(result.place),
        "did": result.did,
        "seconds": round(result.seconds, 2),
        "error": None if error is None else {"brief": error.brief, "details": error.details, "hint": error.hint},
        **facts,
    }


def show_plan(spec: ClassSpec, found: Survey, *, as_json: bool) -> None:
    """What ``class up`` would do and take."""
    numbers = found.estimate
    if as_json:
        resources = [
            {"what": r.what, "each": r.each, "needed": r.needed, "there": r.there, "fits": r.fits, "refuses": r.refuses}
            for r in numbers.resources
        ]
        intents = [_intent(intent) for intent in found.intents]
        say_json(
            {
                "class": spec.name,
                "lab": str(spec.lab),
                "starts": numbers.starts,
                "fits": numbers.fits,
                "resources": resources,
                "vcpus": found.vcpus,
                "cpus": found.cpus,
                "images_missing": found.images_missing,
                "instances": intents,
            }
        )
        return
    states = Counter(intent.state for intent in found.intents)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    say(f"{spec.name}: {len(found.intents)} instances of {spec.lab}: {counts or 'nobody is chosen'}")
    rows = [
        (r.what, r.shown(r.each), r.shown(r.needed), r.shown(r.there), f"{r.fits} of {numbers.starts}")
        for r in numbers.resources
    ]
    if numbers.starts:
        table(("WHAT", "ONE", "ALL", "THERE", "ENOUGH FOR"), rows)
    per = found.vcpus / max(1, found.cpus)
    crowded = "; slow while all of them work at once" if per > _CROWDED else ""
    say(f"processors: {found.vcpus} in the machines, {found.cpus} here, {per:.1f} to each{crowded}")
    if found.images_missing:
        remark("Images have to be made first, so memory is counted as if nothing were shared: labctl image prepare")
    for intent in found.intents:
        if intent.error is not None:
            remark(f"✗ {intent.place.instance}: {intent.error.brief}")


def show_status(spec: ClassSpec, results: Sequence[Result], *, as_json: bool) -> None:
    """Every instance: who has it, what it does, how to get in."""
    if as_json:
        say_json({"class": spec.name, "lab": str(spec.lab), "instances": [to_json(result) for result in results]})
        return
    states = Counter(result.did for result in results)
    say(f"{spec.name}: {', '.join(f'{count} {state}' for state, count in states.items())}")
    table(("INSTANCE", "WHO", "STATE", "MACHINES"), [_status_row(result) for result in results])
    for result in results:
        now = result.facts.get("status")
        if result.error is not None:
            remark(f"✗ {result.place.instance}: {result.error.brief}")
        elif now is not None and (now.busy or now.interrupted or now.faults):
            remark(f"! {result.place.instance}: {now.busy or now.interrupted or ', '.join(now.faults)}")
    if gone := [result.place.instance for result in results if result.place.seat is None]:
        remark(f"No longer on the roster: {_shown(gone)}. `labctl class destroy --gone` removes them.")


def tell(spec: ClassSpec, verb: str, results: Sequence[Result]) -> None:
    """The end of a verb: how many, and who failed and why, equal reasons together."""
    if not results:
        say(f"{spec.name}: nobody is chosen who has an instance.")
        return
    counts = Counter(result.did for result in results)
    say(f"{spec.name}: {', '.join(f'{count} {did}' for did, count in counts.items())}")
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result.error is not None:
            name, error = result.place.instance, result.error
            own = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")  # who it is makes no other reason of it
            key = (own.sub("…", error.brief), own.sub("…", error.details), own.sub("…", error.hint))
            reasons.setdefault(key, []).append(name)
    for (brief, details, hint), names in reasons.items():
        remark(f"✗ {_shown(names)}: {brief}")
        for line in details.splitlines():
            remark(f"    {line}")
        if hint:
            remark(f"    hint: {hint}")
    if reasons and verb in ("up", "down", "destroy", "reset"):
        remark(f"The others are done. `labctl class {verb} --only …` repeats it for those.")


def _intent(intent: Intent) -> dict[str, Any]:
    return {
        **_who(intent.place),
        "state": intent.state,
        "changes": dict(intent.changes),
        "starts": sorted(intent.needs),
        "error": intent.error.brief if intent.error else None,
    }


def _who(place: Place) -> dict[str, Any]:
    students = place.seat.students if place.seat is not None else ()
    return {
        "instance": place.instance,
        "students": [{"id": student.id, "name": student.name} for student in students],
        "on_roster": place.seat is not None,
    }


def _status_row(result: Result) -> tuple[str, str, str, str]:
    now = result.facts.get("status")
    machines = "" if now is None else ", ".join(f"{r.status.name} {r.ssh or r.status.state}" for r in now.rows)
    return result.place.instance, result.place.people, result.did, machines


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
