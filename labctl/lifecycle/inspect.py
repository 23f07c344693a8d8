"""What exists and how it is: one instance for ``status``, all of them for ``list``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labctl.errors import LabctlError
from labctl.lifecycle import checkpoint, sealing
from labctl.lifecycle.locate import Running, admitted, running
from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.providers.base import MachineStatus, Observed
from labctl.spec.load import load
from labctl.state.lock import holder
from labctl.state.record import InstanceFolder, instances


@dataclass(frozen=True, slots=True)
class Row:
    """A machine as people look at it: its state, its addresses on the lab's networks, and how long it has run."""

    status: MachineStatus
    addresses: tuple[str, ...]
    ssh: str


@dataclass(frozen=True, slots=True)
class LabStatus:
    """An instance at one moment. phase is what labctl was doing with it last. sealed: it is to have no management path.

    interrupted: what was left of a checkpoint, for people. failed: that a restore has failed, which ``up`` does not
    mend, and what does. busy: who changes it right now, for people. disk: bytes that it takes, None where the engine
    cannot tell; images and templates, which labs share, are not in it.
    """

    lab: str
    instance: str
    provider: str
    phase: str
    spec_file: str
    rows: tuple[Row, ...]
    leftovers: tuple[str, ...]
    faults: tuple[str, ...]
    sealed: bool
    interrupted: str
    failed: str
    busy: str
    disk: int | None

    @property
    def summary(self) -> str:
        """Such as ``up``, ``3 of 4 running``, ``down``, ``changing`` or ``interrupted``."""
        if self.busy:
            return "changing"
        states = [row.status.state for row in self.rows]
        if self.phase in ("changing", "arriving") or self.interrupted:
            return "interrupted"
        if self.phase == "destroying":
            return "half destroyed"
        if states and all(state == "running" for state in states):
            return "up, sealed" if self.sealed else "up"
        if all(state in ("stopped", "absent") for state in states):
            return "down"
        return f"{states.count('running')} of {len(states)} running"


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of ``labctl list``: an instance, or why it cannot be looked at."""

    lab: str
    instance: str
    provider: str
    summary: str
    spec_file: str
    disk: int | None = None


def status(lab: Running) -> LabStatus:
    """Ask the engine about every machine of an instance."""
    observed: Observed = lab.provider.observe(lab.plan)
    found = {machine.name: machine for machine in observed.machines}
    rows = tuple(
        Row(
            found.get(machine.name, MachineStatus(machine.name, "absent")),
            _addresses(lab.plan, machine.name),
            _ssh(lab, machine.name, found),
        )
        for machine in lab.plan.machines
    )
    return LabStatus(
        lab.plan.lab,
        lab.plan.instance,
        lab.record.provider,
        lab.record.phase,
        lab.record.spec_file,
        rows,
        observed.leftovers,
        (*observed.faults, *(f"{name} is open in a sealed lab" for name in sealing.open_machines(lab, observed))),
        lab.record.sealed,
        checkpoint.interrupted(lab),
        "" if (error := checkpoint.failed(lab)) is None else f"{error.brief}. {error.hint}",
        holder(lab.plan.lab, lab.plan.instance),
        lab.provider.disk_use(),
    )


def behind(lab: Running) -> str:
    """That the lab file has changed since the last ``up``, for people; ``""`` where it says what runs."""
    file = Path(lab.record.spec_file)
    try:
        spec = admitted(load(file), lab.record.admission)
        plan = build(spec, instance=lab.plan.instance, provider=lab.plan.provider, previous=lab.plan)
    except LabctlError as error:
        return f"{file.name} cannot be read any more: {error.brief}."
    if plan == lab.plan:
        return ""
    return f"{file.name} has changed since the last `labctl up`; `labctl plan` shows the difference."


def listing() -> tuple[Listed, ...]:
    """Every instance on this host. One that cannot be read is listed with the reason instead of hiding the others."""
    return tuple(_listed(folder) for folder in instances())


def _listed(folder: InstanceFolder) -> Listed:
    try:
        now = status(running(folder))
    except LabctlError as error:
        return Listed(folder.lab, folder.instance, "?", f"unreadable: {error.brief}", "")
    return Listed(folder.lab, folder.instance, now.provider, now.summary, now.spec_file, now.disk)


def _addresses(plan: LabPlan, name: str) -> tuple[str, ...]:
    return tuple(
        f"{interface.network} {', '.join(str(a) for a in interface.addresses()) or 'no address'}"
        for interface in plan.machine(name).interfaces
    )


def _ssh(lab: Running, name: str, found: dict[str, MachineStatus]) -> str:
    if name not in found or found[name].state != "running":
        return ""
    try:
        endpoint = lab.provider.endpoint(lab.plan, name)
    except LabctlError:
        return ""
    return f"{endpoint.host}:{endpoint.port}"
