"""Labs on the engines under Vagrant: labctl renders, prepares and looks; Vagrant makes, starts and provisions."""

from __future__ import annotations

import hashlib
import shlex
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from labctl.errors import GuestError, LabctlError, ProviderError
from labctl.events import Event, Listener, ignore
from labctl.host.files import append, private_folder, remove_tree, write_atomic
from labctl.host.folders import runtime_root
from labctl.host.runner import Runner
from labctl.plan.diff import Action
from labctl.plan.guest import GuestFile, secret_files
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.agent import GuestAgent
from labctl.providers.base import (
    BootImage,
    Capabilities,
    Checkpoints,
    Endpoint,
    ExecResult,
    Job,
    MachineState,
    Observed,
    Provider,
    SealedError,
)
from labctl.providers.ssh import disconnect, run_as_root
from labctl.providers.vagrant import cut_off, linux, networks, provision
from labctl.providers.vagrant.command import Vagrant
from labctl.providers.vagrant.engine import Engine, Names
from labctl.providers.vagrant.libvirt import Libvirt
from labctl.providers.vagrant.notes import MachineNote, Notes
from labctl.providers.vagrant.render import render_libvirt, render_virtualbox
from labctl.providers.vagrant.virtualbox import VirtualBox
from labctl.providers.workers import Stop, each, in_waves, raise_failures
from labctl.spec.secrets import mask

_UP_SECONDS = 3600.0
_HALT_SECONDS = 300.0
_SHUTDOWN_SECONDS = 60.0
_POLL_SECONDS = 0.5
_KEYSCAN_SECONDS = 30
_PING_SECONDS = 3.0
_SSH = 22
# What Vagrant says: vagrant-libvirt once it has the box's disk, and Vagrant itself once it has logged in to a machine.
_MAKES_MACHINE = "Creating domain"
_HAS_MADE_MACHINE = "Running provisioner:"
# Only configured anew, not provisioned: the provisioner with this name in the Vagrantfile.
_CONFIGURE = ("provision", "--provision-with", "machine")


