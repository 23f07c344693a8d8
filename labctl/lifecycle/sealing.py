"""``seal`` and ``unseal``: a lab without its management path, and back."""

from __future__ import annotations

from dataclasses import replace

from labctl.errors import UsageError
from labctl.events import Event, Listener, ignore
from labctl.lifecycle.locate import Running
from labctl.providers.base import Observed, is_management
from labctl.providers.workers import Stop, each, raise_failures
from labctl.state.lock import locked

_JOBS = 8


def seal(lab: Running, *, listener: Listener = ignore) -> tuple[str, ...]:
    """Cut every machine off its management NIC, now and whenever it is started. Gives the machines that run.

    Raises UsageError where the engine cannot, ProviderError where a machine is not cut off afterwards.
    """
    with locked(lab.folder.lab, lab.folder.instance):
        _check(lab)
        # The intent first: a crash then leaves a lab that says of itself that it ought to be sealed.
        lab.folder.write_record(record := replace(lab.record, sealed=True))
        running = _running(lab)
        enforce(replace(lab, record=record), listener=listener)
    return running


def unseal(lab: Running, *, listener: Listener = ignore) -> tuple[str, ...]:
    """Join every machine to its management NIC again. Gives the machines that run."""
    with locked(lab.folder.lab, lab.folder.instance):
        _check(lab)
        running = _running(lab)
        record = replace(lab.record, sealed=False)
        enforce(replace(lab, record=record), listener=listener)
        lab.folder.write_record(record)
    return running


def enforce(lab: Running, observed: Observed | None = None, *, listener: Listener = ignore) -> None:
    """Make the management NICs of running machines what the instance's record says; observed: what runs, if known."""
    if not lab.provider.capabilities(lab.plan).seal:
        return
    step, work = ("seal", lab.provider.seal) if lab.record.sealed else ("unseal", lab.provider.unseal)
    nics = (observed or lab.provider.observe(lab.plan)).nics
    machines = [nic.machine for nic in nics if is_management(nic) and nic.linked == lab.record.sealed]

    def one(name: str) -> None:
        work(lab.plan, name)
        listener(Event("done", step, name))

    raise_failures(each(machines, one, jobs=_JOBS, stop=Stop()), len(machines))


def open_machines(lab: Running, observed: Observed) -> tuple[str, ...]:
    """Machines of a sealed instance whose management NIC is joined all the same."""
    if not lab.record.sealed:
        return ()
    return tuple(nic.machine for nic in observed.nics if nic.linked and is_management(nic))


def _check(lab: Running) -> None:
    if not lab.provider.capabilities(lab.plan).seal:
        raise UsageError(
            f"{lab.record.provider} cannot seal a lab on this host",
            hint="labctl doctor says what each provider can do.",
        )


def _running(lab: Running) -> tuple[str, ...]:
    states = lab.provider.observe(lab.plan).machines
    return tuple(status.name for status in states if status.state in ("running", "paused"))
