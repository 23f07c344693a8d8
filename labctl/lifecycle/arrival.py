"""``up FILE`` of a bundle with a checkpoint: the lab, in the state that it was saved in on another host.

Nothing runs before every digest in the file was found right. Then the record says that something is arriving, and
stays so until all is there: an interruption leaves what the next ``up FILE`` begins anew and ``destroy`` removes.
Machines come out of their memory where this host has what it needs, all of them or none, so that they are of one
moment; else all boot from their disks, and ``up`` says why. In both cases they get the keys, random numbers and
addresses of this instance, and the checkpoint is saved once more with those in it: that is the one that ``restore``
goes back to.

A memory is the state of devices, too, which QEMU takes from the file as it is. It is confined to the machine's
process as all that the guest does, but whoever does not know where a file is from should start it cold.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from labctl.errors import UsageError
from labctl.events import Event, Listener, ignore
from labctl.host import files
from labctl.host.folders import state_root
from labctl.images import leftovers
from labctl.lifecycle import capacity, checkpoint, converge, pins, sealing, witness
from labctl.lifecycle.locate import Draft, Running, check_instance_name, draft, engine_of
from labctl.lifecycle.manifest import Carried, CarriedMachine, Manifest, refuse
from labctl.lifecycle.unbundle import unbundle
from labctl.plan.build import build
from labctl.plan.diff import Action
from labctl.plan.model import LabPlan
from labctl.providers import PROVIDERS
from labctl.providers.base import Crate, Freight, Job
from labctl.providers.workers import Stop, each, raise_failures
from labctl.state.checkpoints import CheckpointFolder
from labctl.state.lock import locked
from labctl.state.record import InstanceFolder, Record

_JOBS = 4


@dataclass(frozen=True, slots=True)
class Options:
    """How a lab is brought in. provider: None for the file's. cold: leave the memory of its machines in the file."""

    instance: str
    provider: str | None = None
    cold: bool = False
    force: bool = False
    jobs: int = 4


@dataclass(frozen=True, slots=True)
class Brought:
    """A bundle that was unpacked. arrived: the checkpoint that the lab is as of now, ``""`` for none."""

    folder: Path
    provider: str
    arrived: str = ""


def bring(file: Path, options: Options, listener: Listener = ignore) -> Brought:
    """Unpack a bundle as ``unbundle`` does; where it has a checkpoint, make the instance that the checkpoint is of.

    An instance that came with the same checkpoint before stays as it is. Raises UsageError where another one is in the
    way or the engine cannot, LabctlError for a file that is not right; nothing is left then but the unpacked lab.
    """
    check_instance_name(options.instance)
    with _stage() as stage:
        folders: list[Path] = []

        def hold(contents: Manifest) -> Path | None:
            instance = InstanceFolder(contents.lab, options.instance)
            if contents.checkpoint is None or _came_before(instance, contents.checkpoint):
                return None
            _check_engine(options.provider or contents.provider)
            folders.append(files.private_folder(stage))
            return stage

        unpacked = unbundle(file, listener=listener, hold=hold)
        if folders and unpacked.checkpoint is not None:
            found = draft(unpacked.folder, instance=options.instance, provider=options.provider or unpacked.provider)
            _arrive(found, unpacked.checkpoint, stage, options, listener)
            return Brought(unpacked.folder, found.backend.name, unpacked.checkpoint.name)
    return Brought(unpacked.folder, options.provider or unpacked.provider)


def _check_engine(provider: str) -> None:
    backend = PROVIDERS.get(provider)
    engine = backend.engine if backend else None
    if engine is not None and not engine.capabilities().freight:
        raise UsageError(
            f"{provider} cannot bring in a checkpoint from another host",
            hint="Leave --provider out; or labctl unbundle FILE, then labctl up on its folder, for the lab without it.",
        )


def _came_before(folder: InstanceFolder, carried: Carried) -> bool:
    """Whether an instance came with this checkpoint. Raises UsageError where it is another one."""
    record = folder.record()
    if record is None or record.phase == "arriving":
        return False
    if any(one.origin == carried.id for one in CheckpointFolder(folder).whole()):
        return True
    raise UsageError(
        f"{folder.lab}/{folder.instance} exists already, without the checkpoint of this file",
        hint="Nothing was changed. Choose another --instance, or labctl destroy it first; labctl up with the lab's "
        "folder goes on with it as it is.",
    )


@contextmanager
def _stage() -> Iterator[Path]:
    """A place for disks beside the instances, so that they can be moved; what a killed labctl left there is removed."""
    root = files.private_folder(state_root())
    leftovers.clear(root, files.remove_tree)
    stage = root / leftovers.folder_name("arrival")
    try:
        yield stage
    finally:
        files.remove_tree(stage)


