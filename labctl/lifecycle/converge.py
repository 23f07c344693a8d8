"""``up``: decide what has to change, say it, do it, and leave something a next ``up`` can finish."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from labctl.errors import HostError, LabctlError, UsageError
from labctl.events import Listener, ignore
from labctl.lifecycle import capacity, checkpoint, fresh, sealing
from labctl.lifecycle.locate import Draft, Running, engine_of, running
from labctl.plan.diff import STRENGTH, Action, Change, PlanDiff, compare
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import BootImage, Capabilities, Job, Observed
from labctl.spec import secrets
from labctl.spec.files import read_lab_file
from labctl.spec.model import FileStep, LabSpec, ScriptStep
from labctl.state.lock import locked
from labctl.state.record import Record

if TYPE_CHECKING:
    from labctl.images import Image

_TELLING: tuple[Action, ...] = ("create", "replace", "provision")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ``up`` did. ``changes`` has one entry per machine; seconds is the whole command.

    started: machines that were there, did not run, and run now. amiss: whether something beside machines, such as a
    wire, was not as planned.
    """

    plan: LabPlan
    changes: tuple[Change, ...]
    seconds: float
    started: tuple[str, ...] = ()
    amiss: bool = False

    @property
    def unchanged(self) -> bool:
        """Whether everything already was as the spec says."""
        return not (self.started or self.amiss) and all(change.action == "keep" for change in self.changes)


def difference(draft: Draft) -> PlanDiff:
    """What ``up`` would do now, from the plans alone: nothing is asked of the engine, no lock is taken.

    Raises UsageError where ``up`` would refuse, because the instance is another lab's.
    """
    check_ownership(draft)
    return _decide(draft, file_digests(draft.spec, draft.plan, draft.told))


def up(
    draft: Draft,
    *,
    listener: Listener = ignore,
    jobs: int = 4,
    only_locked: bool = False,
    force: bool = False,
    keep_fresh: bool = False,
) -> Outcome:
    """Make what runs equal to the spec. Idempotent; safe to repeat after any interruption.

    jobs: machines worked on at once. only_locked: start from the lock file's images or, before anything is made, fail.
    force: start machines although they do not fit on this host. keep_fresh: keep the state of a new lab as ``fresh``.
    Raises BusyError where another labctl works on the instance, HostError, ImageError, ProviderError, GuestError.
    """
    from labctl.lifecycle import pins  # for the same reason as in boot_images

    started = time.monotonic()
    choice = pins.choose(draft, listener, only_locked=only_locked)
    with locked(draft.folder.lab, draft.folder.instance):
        draft = replace(draft, record=draft.folder.record())  # it may have changed while we had no lock
        check_ownership(draft)
        draft = _mended(draft, listener)
        if draft.record is None and not draft.seed:
            draft = replace(draft, seed=secrets.new_seed())
        engine = engine_of(draft.backend)
        digests = file_digests(draft.spec, draft.plan, draft.told)
        diff = _decide(draft, digests)
        _check_told(draft, diff)
        provider = engine(draft.folder.engine, listener)
        record = _record(draft, digests)
        lab = Running(draft.folder, record, draft.plan, provider)
        observed = provider.observe(draft.plan)
        if diff.empty and draft.folder.pending() is None and _all_running(observed, draft.plan):
            if draft.folder.plan() != draft.plan:  # what changes no machine, such as its description
                draft.folder.finish(draft.plan)
            draft.folder.write_record(_finished(record))
            sealing.enforce(lab, observed, listener=listener)
            return Outcome(draft.plan, diff.changes, time.monotonic() - started)
        check_capabilities(draft.plan, engine.capabilities(draft.plan))
        images = boot_images(draft.plan, draft.backend.images, listener, choice.images)
        choice.compare(draft, {name: image.digest for name, image in images.items()}, listener)
        capacity.check(lab, diff.actions(), images, observed, force=force, listener=listener)
        draft.folder.write_record(replace(record, files=draft.record.files if draft.record else {}))
        draft.folder.begin(draft.plan)
        # Provisioning goes by the management path.
        sealing.enforce(replace(lab, record=replace(record, sealed=False)), observed)
        provider.up(Job(draft.plan, diff.actions(), images, draft.spec.root, jobs, draft.secrets))
        if record.sealed:  # machines that were started are open, and those that ran were opened above
            sealing.enforce(lab, listener=listener)
        if keep_fresh:
            fresh.keep(lab, diff.actions(), listener=listener)
        draft.folder.finish(draft.plan)
        draft.folder.write_record(_finished(record))
        off = tuple(status.name for status in observed.machines if status.state not in ("running", "absent"))
        return Outcome(draft.plan, diff.changes, time.monotonic() - started, off, _amiss(observed))


