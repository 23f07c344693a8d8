"""One verification: open listeners and canaries, ask every guest once, judge."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from labctl.errors import LabctlError
from labctl.events import Event, Listener, ignore
from labctl.host.runner import Runner
from labctl.host.spare_addresses import spare_addresses
from labctl.plan.model import LabPlan, MachinePlan
from labctl.plan.show import to_json
from labctl.providers.base import Observed
from labctl.verify import answers, drift, forwarding
from labctl.verify.agenda import Agenda, Door, Probe, Surroundings, agenda, named_outside
from labctl.verify.canary import Canaries, host_addresses, in_lab
from labctl.verify.errands import Errands, errands
from labctl.verify.guests import Session
from labctl.verify.hostside import host_controls
from labctl.verify.interview import Interview
from labctl.verify.judge import Heard, judge
from labctl.verify.model import Finding, Report, Verdict
from labctl.verify.wires import Ears, Overheard

_LISTEN_SECONDS = 600  # that listeners are there; they end with the verification, unless that was killed
_START = 60.0  # seconds that a cold guest on a very busy host may take to start a program
_TRIES = 2  # to hear how a guest forwards: on a busy host an answer may come too late once
_PORTS = range(49152, 65536)
_T = TypeVar("_T")


def verify(
    plan: LabPlan,
    session: Session,
    *,
    sealed: bool = False,
    outside: Sequence[str] = (),
    listener: Listener = ignore,
    runner: Runner | None = None,
) -> Report:
    """Prove the isolation of a running instance.

    sealed: no machine is to be joined to its management NIC. outside: ``ADDRESS:PORT`` texts that the user names, which
    no closed network may reach. A guest that cannot be asked makes its flows INCONCLUSIVE and stops nothing. Raises
    UsageError for a bad ``outside``, HostError where no canary can be planted.
    """
    started = time.time()
    outward = named_outside(outside)
    observed, findings = _observed(plan, session, sealed or plan.seal)
    to_host = any(flow.target == "host" for flow in plan.flows)
    of_host = host_addresses(plan) if to_host else ()
    own = (str(plan.management.host),) if to_host and plan.management.shared else ()
    runner = runner or Runner()
    with ExitStack() as stack:
        missing = _missing(plan, of_host)
        spare = stack.enter_context(spare_addresses(missing, lambda address: not in_lab(plan, address), runner))
        addresses = (*of_host, *spare)
        canaries = stack.enter_context(Canaries((*addresses, *own)))
        around = Surroundings(addresses, canaries.port, secrets.choice(_PORTS), outward)
        todo = agenda(plan, around, lambda: secrets.token_hex(8))
        beyond = [c.door for c in todo.cells if c.flow.expected == "deny" and not c.flow.target_device]
        controls = host_controls(plan, beyond, canaries, runner)
        tasks = errands(plan, addresses, lambda: secrets.token_hex(8))
        asking = _Asking(plan, session, todo, tasks, listener, _absent(plan, observed))
        asking.plant(canaries, beyond)
        asking.listen()
        asking.probe()
        asking.collect()
        sound = asking.linked & drift.as_planned(plan, observed) if observed else frozenset()
        unplugged = drift.unplugged(plan, observed) if observed else frozenset()
        heard = Heard(
            answers=asking.answers,
            troubles=asking.troubles,
            listeners=asking.listeners,
            tokens=asking.tokens,
            arrived={**asking.arrived, "host": frozenset(canaries.arrived)},
            sound=sound,
            unplugged=unplugged,
            host=controls,
        )
        ears = Ears(plan, tasks, asking.overheard, asking.deaf, sound, unplugged, session.switched)
    findings += asking.findings
    if to_host:
        findings += _unprobed(plan, (*addresses, *(address for address, _ in outward)))
    findings += ears.findings()
    flows = (*judge(plan, todo, heard, around.own), *ears.flows())
    return Report(plan.lab, plan.instance, plan.provider, plan_digest(plan), started, time.time(), flows, findings)


def plan_digest(plan: LabPlan) -> str:
    """SHA-256 of a plan's content, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(to_json(plan), sort_keys=True).encode()).hexdigest()