def _arrive(draft: Draft, carried: Carried, stage: Path, options: Options, listener: Listener) -> None:
    began = time.monotonic()
    choice = pins.choose(draft, listener, only_locked=True)
    with locked(draft.folder.lab, draft.folder.instance):
        provider = engine_of(draft.backend)(draft.folder.engine, listener)
        if (record := draft.folder.record()) is not None:
            if record.phase != "arriving" or Path(record.spec_file) != draft.spec.file:
                converge.check_ownership(replace(draft, record=record))
                raise UsageError(f"{record.lab}/{record.instance} exists already", hint="Nothing was changed.")
            provider.destroy()
            draft.folder.remove()
        converge.check_capabilities(draft.plan, provider.capabilities(draft.plan))
        _check_machines(draft, carried)
        images = converge.boot_images(draft.plan, draft.backend.images, listener, choice.images)
        job = Job(draft.plan, {}, images, draft.spec.root, options.jobs)
        record = Record(
            draft.plan.lab,
            draft.plan.instance,
            draft.backend.name,
            str(draft.spec.file),
            "arriving",
            files=converge.file_digests(draft.spec, draft.plan, {}),
            sealed=carried.sealed or draft.plan.seal,
            proofs=carried.proofs,
        )
        lab = Running(draft.folder, record, draft.plan, provider)
        new: dict[str, Action] = {one.name: "create" for one in carried.machines}
        capacity.check(lab, new, images, provider.observe(draft.plan), force=options.force, listener=listener)
        try:
            draft.folder.write_record(record)
            draft.folder.begin(draft.plan)
            was = build(draft.spec, instance=carried.instance, provider=draft.backend.name)
            _Arrival(lab, carried, job, listener).carry_out(stage, options.cold, was)
        except BaseException:
            provider.destroy()
            draft.folder.remove()
            raise
        listener(Event("done", "arrive", message=carried.name, seconds=time.monotonic() - began))


def _check_machines(draft: Draft, carried: Carried) -> None:
    there = {machine.name: 1 + len(machine.disks) for machine in draft.plan.machines}
    came = {one.name: len(one.disks) for one in carried.machines}
    if there != came:
        refuse("its checkpoint is of other machines than its lab has")


@dataclass(frozen=True, slots=True)
class _Arrival:
    """An instance that is recorded as arriving, on its way from a folder of disks to a lab with a checkpoint."""

    lab: Running
    carried: Carried
    job: Job
    listener: Listener

    def carry_out(self, stage: Path, cold: bool, was: LabPlan) -> None:
        """Do all of it. was: the plan of the instance that the checkpoint is of."""
        lab, key = self.lab, f"labctl-{self.carried.id}"
        freight, engine = lab.provider.freight(self.job), lab.provider.checkpoints(lab.plan)
        if freight is None or engine is None:
            raise UsageError(f"{lab.record.provider} cannot bring in a checkpoint from another host")
        ran = [one.name for one in self.carried.machines if one.state == "running"]
        memory = not cold and self._fits(freight)
        crates = _crates(self.carried, stage)
        self._each("unpack", lambda name: freight.unpack(name, key, crates[name], memory=memory and name in ran))
        engine.prepare()
        self._each("restore", lambda name: engine.restore(name, key))
        sealing.enforce(replace(lab, record=replace(lab.record, sealed=False)))
        engine.resume(ran if memory else [])
        freight.settle(ran, was)
        self._prove(key, memory)
        sealing.enforce(lab)
        states = {one.name: one.state for one in self.carried.machines}
        checkpoint.keep(lab, self.carried.name, states, origin=self.carried.id, listener=self.listener)
        self._each("", lambda name: engine.delete(name, key))
        lab.folder.finish(lab.plan)
        lab.folder.write_record(replace(lab.record, phase="up" if ran else "down"))

    def _fits(self, freight: Freight) -> bool:
        """Whether this host can go on from all memories; where it cannot, says why."""
        wrong: dict[str, list[str]] = {}
        for one in self.carried.machines:
            if one.state == "running":
                for why in _misfits(one, freight):
                    wrong.setdefault(why, []).append(one.name)
        for why, names in wrong.items():
            said = f"all machines boot from their disks, because the memory of {', '.join(names)} {why}"
            self.listener(Event("warning", "restore", message=said))
        return not wrong

    def _prove(self, key: str, memory: bool) -> None:
        """Find the marks that the machines were saved with: on their disks, and in the memory that they go on from."""
        ran = [one for one in self.carried.machines if one.state == "running"]
        marked = [one.name for one in ran if one.marked]
        closed = witness.look(self.lab, marked, key, ("memory", "disk") if memory else ("disk",))
        if unproven := sorted({one.name for one in ran} - set(marked) | set(closed)):
            said = f"not proven in {', '.join(unproven)}: no way to look for a mark"
            self.listener(Event("warning", "restore", message=said))

    def _each(self, step: str, work: Callable[[str], None]) -> None:
        """Work on all machines; step: what is told of it, if anything."""

        def one(name: str) -> None:
            began = time.monotonic()
            if step:
                self.listener(Event("started", step, name))
            work(name)
            if step:
                self.listener(Event("done", step, name, seconds=time.monotonic() - began))

        names = [one.name for one in self.carried.machines]
        raise_failures(each(names, one, jobs=_JOBS, stop=Stop()), len(names))


def _misfits(one: CarriedMachine, freight: Freight) -> Iterator[str]:
    """What keeps a machine's memory from being loaded here, for people."""
    here = freight.offers(one.name)
    if not one.needs:
        yield "is not known to fit any host"
    for what in sorted({*here, *one.needs} if one.needs else ()):
        if here.get(what) != one.needs.get(what):
            yield f"needs {what} {one.needs.get(what, '?')} and this host has {here.get(what, '?')}"


def _crates(carried: Carried, stage: Path) -> dict[str, Crate]:
    """The files of each machine, which its unpacking takes away; equal ones came once."""
    uses = [disk.sha256 for one in carried.machines for disk in one.disks]
    crates = {}
    for one in carried.machines:
        paths = []
        for number, disk in enumerate(one.disks):
            path = stage / f"{one.name}.{number}"
            uses.remove(disk.sha256)
            try:
                shutil.copyfile(stage / disk.sha256, path) if disk.sha256 in uses else (stage / disk.sha256).rename(
                    path
                )
            except OSError as error:
                raise files.explained(path, error) from error
            paths.append(path)
        crates[one.name] = Crate(tuple(paths), one.needs)
    return crates