def to_be_told(draft: Draft, diff: PlanDiff) -> tuple[str, ...]:
    """Machines that ``up`` would tell secrets."""
    actions = diff.actions()
    return tuple(m.name for m in draft.plan.machines if m.secrets and actions.get(m.name) in _TELLING)


def _check_told(draft: Draft, diff: PlanDiff) -> None:
    """Refuse to make machines without the secrets that they had. Raises UsageError."""
    if draft.forgets and not draft.seed and (names := to_be_told(draft, diff)):
        raise UsageError(
            f"{', '.join(names)} would have to be told secrets again, and they are not known here",
            hint="labctl up --token, with the token of your handout.",
        )


def _mended(draft: Draft, listener: Listener) -> Draft:
    """The draft after whatever an interrupted labctl has left of a checkpoint was removed, or restored to its end."""
    if draft.record is None or (draft.folder.pending() or draft.folder.plan()) is None:
        return draft
    checkpoint.mend(running(draft.folder, listener=listener), listener=listener)
    return replace(draft, record=draft.folder.record())


def _record(draft: Draft, digests: Mapping[str, str]) -> Record:
    """The record of an ``up`` that is at work. A lab stays sealed as it was, unless its file says another thing now."""
    plan, before = draft.plan, draft.folder.plan()
    record = Record(
        plan.lab,
        plan.instance,
        draft.backend.name,
        str(draft.spec.file),
        "changing",
        files=digests,
        owner=draft.owner,
        admission=draft.admission,
        seed=draft.seed,
        forgets=draft.forgets,
        proofs=_proofs(draft),
    )
    if draft.record is None:
        return replace(record, sealed=plan.seal)
    asked_before = before is not None and before.seal
    sealed = plan.seal or (draft.record.sealed and not asked_before)
    return replace(record, created=draft.record.created, sealed=sealed)


def _proofs(draft: Draft) -> Mapping[str, str]:
    """By what right is known from wrong when the seed is not."""
    if draft.forgets and draft.seed:
        return secrets.proofs(draft.seed, draft.plan.lab, draft.plan.secrets)
    return draft.record.proofs if draft.record is not None else {}


def _finished(record: Record) -> Record:
    return replace(record, phase="up", seed="" if record.forgets else record.seed)


def boot_images(
    plan: LabPlan,
    source: str | None,
    listener: Listener = ignore,
    chosen: Mapping[tuple[str, tuple[str, ...]], Image] = MappingProxyType({}),
) -> dict[str, BootImage]:
    """The image of every machine, built where it is missing; machines that want the same one share it.

    source: the provider's kind of image source; None gives no images. chosen: those that are settled already, by name
    and sorted packages.
    """
    if source is None:
        return {}
    from labctl.images import resolve  # only here: an `up` that changes nothing should not wait for it

    made = dict(chosen)
    images: dict[str, BootImage] = {}
    for machine in plan.machines:
        if "/" in machine.image:  # a box from elsewhere, which Vagrant fetches itself
            continue
        name, packages = wanted = machine.boots_from
        if wanted not in made:
            made[wanted] = resolve(name, packages, provider=source, listener=listener)
        images[machine.name] = _as_boot_image(made[wanted])
    return images


def _as_boot_image(image: Image) -> BootImage:
    """An image of the store in the form that providers take."""
    return BootImage(image.name, image.digest, image.disk, image.kernel, image.initrd, image.cmdline, image.user)


def check_capabilities(plan: LabPlan, can: Capabilities) -> None:
    """Refuse, before anything is created, what the engine cannot hold on this host. Raises HostError naming it all."""
    wanted = {
        "a promiscuous interface": not can.promiscuous
        and any(i.promiscuous for m in plan.machines for i in m.interfaces),
        "`peers: false`": not can.isolated_ports and any(not n.peers for n in plan.networks),
        "`egress: nat`": not can.egress and any(n.egress != "none" for n in plan.networks),
        "`seal: true`": not can.seal and plan.seal,
        "`secrets:`": not can.secrets and any(m.secrets for m in plan.machines),
        "a Windows guest": not can.windows and any(m.os == "windows" for m in plan.machines),
    }
    missing = [what for what, lacking in wanted.items() if lacking]
    if missing:
        raise HostError(
            f"{plan.provider} cannot do this on this host: {', '.join(missing)}",
            hint="Nothing was created. labctl doctor says what each provider can do here and why.",
        )