def _observed(plan: LabPlan, session: Session, sealed: bool) -> tuple[Observed | None, tuple[Finding, ...]]:
    try:
        observed = session.observe()
    except LabctlError as error:
        details = f"the engine does not say what runs: {error.brief}"
        return None, (Finding("unobserved", "", details, Verdict.INCONCLUSIVE),)
    return observed, drift.compare(plan, observed, sealed=sealed)


def _absent(plan: LabPlan, observed: Observed | None) -> dict[str, str]:
    """Machines that need not be asked, with the reason."""
    reasons = {
        machine.name: "Windows guests cannot be probed yet" for machine in plan.machines if machine.os == "windows"
    }
    for status in observed.machines if observed else ():
        if status.state != "running":
            reasons[status.name] = f"it is {status.state}"
    return reasons


def _missing(plan: LabPlan, addresses: Collection[str]) -> list[int]:
    """The families that guests speak and none of these addresses is of."""
    families = {flow.family for flow in plan.flows if flow.target == "host" and flow.address is None}
    return sorted(family for family in families if not any((":" in a) == (family == 6) for a in addresses))


def _unprobed(plan: LabPlan, addresses: Collection[str]) -> tuple[Finding, ...]:
    """A note for each family in which there was no address to probe, lest its absence be taken for a proof.

    Without any address at all nothing shows that no guest gets out, so the report is in doubt.
    """
    missing = _missing(plan, addresses)
    if missing and not addresses:
        text = (
            "this host has no address outside the lab's subnets and this user may not add one for a moment, so nothing "
            "stood for the world outside: run it as root, join the host to a network, or name an address with --outside"
        )
        return (Finding("unobserved", "", text, Verdict.INCONCLUSIVE),)
    texts = [f"there was no IPv{family} address outside the lab's subnets, so none was probed" for family in missing]
    return tuple(Finding("note", "", text, Verdict.PASS) for text in texts)


