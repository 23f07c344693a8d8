"""Commands in guests, through testinfra: over the provider's own way, else over SSH."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from labctl.errors import GuestError, LabctlError
from labctl.host.files import remove_tree
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.base import ExecResult, Observed, Provider, SealedError, UnfinishedError
from labctl.providers.ssh import disconnect, run_as_root

if TYPE_CHECKING:
    from testinfra.host import Host

# What a batch of probes takes in a slow guest: until then nobody disturbs it.
_LEFT_ALONE_SECONDS = 12.0

Execute = Callable[[str, bytes, float], ExecResult]
"""Run a shell command as root in one guest: command, standard input, seconds."""


class Session(Protocol):
    """A way into all guests of an instance."""

    def run(self, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> ExecResult:
        """Run a program as root in a guest. Raises LabctlError where the guest does not answer in time."""

    def ask(self, machine: str, door: str, question: bytes, *, takes: float = 0, timeout: float = 60) -> bytes | None:
        """As ``Provider.ask``; None also where the guest does not answer that way. Raises LabctlError."""

    def observe(self) -> Observed:
        """Machines and NICs as the engine reports them. Raises LabctlError."""

    @property
    def switched(self) -> bool:
        """Whether the engine promises that a NIC hears its own unicast alone, unless it is promiscuous."""


class GuestSession:
    """A ``Session`` on a provider. Use it as a context manager: it ends the shared connections.

    A guest is asked over ``Provider.execute``, and where that gets no answer over SSH, on one connection for all its
    commands: an emulated guest takes seconds for the handshake (measured: 6.9 s, against 0.4 s of the guest agent).
    """

    def __init__(self, provider: Provider, plan: LabPlan, *, plug: bool = False, runner: Runner | None = None) -> None:
        """plug: a sealed guest that cannot be asked otherwise may have its cable plugged in before and after."""
        self._provider, self._plan, self._plug = provider, plan, plug
        self._runner = runner or Runner()
        self._sockets = Path(
            tempfile.mkdtemp(prefix="labctl-ssh-")
        )  # 0700, and short: a socket's path has 100 characters
        self._hosts: dict[str, Host] = {}
        self._silent: dict[str, GuestError] = {}  # who did not answer the provider when asked last, and how
        self._lock = threading.Lock()

    def __enter__(self) -> GuestSession:
        return self

    def __exit__(self, *_error: object) -> None:
        for control in self._sockets.iterdir():
            disconnect(control, self._runner)
        remove_tree(self._sockets)

    def host(self, machine: str) -> Host:
        """The machine as a testinfra host; its ``run`` also takes ``stdin`` (bytes) and ``timeout`` (seconds)."""
        with self._lock:
            if machine not in self._hosts:
                self._hosts[machine] = guest_host(machine, lambda *task: self._execute(machine, *task))
            return self._hosts[machine]

    def run(self, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> ExecResult:
        """Run a program as root in a guest. Raises GuestError or ProviderError where it does not answer in time."""
        said = self.host(machine).run(_command(argv), stdin=stdin, timeout=timeout)
        return ExecResult(said.rc, said.stdout_bytes, said.stderr_bytes)

    def ask(self, machine: str, door: str, question: bytes, *, takes: float = 0, timeout: float = 60) -> bytes | None:
        """As ``Provider.ask``; None also where the guest does not answer that way: the next command goes over SSH."""
        try:
            return self._provider.ask(self._plan, machine, door, question, takes=takes, timeout=timeout)
        except (SealedError, UnfinishedError):
            raise
        except GuestError as silent:
            self._silent[machine] = silent
            return None

    def observe(self) -> Observed:
        """Machines and NICs as the engine reports them."""
        return self._provider.observe(self._plan)

    @property
    def switched(self) -> bool:
        """Whether the engine promises that a NIC hears its own unicast alone, unless it is promiscuous."""
        return self._provider.capabilities(self._plan).promiscuous

    def _execute(self, machine: str, command: str, stdin: bytes, timeout: float) -> ExecResult:
        argv = ["/bin/sh", "-c", command]
        if silent := self._silent.pop(machine, None):
            return self._by_ssh(machine, command, stdin, timeout, silent)
        try:
            return self._provider.execute(self._plan, machine, argv, stdin=stdin, timeout=timeout)
        except SealedError:
            if not self._plug:
                raise
            return self._provider.execute_cut_off(
                self._plan, machine, argv, stdin=stdin, seconds=_LEFT_ALONE_SECONDS, timeout=timeout
            )
        except UnfinishedError:
            raise
        except GuestError as error:
            return self._by_ssh(machine, command, stdin, timeout, error)

    def _by_ssh(self, machine: str, command: str, stdin: bytes, timeout: float, silent: GuestError) -> ExecResult:
        try:
            endpoint = self._provider.endpoint(self._plan, machine)
            # one connection for each machine: a port may be the same for all, as 22 is on a management network
            control = self._sockets / hashlib.sha256(machine.encode()).hexdigest()[:8]
            return run_as_root(endpoint, command, stdin=stdin, timeout=timeout, control=control, runner=self._runner)
        except LabctlError as error:
            why = f"{silent.brief.removeprefix(f'{machine}: ')}; by SSH: {error.brief}"
            raise GuestError(f"{machine} does not answer: {why}", details=error.details) from error


def _command(argv: Sequence[str]) -> str:
    """What a guest's shell is told; a script for a shell needs no second one."""
    match argv:
        case ["sh", "-c", script, _, *arguments]:
            return f"set -- {shlex.join(arguments)}\n{script}"
    return shlex.join(argv)


def guest_host(name: str, execute: Execute) -> Host:
    """A testinfra host whose commands go through ``execute``: testinfra's own back ends can pass no standard input."""
    from testinfra.backend.base import BaseBackend, CommandResult
    from testinfra.host import Host

    class Backend(BaseBackend):  # type: ignore[misc]  # testinfra has no types: its class is Any
        NAME = "labctl"

        def run(self, command: str, *args: str, **options: Any) -> CommandResult:
            self._encoding = "utf-8"  # else testinfra asks the guest, with a program
            line = self.get_command(command, *args)
            result = execute(line, options.get("stdin", b""), options.get("timeout", 60))
            return self.result(result.code, line.encode(), result.stdout, result.stderr)

    backend = Backend(name)
    host = Host(backend)
    backend.set_host(host)
    return host