def _decide(draft: Draft, digests: Mapping[str, str]) -> PlanDiff:
    """The strongest action that the last finished or any interrupted plan calls for, machine by machine."""
    known: Mapping[str, str] = draft.record.files if draft.record else {}
    names: dict[str, list[Change]] = {}
    for plan in (draft.folder.plan(), *draft.folder.begun()):
        for change in compare(plan, draft.plan).changes:
            names.setdefault(change.machine, []).append(change)
    changes = [max(group, key=lambda change: _rank(change.action)) for group in names.values()]
    return PlanDiff(tuple(_with_files(change, known, digests) for change in changes))


def _rank(action: Action) -> int:
    return STRENGTH.index(action)


def _with_files(change: Change, known: Mapping[str, str], digests: Mapping[str, str]) -> Change:
    """Provisioning files changed on disk, which no plan shows, call for provisioning again."""
    weaker = change.action in ("keep", "configure")
    if weaker and known.get(change.machine, "") != digests.get(change.machine, ""):
        return Change(change.machine, "provision", (*change.fields, "provisioning files"))
    return change


def file_digests(spec: LabSpec, plan: LabPlan, known: Mapping[str, str]) -> dict[str, str]:
    """Machine name to a digest of what its steps are given and no plan shows: files of the lab, and secrets.

    known: the instance's secrets. Machines that are given neither are left out.
    """
    return {machine.name: digest for machine in plan.machines if (digest := _digest_of(machine, spec.root, known))}


def _digest_of(machine: MachinePlan, root: Path, known: Mapping[str, str]) -> str:
    sources = [s.source for s in machine.steps if isinstance(s, FileStep | ScriptStep) and s.source is not None]
    told = {name: known[name] for name in machine.secrets if name in known}
    if not sources and not told:
        return ""
    whole = hashlib.sha256()
    if told:
        whole.update(json.dumps(told, sort_keys=True).encode())
    for source in sources:
        whole.update(hashlib.sha256(read_lab_file(root, source)).digest())
    return whole.hexdigest()


def _all_running(observed: Observed, plan: LabPlan) -> bool:
    running = {status.name for status in observed.machines if status.state == "running"}
    return not _amiss(observed) and running >= {machine.name for machine in plan.machines}


def _amiss(observed: Observed) -> bool:
    """Whether something beside machines is not as planned: it may be what ``up`` makes again."""
    return bool(observed.leftovers or observed.faults or observed.wires)


def check_ownership(draft: Draft) -> None:
    """One name on a host means one lab and one provider. Raises UsageError, LabctlError where it is half there."""
    record = draft.record
    if record is None:
        return
    if Path(record.spec_file).resolve() != draft.spec.file.resolve():
        raise UsageError(
            f"{record.lab}/{record.instance} already exists, made from another file: {record.spec_file}",
            hint="Give this lab another `name`, choose another --instance, or destroy the other one first.",
        )
    if record.provider != draft.backend.name:
        raise UsageError(
            f"{record.lab}/{record.instance} runs on {record.provider}, not on {draft.backend.name}",
            hint="labctl destroy it first, or choose another --instance.",
        )
    if record.phase == "arriving":
        raise LabctlError(
            f"{record.lab}/{record.instance} was being brought in with a checkpoint, and that was interrupted",
            hint="labctl up with that file brings it in anew; labctl destroy removes what is there.",
        )
    if draft.owner != record.owner:
        whose = f"belongs to the class {record.owner}" if record.owner else "was not made for a class"
        raise UsageError(
            f"{record.lab}/{record.instance} {whose}",
            hint=f"Give one of the two another id, or remove what is there: labctl destroy {record.lab} "
            f"--instance {record.instance}",
        )
    if record.phase == "destroying":
        raise LabctlError(
            f"{record.lab}/{record.instance} was being destroyed",
            hint="Run labctl destroy again to finish that, then labctl up.",
        )