class _Asking:
    """The conversation with all guests. A guest in ``troubles`` is asked nothing more."""

    def __init__(
        self,
        plan: LabPlan,
        session: Session,
        todo: Agenda,
        tasks: Errands,
        listener: Listener,
        troubles: dict[str, str],
    ) -> None:
        self.plan, self.session, self.todo, self.listener = plan, session, todo, listener
        self.interview = Interview(plan, session, tasks)
        self.troubles = troubles
        self.tokens = {machine.name: secrets.token_hex(8) for machine in plan.machines}
        self.listeners: dict[Door, str] = {}
        self.ours: frozenset[Door] = frozenset()  # doors that are to be listeners
        self.answers: dict[int, answers.Answer] = {}
        self.linked: frozenset[tuple[str, str]] = frozenset()
        self.arrived: dict[str, frozenset[str]] = {}
        self.overheard: dict[str, Overheard] = {}
        self.findings: tuple[Finding, ...] = ()

    def plant(self, canaries: Canaries, doors: Iterable[Door]) -> None:
        """Count the canaries as listeners of ours, which answer a token."""
        self.tokens |= {"host": canaries.token, "management": canaries.token}
        for door in doors:
            if door.owner in ("host", "management") and door.port == canaries.port:
                self.listeners[door] = "open"

    def listen(self) -> None:
        """Open the listeners of every machine."""
        seconds = _LISTEN_SECONDS + 3 * len(self.plan.machines)
        self.ours = frozenset((*self.listeners, *(door for doors in self.todo.listeners.values() for door in doors)))
        opened = self._all("listen", lambda name: self._listen(name, seconds), self._names)
        for name, how in opened.items():
            doors = self.todo.listeners.get(name, ())
            self.listeners |= {door: how.get(i, "no answer") for i, door in enumerate(doors)}

    def probe(self) -> None:
        """Send every probe, and once more those whose expected answer did not come: on a busy host one may get lost."""
        batches = {name: self.todo.probes(name) for name in self._names}
        self._probe("probe", batches)
        self._probe("ask again", {name: tuple(p for p in batch if self._missed(p)) for name, batch in batches.items()})

    def collect(self) -> None:
        """Hear what reached the listeners, and end them, and how guests on several networks forward.

        A guest that no longer answers has nothing to add.
        """
        said = self._all("collect", self._collect, self._names)
        self.arrived = {name: arrived for name, (arrived, _, _) in said.items()}
        self.overheard = {name: overheard for name, (_, overheard, _) in said.items()}
        self.findings = tuple(finding for _, _, found in said.values() for finding in found)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(machine.name for machine in self.plan.machines)

    @property
    def deaf(self) -> dict[str, str]:
        """Machines that neither put frames on a wire nor hear any, with the reason."""
        return {**self.interview.deaf, **self.troubles}

    def _listen(self, name: str, seconds: int) -> dict[int, str]:
        doors, probes = self.todo.listeners.get(name, ()), self.todo.probes(name)
        return self.interview.listen(name, seconds, self.tokens[name], doors, probes, self.ours)

    def _collect(self, name: str) -> tuple[frozenset[str], Overheard, tuple[Finding, ...]]:
        arrived, overheard = self.interview.collect(name)
        return arrived, overheard, self._forwarding(name) if name in forwarding.asked(self.plan) else ()

    def _forwarding(self, name: str) -> tuple[Finding, ...]:
        machine = self.plan.machine(name)
        argv, stdin = forwarding.question(self.plan, machine)
        why = ""
        for _ in range(_TRIES):
            try:
                answer = self.session.run(name, argv, stdin=stdin, timeout=_START).stdout.decode(errors="replace")
                held = self._held(machine, forwarding.nameless(machine, answer))
            except LabctlError as error:  # its probes have been answered all the same
                why = error.brief
            else:
                return (*forwarding.findings(machine, answer), *held)
        return (forwarding.silent(machine, why),)

    def _held(self, machine: MachinePlan, ports: Collection[int]) -> Iterable[Finding]:
        """What keeps UDP ports open that may be clients' or a relay's; rarely asked, as few guests have such ports."""
        if not ports:
            return ()
        said = self.session.run(machine.name, forwarding.WHO, timeout=_START)
        return forwarding.held(machine, ports, said.stdout.decode(errors="replace") if said.code == 0 else None)

    def _probe(self, step: str, batches: Mapping[str, Sequence[Probe]]) -> None:
        asked = [name for name, batch in batches.items() if batch or step == "probe"]
        said = self._all(step, lambda name: self.interview.probe(name, batches[name], self.listeners), asked)
        for name, batch in said.items():
            self.answers |= batch.answers
            self.linked |= {(name, device) for device in batch.linked}

    def _missed(self, probe: Probe) -> bool:
        answer = self.answers.get(probe.id)
        if not probe.patient or answer is None:
            return False
        unproven = answer.seen == "answered" and self.listeners.get(probe.door) == "open" and not answer.proof
        return unproven or answer.seen in ("silence", "no-route")

    def _all(self, step: str, work: Callable[[str], _T], names: Iterable[str]) -> dict[str, _T]:
        """Do something with every guest in no trouble, several at a time; what goes wrong becomes its trouble."""

        def one(name: str) -> _T | None:
            try:
                return work(name)
            except answers.BadAnswer as error:
                self.troubles[name] = str(error)
            except LabctlError as error:
                self.troubles[name] = error.brief
            self.listener(Event("warning", "verify", name, f"{step}: {self.troubles[name]}"))
            return None

        todo = [name for name in names if name not in self.troubles]
        self.listener(Event("progress", "verify", message=f"{step}: {len(todo)} machines"))
        # More at a time would not be faster: emulated guests need the same cores as the answers that they wait for.
        with ThreadPoolExecutor(max_workers=max(4, 3 * (os.cpu_count() or 1))) as pool:
            done = dict(zip(todo, pool.map(one, todo), strict=True))
        return {name: value for name, value in done.items() if value is not None}