class VagrantProvider(Provider):
    """Runs a plan through Vagrant. Subclasses name the engine and render for it."""

    engine: ClassVar[type[Engine]]

    def __init__(self, workdir: Path, listener: Listener = ignore) -> None:
        lock = threading.Lock()

        def serial(event: Event) -> None:
            with lock:  # machines are worked on in parallel; whoever listens need not know
                listener(event)

        super().__init__(workdir, serial)
        self._notes = Notes(workdir, self.name)

    @classmethod
    def capabilities(cls, plan: LabPlan | None = None) -> Capabilities:
        _ = plan
        return cls.engine.capabilities()

    def up(self, job: Job) -> None:
        plan, names = job.plan, self._engine.names(job.plan)
        private_folder(self.workdir)
        self._notes.announce(names)
        goes = {name for name, action in job.actions.items() if action in ("remove", "replace")}
        known = self._notes.names()
        self._clear_copies(known)
        self._engine.remove({name: known.machines[name] for name in sorted(goes) if name in known.machines})
        for name in sorted(goes):
            self._forget(name)
        self._write(job)
        self._engine.prepare(plan)
        stop = Stop()
        variables = self._engine.variables(job.images.values())
        vagrant = Vagrant(self._notes.project, self._runner, lab_root=job.root, variables=variables)

        # The first machine of a box brings it in, and two at once would both try to: the others wait for that.
        boxes = {name: _box(job, name) for wave in plan.waves for name in wave}
        pioneers = {box: name for name, box in reversed(boxes.items())}
        there = {box: threading.Event() for box in pioneers}

        def lift(name: str) -> None:
            box_is_there = there[boxes[name]]
            while name != pioneers[boxes[name]] and not box_is_there.wait(0.2):
                stop.check()
            try:
                self._lift(job, vagrant, name, stop, box_is_there)
            finally:
                box_is_there.set()

        jobs = job.jobs if self._engine.parallel else 1
        failures = in_waves(plan, lift, jobs=jobs, stop=stop, listener=self.listener)
        raise_failures(failures, len(plan.machines))

    def down(self, plan: LabPlan, machines: Sequence[str]) -> None:
        stop = Stop()
        states = {status.name: status.state for status in self.observe(plan).machines}
        vagrant = Vagrant(self._notes.project, self._runner)
        failures: dict[str, LabctlError] = {}

        def halt(name: str) -> None:
            self.listener(Event("started", "down", name))
            began = time.monotonic()
            if not self._shut_down(plan, name, stop):
                # Vagrant waits a minute for a guest that it cannot reach.
                force = () if self._engine.joined(plan, name) else ("--force",)
                self._carry_out(vagrant, name, ("halt", *force), "down", stop, seconds=_HALT_SECONDS)
            self.listener(Event("done", "down", name, seconds=time.monotonic() - began))

        for wave in reversed(plan.waves):
            names = [name for name in wave if name in set(machines) and states.get(name) in ("running", "paused")]
            failures |= each(names, halt, jobs=4 if self._engine.parallel else 1, stop=stop)
        self._disconnect(machines)
        raise_failures(failures, len(machines))

    def destroy(self) -> None:
        known = self._notes.names()
        self._disconnect(list(known.machines))
        self._clear_copies(known)
        self._engine.remove(known.machines)
        self._engine.remove_networks(known.networks)
        remove_tree(self.workdir)

    def observe(self, plan: LabPlan) -> Observed:
        return self._engine.observe(plan, self._notes.names())

    def endpoint(self, plan: LabPlan, machine: str) -> Endpoint:
        wanted = plan.machine(machine)
        found = self._engine.address(plan, wanted.name)
        if found is not None and not self._engine.joined(plan, wanted.name):
            raise SealedError(f"{machine} is sealed", hint="labctl exec may work; labctl unseal opens the lab.")
        pinned = self._notes.host_key(machine)
        if found is None or not pinned.exists():
            raise ProviderError(
                f"{machine} cannot be reached", hint="labctl up starts it; labctl status shows what runs."
            )
        host, port = found
        known_hosts = self.workdir / f"known_hosts-{machine}"
        place = host if port == _SSH else f"[{host}]:{port}"
        line = f"{place} {pinned.read_text(encoding='utf-8').strip()}\n"
        if not known_hosts.exists() or known_hosts.read_text(encoding="utf-8") != line:
            write_atomic(known_hosts, line, mode=0o600)
        return Endpoint(host, port, self._notes.machine(machine).user, self._notes.identity(machine), known_hosts)

    def execute(
        self, plan: LabPlan, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
    ) -> ExecResult:
        name = plan.machine(machine).name
        try:
            if (agent := self._agent(plan, name)) is not None:
                return agent.execute(argv, stdin=stdin, timeout=timeout)
            endpoint, control = self.endpoint(plan, name), self._control(name)
            command = shlex.join(argv)
            return run_as_root(endpoint, command, stdin=stdin, timeout=timeout, control=control, runner=self._runner)
        except SealedError:
            raise
        except (GuestError, ProviderError) as error:
            if self._state(plan, name) != "running":
                raise ProviderError(f"{machine} does not run", hint="labctl up starts it.") from error
            kind = type(error) if isinstance(error, GuestError) else GuestError
            raise kind(f"{machine}: {error.brief}", details=error.details, hint=error.hint) from error

    def execute_cut_off(
        self, plan: LabPlan, machine: str, argv: Sequence[str], *, stdin: bytes = b"", seconds: float, timeout: float
    ) -> ExecResult:
        name = plan.machine(machine).name
        if self._agent(plan, name) is not None:
            return self.execute(plan, name, argv, stdin=stdin, timeout=timeout)

        def execute(argv: Sequence[str], *, stdin: bytes, timeout: float) -> ExecResult:
            return self.execute(plan, name, argv, stdin=stdin, timeout=timeout)

        def plug(joined: bool) -> None:
            (self.unseal if joined else self.seal)(plan, name)

        mac = plan.machine(name).management_mac
        return cut_off.run(execute, plug, mac, argv, stdin=stdin, seconds=seconds, timeout=timeout)

    def seal(self, plan: LabPlan, machine: str) -> None:
        self._engine.join(plan, plan.machine(machine).name, False)
        self._disconnect([machine])

    def unseal(self, plan: LabPlan, machine: str) -> None:
        self._engine.join(plan, plan.machine(machine).name, True)

    def checkpoints(self, plan: LabPlan) -> Checkpoints:
        return self._engine.checkpoints(plan, self._lost)

    def logs(self, plan: LabPlan, machine: str) -> tuple[Path, ...]:
        path = self._notes.log(plan.machine(machine).name)
        return (path,) if path.exists() else ()

    def image_digests(self, plan: LabPlan) -> Mapping[str, str]:
        known = {machine.name: self._notes.machine(machine.name).digest for machine in plan.machines}
        return {name: digest for name, digest in known.items() if digest}

    @abstractmethod
    def _render(self, plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
        """The files of the project folder, by name."""

    @cached_property
    def _runner(self) -> Runner:
        return Runner(log=self.workdir / "commands.log")  # nothing is noted while there is no folder

    @cached_property
    def _engine(self) -> Engine:
        return self.engine(self._runner)

    def _lift(self, job: Job, vagrant: Vagrant, name: str, stop: Stop, box_is_there: threading.Event) -> None:
        """Bring one machine up; ``box_is_there`` is set as soon as it is made. Raises ProviderError."""
        stop.check()
        action, note, state = job.actions.get(name, "keep"), self._notes.machine(name), self._state(job.plan, name)
        if not self._whole(name, state, note):
            self._engine.remove({name: self._notes.names().machines[name]})
            self._notes.forget(name)
            note, state = MachineNote(), "absent"
        if state == "paused":
            self._engine.wake(job.plan, name)
            state = "running"
        if state != "absent":
            box_is_there.set()
        if state == "running" and action == "keep" and note.complete:
            self._engine.settle(job.plan, name)
            return
        image = job.images.get(name)
        note = replace(note, user=image.user if image is not None else note.user, made=note.made or note.complete)
        if state == "absent":
            note = replace(note, digest=image.digest if image is not None else "")
        verb = self._verb(action, state, note.complete)
        self._notes.keep(name, replace(note, complete=False))
        step = "provision" if verb[0] == "provision" else "boot"
        began = time.monotonic()
        self.listener(Event("started", step, name))

        def heard(line: str) -> None:
            if line.startswith(_MAKES_MACHINE):
                box_is_there.set()
            elif line.startswith(_HAS_MADE_MACHINE):
                self._notes.keep(name, replace(note, complete=False, made=True))

        machine = job.plan.machine(name)
        in_two = machine.secrets or networks.opened(job.plan, machine)
        first, last = _in_two(verb, job.plan, machine) if in_two else (verb, ())
        self._carry_out(vagrant, name, first, step, stop, seconds=_UP_SECONDS, heard=heard)
        self._engine.settle(job.plan, name)
        self._notes.copies(name).unlink(missing_ok=True)
        self._pin(job.plan, name)
        if last:
            files = secret_files(machine, job.secrets)
            with self._told(job.plan, name, files) if files else nullcontext(str) as hide:
                self._carry_out(vagrant, name, last, "provision", stop, seconds=_UP_SECONDS, hide=hide)
        self._notes.keep(name, replace(note, complete=True, made=True))
        self.listener(Event("done", step, name, seconds=time.monotonic() - began))

    def _whole(self, name: str, state: MachineState, note: MachineNote) -> bool:
        """Whether Vagrant can go on with a machine.

        It makes one in many steps and takes what it finds for a machine: one that it was killed at would lack NICs, a
        key or a disk for ever. So only those are kept that it has logged in to once.
        """
        if state == "absent":
            return False  # there may be a disk, which Vagrant will not write over
        if state not in ("running", "paused") and not self._notes.known_to_vagrant(name):
            return False  # its notes are gone
        return note.complete or note.made

    def _verb(self, action: Action, state: MachineState, complete: bool) -> tuple[str, ...]:
        """What to tell Vagrant. It provisions by itself at the first start only, finished or not."""
        anew = ("--provision",) if not complete or action == "provision" or state == "absent" else ()
        if state != "running":
            return ("up", f"--provider={self.name}", *anew)
        if action == "restart":
            return ("reload", *anew)
        return _CONFIGURE if action == "configure" and complete else ("provision",)

    def _shut_down(self, plan: LabPlan, name: str, stop: Stop) -> bool:
        """Ask a guest's agent to end it, and wait for that; False where there is no agent, or it does not end."""
        try:
            if self._state(plan, name) != "running" or (agent := self._agent(plan, name)) is None:
                return False
            agent.shut_down()
        except GuestError:
            return False
        deadline = time.monotonic() + _SHUTDOWN_SECONDS
        while self._state(plan, name) == "running":
            stop.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _carry_out(
        self,
        vagrant: Vagrant,
        name: str,
        verb: Sequence[str],
        step: str,
        stop: Stop,
        *,
        seconds: float,
        heard: Callable[[str], None] = lambda _: None,
        hide: Callable[[str], str] = str,
    ) -> None:
        log = self._notes.log(name)
        append(log, f"==> {time.strftime('%Y-%m-%dT%H:%M:%S')} vagrant {shlex.join(verb)}\n".encode())

        def said(line: str) -> None:
            line = hide(line)
            append(log, f"{line}\n".encode())
            heard(line)
            self.listener(Event("progress", step, name, line[:200]))

        try:
            vagrant.carry_out(name, verb, said=said, timeout=seconds, cancelled=stop)
        except ProviderError as error:
            raise ProviderError(error.brief, details=hide(error.details), hint=error.hint) from None
        stop.check()

    @contextmanager
    def _told(self, plan: LabPlan, name: str, files: Sequence[GuestFile]) -> Iterator[Callable[[str], str]]:
        """Have a machine's secrets in it meanwhile; gives what hides them in a text. Raises GuestError."""
        known = {PurePosixPath(file.path).name: file.content.decode() for file in files}
        result = self.execute(plan, name, ["/bin/sh", "-e"], stdin=linux.tell(files).encode())
        if result.code != 0:
            raise GuestError(f"{name} could not be told its secrets", details=result.stderr.decode(errors="replace"))
        try:
            yield lambda text: mask(text.encode(), known).decode()
        finally:
            with suppress(LabctlError):  # it may have died, and its memory with it
                self.execute(plan, name, ["/bin/sh", "-ec", linux.FORGET])

    def _write(self, job: Job) -> None:
        """The project folder as rendered; Vagrant's own notes in it stay."""
        files = self._render(job.plan, job.images)
        remove_tree(self._notes.project / "provision")
        for name, text in files.items():
            write_atomic(self._notes.project / name, text)

    def _pin(self, plan: LabPlan, name: str) -> None:
        """Note the guest's SSH host key, so that every later login is to the same guest."""
        found = self._engine.address(plan, name)
        if found is None or self._notes.host_key(name).exists():
            return
        host, port = found
        argv = ["ssh-keyscan", "-T", str(_KEYSCAN_SECONDS), "-t", "ed25519", "-p", str(port), host]
        result = self._runner.run(argv, check=False, timeout=2 * _KEYSCAN_SECONDS, changes=False)
        keys = [line.split()[1:3] for line in result.text.splitlines() if not line.startswith("#")]
        if not keys or len(keys[0]) != 2:
            self.listener(Event("warning", "login", name, "no SSH server answers"))
            return
        write_atomic(self._notes.host_key(name), " ".join(keys[0]) + "\n", mode=0o600)

    def _agent(self, plan: LabPlan, name: str) -> GuestAgent | None:
        """The guest's agent where it answers; asked once, because waiting for one that is not there takes seconds."""
        if name not in self._agents:
            agent = self._engine.agent(plan, name)
            try:
                if agent is not None:
                    agent.call("guest-ping", timeout=_PING_SECONDS)
            except GuestError:
                agent = None
            self._agents[name] = agent
        return self._agents[name]

    @cached_property
    def _agents(self) -> dict[str, GuestAgent | None]:
        return {}

    def _state(self, plan: LabPlan, name: str) -> MachineState:
        alone = replace(plan, machines=(plan.machine(name),))  # the engine is asked about each machine by itself
        return next(status.state for status in self.observe(alone).machines if status.name == name)

    def _clear_copies(self, known: Names) -> None:
        for name, (_, uuid) in known.machines.items():
            if (noted := self._notes.copies(name)).exists():
                self._engine.clear(noted, uuid)

    def _forget(self, name: str) -> None:
        self._notes.forget(name)
        self.listener(Event("done", "remove", name))

    def _control(self, name: str) -> Path:
        """The socket of a shared connection: short, because its path has 100 characters at most."""
        digest = hashlib.sha256(f"{self.workdir.resolve()}/{name}".encode()).hexdigest()[:16]
        return private_folder(runtime_root() / "ssh") / digest

    def _lost(self, name: str) -> None:
        """A machine went back to an earlier state: it knows nothing of the connections there are."""
        self._disconnect([name])
        self._agents.pop(name, None)

    def _disconnect(self, names: Sequence[str]) -> None:
        for name in names:
            if (control := self._control(name)).exists():
                disconnect(control, self._runner)


def _box(job: Job, name: str) -> str:
    """What tells a machine's box from others."""
    return job.images[name].digest if name in job.images else job.plan.machine(name).image


def _in_two(verb: tuple[str, ...], plan: LabPlan, machine: MachinePlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to tell Vagrant until the machine stands, and for the steps of the lab: they may read secrets then, and a
    router's reach members that ``peers: false`` keeps from each other.

    The second is empty where the verb brings no steps, or there are none.
    """
    script = provision.script(plan, machine)
    before, steps = ",".join(script.names(steps=False)), ",".join(script.names(steps=True))
    if not steps or (verb != ("provision",) and "--provision" not in verb):
        return verb, ()
    return (*verb, "--provision-with", before), ("provision", "--provision-with", steps)


class LibvirtProvider(VagrantProvider):
    """Domains of the system's libvirt daemon, made by vagrant-libvirt."""

    name: ClassVar[str] = "libvirt"
    engine: ClassVar[type[Engine]] = Libvirt

    def _render(self, plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
        return render_libvirt(plan, images)


class VirtualBoxProvider(VagrantProvider):
    """Machines of the user's own VirtualBox."""

    name: ClassVar[str] = "virtualbox"
    engine: ClassVar[type[Engine]] = VirtualBox

    def _render(self, plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
        return render_virtualbox(plan, images)
