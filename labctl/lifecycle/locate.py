"""From what the user typed to a lab, its instance and its engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labctl.errors import HostError, LabctlError, UsageError
from labctl.events import Listener, ignore
from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.providers import PROVIDERS
from labctl.providers.base import Backend, Provider
from labctl.spec.admission import Admission
from labctl.spec.load import load
from labctl.spec.model import LabSpec
from labctl.spec.problems import choices
from labctl.spec.secrets import proofs, values
from labctl.state.record import InstanceFolder, Record, instances

DEFAULT_INSTANCE = "default"
PREFERENCE = ("virtualbox", "qemu", "libvirt")


def spec_file(target: Path) -> Path:
    """The lab file that a LAB argument (a folder or a file) means; it need not exist."""
    return (target / "lab.yaml" if target.is_dir() else target).absolute()


def choose_backend(
    flag: str | None, spec: str | None, *, environment: Mapping[str, str] = os.environ
) -> tuple[Backend, str]:
    """The engine to use and why.

    The command line beats the spec, the spec beats ``LABCTL_PROVIDER``; otherwise the first engine of PREFERENCE that
    this host can really run. Raises UsageError for an unknown name, HostError where nothing runs here.
    """
    asked = (
        (flag, "asked for by --provider"),
        (spec, "named in the spec"),
        (environment.get("LABCTL_PROVIDER"), "from LABCTL_PROVIDER"),
    )
    for name, why in asked:
        if name:
            if name not in PROVIDERS:
                raise UsageError(f"there is no provider called {name!r}", hint=choices("Providers", PROVIDERS, name))
            return PROVIDERS[name], why
    missing: list[str] = []
    for name in PREFERENCE:
        backend = PROVIDERS[name]
        if backend.engine is None:
            continue
        lacks = [lack for lack in backend.probe() if lack.fatal]
        if not lacks:
            return backend, "the first that this host can run"
        missing += [f"{name}: {lack.what} - {lack.remedy}" for lack in lacks]
    raise HostError("no provider can run on this host", details="\n".join(missing), hint="labctl doctor says more.")


def engine_of(backend: Backend) -> type[Provider]:
    """The class that runs plans on this backend. Raises UsageError where labctl only renders for it."""
    if backend.engine is None:
        raise UsageError(
            f"labctl renders files for {backend.name} but does not drive it yet, and nobody has tried those files",
            hint=f"labctl render --provider {backend.name} -o DIR writes them; read them before `vagrant up`.",
        )
    return backend.engine


@dataclass(frozen=True, slots=True)
class Draft:
    """A lab as its file has it now: the spec, the plan made from it, and what already exists of the instance.

    owner, admission, seed, forgets: see ``Record``; a new instance of no class has no seed yet.
    """

    spec: LabSpec
    plan: LabPlan
    backend: Backend
    folder: InstanceFolder
    record: Record | None
    owner: str = ""
    admission: Mapping[str, Any] = field(default_factory=dict)
    seed: str = ""
    forgets: bool = False

    @property
    def secrets(self) -> dict[str, str]:
        """The instance's secrets by name; none where it has no seed."""
        return values(self.seed, self.plan.lab, self.plan.secrets) if self.seed else {}

    @property
    def told(self) -> dict[str, str]:
        """What shows whether machines know the present secrets: these, or where they are not kept how they are made."""
        if self.forgets:
            return {secret.name: repr(replace(secret, points=None)) for secret in self.plan.secrets}
        return self.secrets


def draft(target: Path, *, instance: str = DEFAULT_INSTANCE, provider: str | None = None) -> Draft:
    """Read, check and plan a lab. Raises SpecError, UsageError, HostError."""
    return draft_of(load(spec_file(target)), instance=instance, provider=provider)


