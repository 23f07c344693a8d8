"""A running lab as its checks see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from labctl.errors import GuestError, LabctlError, UsageError
from labctl.lifecycle import locate
from labctl.plan.model import LabPlan
from labctl.providers.base import ExecResult
from labctl.spec.problems import choices
from labctl.spec.secrets import proves
from labctl.verify.guests import GuestSession

if TYPE_CHECKING:
    from testinfra.host import Host


@dataclass(frozen=True, slots=True)
class Lab:
    """One running copy of a lab. Everything in guests is done as root, over labctl's own way in."""

    name: str
    instance: str
    provider: str
    plan: LabPlan = field(repr=False)  # pytest shows what a failed check was given, and this is pages of it
    _session: GuestSession = field(repr=False, compare=False)
    _secrets: Callable[[], Mapping[str, str]] = field(repr=False, compare=False)
    _proofs: Mapping[str, str] = field(repr=False, compare=False, default_factory=dict)

    @property
    def machines(self) -> tuple[str, ...]:
        """The machines' names, in the order of the lab file."""
        return tuple(machine.name for machine in self.plan.machines)

    def machine(self, name: str) -> Host:
        """A machine as a testinfra host. Raises UsageError where the lab has none of that name."""
        return self._session.host(self._known(name))

    def exec(self, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> ExecResult:
        """Run a program in a machine: its exit code and what it wrote, as bytes. timeout is in seconds.

        Raises GuestError where the machine does not answer in time, UsageError where there is none of that name.
        """
        if isinstance(argv, str):
            raise UsageError(
                f"exec takes a list of words, not {argv!r}", hint="A shell's line: machine(NAME).run(LINE)."
            )
        return self._session.run(self._known(machine), argv, stdin=stdin, timeout=timeout)

    def address(self, machine: str, network: str | None = None) -> str:
        """An address of a machine, IPv4 before IPv6; on that network where one is named. Raises UsageError."""
        for interface in self.plan.machine(self._known(machine)).interfaces:
            if network in (None, interface.network) and interface.addresses():
                return str(interface.addresses()[0])
        raise UsageError(f"{machine} has no address{f' on {network}' if network else ''}")

    def secret(self, name: str) -> str:
        """This instance's value of a secret of the lab's. Raises UsageError where there is none of that name."""
        known = self._secrets()
        if name not in known:
            raise UsageError(f"{self.name} has no secret called {name!r}", hint=choices("Secrets", known, name))
        return known[name]

    def is_secret(self, name: str, text: str) -> bool:
        """Whether a text is this instance's value of a secret: also where the value itself is not known.

        Raises UsageError where there is none of that name, and where neither is known.
        """
        proof = self._proofs.get(name)
        return proves(proof, name, text) if proof is not None else self.secret(name) == text

    def _known(self, name: str) -> str:
        if name not in self.machines:
            raise UsageError(
                f"{self.name} has no machine called {name!r}", hint=f"Machines: {', '.join(self.machines)}."
            )
        return name


class Labs:
    """The labs of one run of pytest: each is looked up once, and its connections are shared. ``close`` ends them."""

    def __init__(self, instance: str, *, plug: bool) -> None:
        self._instance, self._plug = instance, plug
        self._open: dict[Path, Lab | LabctlError] = {}
        self._stack = ExitStack()

    def get(self, target: Path) -> Lab | LabctlError:
        """The running lab of a file, or with a hint why there is none: it is not up."""
        if target not in self._open:
            try:
                self._open[target] = self._enter(target)
            except LabctlError as error:
                self._open[target] = error
        return self._open[target]

    def close(self) -> None:
        """End the connections."""
        self._stack.close()

    def _enter(self, target: Path) -> Lab:
        running = locate.find(target, instance=self._instance)
        plan = running.plan
        if not any(machine.state == "running" for machine in running.provider.observe(plan).machines):
            raise GuestError(f"no machine of {plan.lab}/{plan.instance} runs", hint=f"labctl up {target.parent}")
        session = self._stack.enter_context(GuestSession(running.provider, plan, plug=self._plug))
        known = (running.secrets, running.proofs())
        return Lab(plan.lab, plan.instance, running.record.provider, plan, session, *known)
