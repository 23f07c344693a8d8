"""What bringing a class up would do and take: every instance planned, looked at, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from labctl.errors import HostError, LabctlError, UsageError
from labctl.events import Listener, ignore
from labctl.host import ports
from labctl.host.folders import state_root
from labctl.host.room import processors, room
from labctl.lifecycle import capacity, converge, pins
from labctl.lifecycle.classroom import key
from labctl.lifecycle.classroom.estimate import Bounds, Estimate, Needs, estimate
from labctl.lifecycle.classroom.seats import Place, places
from labctl.lifecycle.locate import Draft, draft_of, engine_of, running
from labctl.plan.diff import Action
from labctl.providers.base import BootImage, Footprint
from labctl.spec.classfile import ClassSpec
from labctl.spec.load import load
from labctl.spec.model import LabSpec
from labctl.state.record import InstanceFolder

_UP = ("running", "paused")


@dataclass(frozen=True, slots=True)
class Intent:
    """What ``up`` would do with one instance. error: why it would not even begin; draft is None then.

    state: ``new``, ``up``, ``partly up`` or ``down``. needs: what has to be started takes. used: what runs takes.
    """

    place: Place
    draft: Draft | None
    state: str = "new"
    changes: Mapping[str, Action] = field(default_factory=dict)
    needs: Needs = field(default_factory=dict)
    used: Needs = field(default_factory=dict)
    error: LabctlError | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """All of it. images_missing: they have to be made first, and memory is counted as if nothing were shared.

    vcpus: of what would run then. cpus: of this host.
    """

    intents: tuple[Intent, ...]
    estimate: Estimate
    images_missing: bool
    vcpus: int
    cpus: int


def survey(
    spec: ClassSpec,
    chosen: Sequence[Place],
    *,
    provider: str | None = None,
    jobs: int,
    listener: Listener = ignore,
    count_ports: bool = True,
) -> Survey:
    """Plan the chosen places of a class and count what they take; makes and starts nothing.

    count_ports: all that are free, which takes a second; otherwise as many as are needed.
    Raises SpecError for the lab's file, UsageError and HostError for what is wrong with all of them.
    """
    lab = load(spec.lab)
    secret = key.read(spec) if lab.secrets else ""
    listed = [place for place in chosen if place.seat is not None]
    _check_provider(spec, lab, listed, provider)
    drafts = [_draft(spec, lab, place, provider, secret) for place in listed]
    sample = next((one for one in drafts if one.draft), None)
    images = _images(sample.draft, listener) if sample is not None and sample.draft is not None else None
    intents = tuple(_looked_at(one, images) for one in drafts)
    others = _others(spec, listed, images)
    needs = [intent.needs for intent in intents]
    machines = sum(len(one) for one in needs)
    whole = sum(intent.state == "up" for intent in intents) + sum(1 for one in others if one)
    bounds = _bounds(spec, [*(i.used for i in intents), *others], whole, jobs)
    bounds = replace(bounds, ports=ports.count_free(None if count_ports else machines))
    vcpus = sum(m.cpus for i in intents if i.draft is not None for m in i.draft.plan.machines)
    return Survey(intents, estimate(needs, bounds), images is None, vcpus, processors())


def refusal(found: Survey, spec: ClassSpec) -> HostError:
    """The error that says what is short, by how much, and what fits instead."""
    numbers = found.estimate
    details = "\n".join(
        f"{one.what}: {one.shown(one.needed)} needed, {one.shown(one.there)} there, "
        f"enough for {one.fits} of {numbers.starts}"
        for one in numbers.short
    )
    return HostError(
        f"{numbers.starts} instances of {spec.name} do not fit on this host; {numbers.fits} do",
        details=details,
        hint=f"Nothing was started. {_alternatives(found, spec)}",
    )


def _alternatives(found: Survey, spec: ClassSpec) -> str:
    numbers = found.estimate
    ways = []
    if only := which_fit(found, spec):
        ways.append(f"--only {only} brings up those that fit")
    if any(one.in_bytes for one in numbers.short):
        ways.append("machines with less memory, or teams (`groups`), take less")
    ways.append("`labctl list` shows what else runs here")
    ways.append("--force tries all of them")
    return "; ".join(ways) + "."


def which_fit(found: Survey, spec: ClassSpec) -> str:
    """What ``--only`` takes for the instances that are up or fit, such as ``1-17,20``; ``""`` where none or all do."""
    left, fit = found.estimate.fits, set()
    for intent in found.intents:
        if not intent.needs or left:
            fit.add(intent.place.instance)
            left -= bool(intent.needs)
    if not found.estimate.fits or len(fit) == len(found.intents):
        return ""
    ranges: list[list[int]] = []
    for number in (number for number, seat in enumerate(spec.seats, 1) if seat.instance in fit):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def _check_provider(spec: ClassSpec, lab: LabSpec, there: Sequence[Place], provider: str | None) -> None:
    """A class runs on one engine: the one that its instances have, else the one that is asked for."""
    have = {place.record.provider for place in there if place.record is not None}
    if provider is not None and have - {provider}:
        raise UsageError(
            f"{spec.name} runs on {', '.join(sorted(have))}, not on {provider}",
            hint=f"labctl class destroy removes its instances of {lab.name}; then the class can move.",
        )


def _draft(spec: ClassSpec, lab: LabSpec, place: Place, provider: str | None, secret: str) -> Intent:
    if place.seat is None:
        return Intent(place, None)
    try:
        made = draft_of(
            lab,
            instance=place.instance,
            provider=provider,
            owner=spec.name,
            admission=spec.admission(place.seat),
            seed=key.seed(secret, place.seat),
        )
        return Intent(place, made, changes=converge.difference(made).actions())
    except LabctlError as error:
        return Intent(place, None, "unknown", error=error)


def _images(draft: Draft, listener: Listener) -> Mapping[str, BootImage] | None:
    """By machine: all instances have the same. None where some have to be made first."""
    if draft.backend.images is None:
        return {}
    there = pins.present(draft, listener)
    return None if there is None else converge.boot_images(draft.plan, draft.backend.images, listener, there)


def _looked_at(intent: Intent, images: Mapping[str, BootImage] | None) -> Intent:
    draft = intent.draft
    if draft is None:
        return intent
    engine, up = engine_of(draft.backend), frozenset[str]()
    if draft.record is not None and draft.folder.engine.exists():
        try:
            seen = engine(draft.folder.engine).observe(draft.plan).machines
        except LabctlError as error:
            return replace(intent, draft=None, state="unknown", error=error)
        up = frozenset(status.name for status in seen if status.state in _UP)
    needs: dict[str, Footprint] = {}
    used: dict[str, Footprint] = {}
    for machine in draft.plan.machines:
        # only one that is made anew may be a copy of a template; one that was there boots
        anew = intent.changes.get(machine.name) in ("create", "replace")
        image = (images or {}).get(machine.name) if anew or machine.name in up else None
        (used if machine.name in up else needs)[machine.name] = engine.footprint(draft.plan, machine, image)
    state = "new" if draft.record is None else "up" if not needs else "partly up" if used else "down"
    return replace(intent, state=state, needs=needs, used=used)


def _others(spec: ClassSpec, chosen: Sequence[Place], images: Mapping[str, BootImage] | None) -> list[Needs]:
    """What instances of the class take that are not among the chosen and run."""
    names = {place.instance for place in chosen}
    return [
        _running_needs(place.folder, images or {})
        for place in places(spec)
        if place.instance not in names and place.folder is not None and place.record is not None
    ]


def _running_needs(folder: InstanceFolder, images: Mapping[str, BootImage]) -> Needs:
    try:
        lab = running(folder)
        up = {status.name for status in lab.provider.observe(lab.plan).machines if status.state in _UP}
    except LabctlError:
        return {}
    machines = (machine for machine in lab.plan.machines if machine.name in up)
    return {m.name: lab.provider.footprint(lab.plan, m, images.get(m.name)) for m in machines}


def _bounds(spec: ClassSpec, used: Sequence[Needs], whole: int, jobs: int) -> Bounds:
    """used: what runs takes, by instance. whole: instances that run and need nothing more."""
    limits = spec.limits
    taken = capacity.total("memory", {f"{n}/{name}": one for n, part in enumerate(used) for name, one in part.items()})
    return Bounds(
        room(state_root()),
        jobs,
        0,
        None if limits.instances is None else max(0, limits.instances - whole),
        None if limits.memory is None else max(0, limits.memory - taken),
    )