def draft_of(
    spec: LabSpec,
    *,
    instance: str,
    provider: str | None = None,
    owner: str = "",
    admission: Admission | None = None,
    seed: str = "",
) -> Draft:
    """Plan a lab that was read already. Raises UsageError, HostError, StateError.

    owner: the class that it is for, which then says whom it admits; without one both stay as they are. seed: what its
    secrets are made from, if not from what they were made from before.
    """
    check_instance_name(instance)
    folder = InstanceFolder(spec.name, instance)
    record = folder.record()
    if not owner and record is not None:
        owner, admits = record.owner, record.admission
    else:
        admits = admission.plain() if admission is not None else {}
    seed = seed or (record.seed if record is not None else "")
    spec = admitted(spec, admits)
    backend, _why = choose_backend(provider or (record.provider if record else None), spec.provider)
    previous = folder.pending() or folder.plan()
    plan = build(spec, instance=instance, provider=backend.name, previous=previous)
    forgets = record is not None and record.forgets
    return Draft(spec, plan, backend, folder, record, owner, admits, seed, forgets)


def admitted(spec: LabSpec, admission: Mapping[str, Any]) -> LabSpec:
    """The lab with whom a record says that its class lets in. Raises UsageError."""
    return Admission.of(admission).applied(spec) if admission else spec


def check_instance_name(name: str) -> None:
    """Instance names become folder and host-side names, so they are DNS labels."""
    legal = (
        name
        and len(name) <= 40
        and name[0].isalpha()
        and name[-1] != "-"
        and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in name)
    )
    if not legal:
        raise UsageError(
            f"{name!r} cannot name an instance",
            hint="Use lower-case letters, digits and hyphens, a letter first, at most 40.",
        )


@dataclass(frozen=True, slots=True)
class Running:
    """An instance that exists on this host: its record, the plan that was carried out (or begun) and its engine."""

    folder: InstanceFolder
    record: Record
    plan: LabPlan
    provider: Provider

    @property
    def root(self) -> Path:
        """The lab's folder."""
        return Path(self.record.spec_file).parent

    def secrets(self) -> dict[str, str]:
        """The instance's secrets by name. Raises UsageError where they are not known here."""
        if self.plan.secrets and not self.record.seed:
            here = "They are with the instance that it was exported from; one that is brought up here has its own."
            raise UsageError(
                f"the secrets of {self.plan.lab}/{self.plan.instance} are not known here",
                hint="They were told to its machines and not kept. The teacher has them."
                if self.record.forgets
                else here,
            )
        return values(self.record.seed, self.plan.lab, self.plan.secrets)

    def proofs(self) -> dict[str, str]:
        """By name what tells a secret from another text, where nobody can guess it; none where nothing is known."""
        if self.record.seed:
            return proofs(self.record.seed, self.plan.lab, self.plan.secrets)
        return dict(self.record.proofs)


def find_folder(target: Path, instance: str) -> InstanceFolder:
    """The instance of a LAB argument, found by the file it was made from, else by the lab's name.

    The spec is not read: a lab whose file has been broken since can still be stopped. Raises UsageError.
    """
    wanted = spec_file(target)
    known = list(instances())
    for folder in known:
        if folder.instance == instance and (folder.lab == str(target) or _made_from(folder, wanted)):
            return folder
    others = sorted(f"{f.lab}/{f.instance}" for f in known if f.lab == str(target) or _made_from(f, wanted))
    hint = (
        f"Instances of this lab: {', '.join(others)}."
        if others
        else "labctl up brings it up; labctl list shows what exists."
    )
    raise UsageError(f"{target} has no instance called {instance!r} on this host", hint=hint)


def find(target: Path, *, instance: str = DEFAULT_INSTANCE, listener: Listener = ignore) -> Running:
    """The instance of a LAB argument with all it takes to work on it. Raises UsageError, StateError."""
    return running(find_folder(target, instance), listener=listener)


def running(folder: InstanceFolder, *, listener: Listener = ignore) -> Running:
    """An existing instance with its plan and engine."""
    record = folder.record()
    if record is None:
        raise UsageError(f"{folder.lab}/{folder.instance} does not exist")
    plan = folder.pending() or folder.plan()
    if plan is None:
        raise LabctlError(
            f"{folder.lab}/{folder.instance} was interrupted before anything was made",
            hint="labctl up continues; labctl destroy forgets it.",
        )
    engine = engine_of(PROVIDERS[record.provider])
    return Running(folder, record, plan, engine(folder.engine, listener))


def _made_from(folder: InstanceFolder, wanted: Path) -> bool:
    try:
        record = folder.record()
    except LabctlError:
        return False
    return record is not None and Path(record.spec_file).resolve() == wanted.resolve()
