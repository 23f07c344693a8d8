"""``export``: a lab with one of its checkpoints in one file, which brings it up in that state on another host.

The file is a bundle (the lab's folder, its lock file, its images) that has the checkpoint too: for each disk what the
machine has written to it until that moment, and of machines that ran their memory. Nothing of later or earlier states
is in it, and no key of the instance but those that are inside the machines: their SSH host keys. Whoever brings it in
gets keys of their own. Of its secrets the file has what ``submit`` needs, and what machines keep of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import ProviderError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.host import files
from labctl.images import leftovers
from labctl.lifecycle import archive, bundle, converge, lockfile, restoring
from labctl.lifecycle.bundle import Bundled, Cargo
from labctl.lifecycle.locate import Draft, Running
from labctl.lifecycle.lockfile import Lock
from labctl.lifecycle.manifest import Carried, CarriedDisk, CarriedMachine
from labctl.plan.build import build
from labctl.plan.diff import compare
from labctl.providers.base import Crate, Freight, Job
from labctl.providers.workers import Stop, each, raise_failures
from labctl.state.checkpoints import Checkpoint, CheckpointFolder
from labctl.state.lock import locked

_JOBS = 4


@dataclass(frozen=True, slots=True)
class Exported:
    """A lab as it was written to a file with a checkpoint. cold: machines of which it has the disks alone."""

    bundle: Bundled
    checkpoint: str
    machines: tuple[str, ...]
    cold: tuple[str, ...]


def export(lab: Running, draft: Draft, name: str, output: Path | None = None, listener: Listener = ignore) -> Exported:
    """Write the lab of an instance with a checkpoint of it to a file; the machines go on meanwhile.

    output: by default ``LAB-NAME.labz`` in the current folder. Raises UsageError for an engine that cannot, a
    checkpoint that is not there or is not of the lab as its folder has it; ProviderError, ImageError, HostError.
    """
    target = output or Path(f"{lab.plan.lab}-{name}{archive.SUFFIX}")
    bundle.check_output(target)
    with locked(lab.folder.lab, lab.folder.instance):
        freight = lab.provider.freight(Job(lab.plan, {}, {}, lab.root))
        engine = lab.provider.checkpoints(lab.plan)
        if freight is None or engine is None:
            raise UsageError(
                f"{lab.record.provider} cannot take a checkpoint to another host",
                hint="labctl bundle makes a file of the lab without its state. On qemu labctl can do it.",
            )
        found = CheckpointFolder(lab.folder).find(name)
        if missing := restoring.lost(lab, engine, found):
            raise ProviderError(f"the checkpoint {name} is not whole any more: {', '.join(missing)} lack their part")
        _check_same(draft, found)
        with _scratch(lab) as scratch:
            crates = _packed(freight, found, scratch, listener)
            carried, sources = _carried(lab, found, crates)
            path = lockfile.path_of(draft.spec.file)
            digests = lab.provider.image_digests(lab.plan)
            done = bundle.pack(
                draft,
                target,
                lockfile.read(path) or Lock(path),
                {one.boots_from: digests[one.name] for one in draft.plan.machines if one.name in digests},
                cargo=Cargo(carried, sources),
                listener=listener,
            )
    cold = tuple(one.name for one in carried.machines if one.state == "running" and not one.needs)
    return Exported(done, name, tuple(found.machines), cold)


def _check_same(draft: Draft, found: Checkpoint) -> None:
    """A lab that is made anew from its folder must be the one that the checkpoint is of. Raises UsageError."""
    anew = build(draft.spec, instance=draft.plan.instance, provider=draft.plan.provider)
    wrong = [
        f"{one.machine}: {', '.join(one.fields) or 'its wires'}"
        for one in compare(found.plan, anew).changes
        if one.action != "keep"
    ]
    now = converge.file_digests(draft.spec, anew, draft.told)
    wrong += [
        f"{name}: files of its steps" for name in sorted({*now, *found.files}) if now.get(name) != found.files.get(name)
    ]
    if wrong:
        raise UsageError(
            f"the lab's folder would not make the lab that the checkpoint {found.name} is of",
            details="\n".join(wrong),
            hint="Put the lab file back to what it was then; or destroy the lab, bring it up as it is now, and save "
            "and export that.",
        )


@contextmanager
def _scratch(lab: Running) -> Iterator[Path]:
    """A folder beside the machines, with the room that they have; what a killed labctl left is removed."""
    leftovers.clear(lab.folder.path, files.remove_tree)
    folder = files.private_folder(lab.folder.path / leftovers.folder_name("export"))
    try:
        yield folder
    finally:
        files.remove_tree(folder)


def _packed(freight: Freight, found: Checkpoint, scratch: Path, listener: Listener) -> dict[str, Crate]:
    crates: dict[str, Crate] = {}

    def one(machine: str) -> None:
        listener(Event("started", "export", machine))
        crates[machine] = freight.pack(machine, found.key, scratch)
        listener(Event("done", "export", machine))

    raise_failures(each(list(found.machines), one, jobs=_JOBS, stop=Stop()), len(found.machines))
    return crates


def _carried(lab: Running, found: Checkpoint, crates: dict[str, Crate]) -> tuple[Carried, dict[str, Path]]:
    """The checkpoint as a table of contents has it, and the files of its disks by digest."""
    sources: dict[str, Path] = {}
    machines = []
    for name, state in found.machines.items():
        disks = []
        for path in crates[name].disks:
            disks.append(CarriedDisk(path.stat().st_size, files.digest(path)))
            sources[disks[-1].sha256] = path
        marked = name in found.witnesses
        machines.append(CarriedMachine(name, state, marked, tuple(disks), crates[name].needs))
    created = int(found.created)
    carried = Carried(found.id, found.name, lab.plan.instance, created, found.sealed, tuple(machines), lab.proofs())
    return carried, sources
