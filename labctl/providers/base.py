"""What every provider is. A provider gets a plan and decides nothing about topology or policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from labctl.errors import GuestError, UsageError
from labctl.events import Listener, ignore
from labctl.plan.diff import Action
from labctl.plan.model import LabPlan, MachinePlan

MachineState = Literal["running", "paused", "stopped", "dead", "absent"]

MANAGEMENT = "management"
"""The wire of a management NIC, as providers report it. What is not as closed as planned follows in parentheses."""

# Of a process that runs a machine, beside the guest's memory: devices, translated code, threads for disks.
ENGINE_MEMORY, ENGINE_DISK, ENGINE_THREADS = 100 << 20, 16 << 20, 8

_NO_SEAL = "labctl doctor says which providers can."


ONE_MOMENT = "all machines stand still at one moment, at the save and until all are restored"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do on this host, read before anything is created.

    promiscuous: a NIC can be given other NICs' unicast, and NICs without it do not get it. isolated_ports: ``peers:
    false`` is held on the host side. egress: a declared way out can be given while the host stays closed. seal: the
    management NIC can go away. checkpoints: lab-wide checkpoints. console: a serial console can be attached. fresh:
    checkpoints are so cheap that ``up`` keeps one of every new lab by itself. freight: a checkpoint can be taken to
    another host. secrets: provisioning steps can be told secrets, and no file that is left has them. consistency: what
    the states of a checkpoint's machines have in common in time, for people; ONE_MOMENT where nothing is missing.
    """

    promiscuous: bool
    isolated_ports: bool
    egress: bool
    seal: bool
    checkpoints: bool
    console: bool
    windows: bool
    consistency: str
    fresh: bool = False
    freight: bool = False
    secrets: bool = False


@dataclass(frozen=True, slots=True)
class Lack:
    """Something this host lacks for a provider. fatal: it cannot run without it. remedy: a command or step."""

    what: str
    remedy: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class BootImage:
    """An image as a provider starts it: files made by ``labctl.images``.

    disk: a read-only base disk (qcow2 for qemu). kernel, initrd, cmdline: for direct boot; None where the disk boots
    itself. digest names the content. user: the account labctl logs in as.
    """

    name: str
    digest: str
    disk: Path
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    user: str = "root"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a machine takes of its host, in bytes.

    memory: from the start on, and for itself alone. shared: names what it has in common with others that name the same,
    of shared_memory in all; ``""`` for nothing. most_memory: where its guest uses all that it was given. disk: for its
    start. processes: with their threads.
    """

    memory: int
    most_memory: int
    disk: int = 0
    processes: int = 1
    shared: str = ""
    shared_memory: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a guest over SSH from this host. known_hosts pins the guest's host key."""

    host: str
    port: int
    user: str
    identity: Path
    known_hosts: Path


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """A machine as the engine has it. since: seconds since the epoch when it started, or None. details: free text."""

    name: str
    state: MachineState
    pid: int | None = None
    since: float | None = None
    details: str = ""


@dataclass(frozen=True, slots=True)
class ObservedNic:
    """A NIC as the engine reports it. wire is the network's name, MANAGEMENT, or the engine's own word for a wire
    that labctl does not know. linked: its cable is in; the management NIC of a sealed machine is not."""

    machine: str
    mac: str
    wire: str
    linked: bool = True
    details: str = ""


def is_management(nic: ObservedNic) -> bool:
    """Whether this is a machine's management NIC, closed as planned or not."""
    return nic.wire == MANAGEMENT or nic.wire.startswith(f"{MANAGEMENT} (")


@dataclass(frozen=True, slots=True)
class Observed:
    """What is: machines and NICs as the engine reports them. leftovers: things with labctl's mark for this instance
    that the plan does not have. faults: what the plan has beside machines and does not work, for people. openings:
    machine and, for people, what its engine lets through that no plan allows, such as a shared folder. wires: the same
    of networks, ``""`` for all of them. unseen: running machines whose NICs the engine did not tell, and why."""

    machines: tuple[MachineStatus, ...]
    nics: tuple[ObservedNic, ...] = ()
    leftovers: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    openings: tuple[tuple[str, str], ...] = ()
    wires: tuple[tuple[str, str], ...] = ()
    unseen: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One change to carry out: the plan, what to do with each machine, and the image of each machine to be created.

    root is the lab's folder, from which provisioning files are read. secrets: those of this instance, by name.
    """

    plan: LabPlan
    actions: Mapping[str, Action]
    images: Mapping[str, BootImage]
    root: Path
    jobs: int = field(default=4)
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a guest gave back."""

    code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Backend:
    """An entry of ``labctl.providers.PROVIDERS``.

    render: pure, a plan and the images known so far (machines not built yet are missing) to file name and text.
    load: imports the class that runs plans, or None where labctl only renders for this engine so far. images: the kind
    of image source in the catalogue that its machines start from, or None where they need none.
    """

    name: str
    summary: str
    probe: Callable[[], tuple[Lack, ...]]
    render: Callable[[LabPlan, Mapping[str, BootImage]], Mapping[str, str]]
    load: Callable[[], type[Provider]] | None
    images: str | None = None

    @property
    def engine(self) -> type[Provider] | None:
        """What runs plans; imported only here, because most verbs name engines without needing one."""
        return self.load() if self.load is not None else None


@dataclass(frozen=True, slots=True)
class SnapshotSize:
    """Bytes on the host's disk. own: given back when the snapshot is deleted. shared: with others or the machine."""

    own: int
    shared: int


class SealedError(GuestError):
    """Nothing leads into a sealed machine on this engine."""


class UnfinishedError(GuestError):
    """A program was started in a guest and did not end in time: to start it once more would not help."""


class Checkpoints(ABC):
    """The engine's own snapshots, one machine at a time; ``lifecycle.checkpoint`` makes checkpoints of a lab of them.

    A key names a snapshot: ``labctl-`` and 12 hexadecimal digits. All verbs but ``pause`` may follow a crash at any
    point of themselves; each raises ProviderError. Different machines may be worked on at the same time.
    """

    @abstractmethod
    def pause(self, machines: Sequence[str]) -> Mapping[str, float]:
        """Stop the clocks of running machines, as nearly at one moment as the engine can.

        Gives when each stood still, in seconds of one clock. Where one cannot be paused the others run again.
        """

    @abstractmethod
    def resume(self, machines: Sequence[str]) -> None:
        """Let machines go on; those that are not paused are left alone. All are tried, whichever of them fails."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what machines need around them before they are restored, such as wires that are gone."""

    @abstractmethod
    def save(self, machine: str, key: str) -> None:
        """Keep the disks of a machine, and of a paused one its memory; it stays as it is."""

    @abstractmethod
    def restore(self, machine: str, key: str) -> None:
        """Put a machine back, whatever state it is in: stopped if that is how it was saved, else paused, or running
        where the engine cannot hold it still."""

    @abstractmethod
    def delete(self, machine: str, key: str) -> None:
        """Forget a snapshot; no error where it is not there. The machine and its other snapshots stay as they are."""

    @abstractmethod
    def keys(self, machine: str) -> frozenset[str]:
        """Keys of the snapshots that a machine has; nothing where it does not exist."""

    def sizes(self, machine: str) -> Mapping[str, SnapshotSize]:
        """What snapshots of a machine take, by key; those are left out of which the engine cannot tell."""
        _ = machine
        return {}


@dataclass(frozen=True, slots=True)
class Crate:
    """A snapshot of a machine outside of any instance. disks: a file for each disk; the first has the memory too.

    needs: what that memory can only be loaded into: a name for people, and what it has to be. Empty without memory.
    """

    disks: tuple[Path, ...]
    needs: Mapping[str, str] = field(default_factory=dict)


class Freight(ABC):
    """Machines' snapshots out of one instance and into another, on another host; keys are those of ``Checkpoints``.

    Different machines may be worked on at the same time. Each verb raises ProviderError, HostError.
    """

    @abstractmethod
    def pack(self, machine: str, key: str, folder: Path) -> Crate:
        """Write a snapshot to files in a folder that hold nothing else of the machine, which goes on meanwhile.

        Raises UsageError for a machine that was not provisioned to its end.
        """

    @abstractmethod
    def offers(self, machine: str) -> Mapping[str, str]:
        """What this host has of what a crate may need for the job's machine, by the same names."""

    @abstractmethod
    def unpack(self, machine: str, key: str, crate: Crate, *, memory: bool) -> None:
        """Make a machine, which must not exist, of a crate whose files it takes; it does not start.

        ``Checkpoints.restore`` puts it into the state of the key then: paused, or stopped where ``memory`` is False.
        What the files say is not believed. Raises ProviderError for one that is not what ``pack`` writes.
        """

    @abstractmethod
    def settle(self, machines: Sequence[str], was: LabPlan) -> None:
        """Make unpacked machines those of the job: start those that do not run, give all the instance's own keys,
        random numbers and addresses. was: the plan of the instance that they come from. Raises GuestError, too.
        """


class Provider(ABC):
    """An engine that runs plans. One object serves one instance; ``workdir`` is the provider's own folder in it.

    The engine is the truth about what runs. ``workdir`` holds what it takes to find it again after a crash: whatever
    starts a process notes its intent there first. Every verb is idempotent and may follow a crash at any point.
    """

    name: ClassVar[str]

    def __init__(self, workdir: Path, listener: Listener = ignore) -> None:
        self.workdir = workdir
        self.listener = listener

    @classmethod
    @abstractmethod
    def capabilities(cls, plan: LabPlan | None = None) -> Capabilities:
        """What this provider can do on this host; with a plan, given the settings that the plan asks for."""

    @classmethod
    def footprint(cls, plan: LabPlan, machine: MachinePlan, image: BootImage | None) -> Footprint:
        """What starting a machine takes of this host. image: None where the engine has it from elsewhere."""
        _ = plan, image
        whole = machine.memory + ENGINE_MEMORY
        return Footprint(whole, whole, disk=ENGINE_DISK, processes=ENGINE_THREADS + machine.cpus)

    @abstractmethod
    def up(self, job: Job) -> None:
        """Carry out ``job.actions``; afterwards every machine of the plan runs, is configured and provisioned.

        A machine whose action is ``keep`` is left alone if it runs and started if it does not.
        Raises ProviderError or GuestError after all machines that could be finished are finished.
        """

    @abstractmethod
    def down(self, plan: LabPlan, machines: Sequence[str]) -> None:
        """Stop machines, in reverse dependency order, gracefully where the guest answers; disks stay."""

    @abstractmethod
    def destroy(self) -> None:
        """Stop and remove everything of this instance, known from ``workdir`` and the engine, plan or no plan."""

    @abstractmethod
    def observe(self, plan: LabPlan) -> Observed:
        """Machines and NICs as the engine reports them."""

    @abstractmethod
    def endpoint(self, plan: LabPlan, machine: str) -> Endpoint:
        """How to reach a machine over SSH. Raises ProviderError where it does not run, SealedError if it is sealed."""

    @abstractmethod
    def execute(
        self, plan: LabPlan, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
    ) -> ExecResult:
        """Run a program as root in the guest over whatever way is open.

        Raises GuestError where there is no answer, SealedError where there is no way.
        """

    def write_over(self, plan: LabPlan, machine: str, files: Mapping[str, bytes]) -> bool:
        """Write over the beginning of files that are in the guest, by path, without a program's being started there.

        False where that is not possible: nothing leads there but programs, or a file is missing. Raises GuestError.
        """
        _ = plan, machine, files
        return False

    def ask(
        self, plan: LabPlan, machine: str, door: str, question: bytes, *, takes: float = 0, timeout: float
    ) -> bytes | None:
        """What a program that waits in the guest answers, without another one's being started there.

        The program takes the question from the file ``{door}.question`` as soon as a word comes by the pipe ``door``,
        and its answer is the file ``{door}.{word}``. None where nobody waits there, or nothing leads there but
        programs. takes: seconds before which there is hardly an answer; timeout: after which there is none. Raises
        GuestError; UnfinishedError where it was asked and there is no answer in time.
        """
        _ = plan, machine, door, question, takes, timeout
        return None

    def execute_cut_off(
        self, plan: LabPlan, machine: str, argv: Sequence[str], *, stdin: bytes = b"", seconds: float, timeout: float
    ) -> ExecResult:
        """As ``execute``, in a sealed machine: where there is no other way, by plugging its management NIC in before
        the program begins and after ``seconds``, and never meanwhile."""
        _ = seconds
        return self.execute(plan, machine, argv, stdin=stdin, timeout=timeout)

    def seal(self, plan: LabPlan, machine: str) -> None:
        """Cut a running or paused machine off its management NIC, until ``unseal`` or its next start.

        Idempotent, and read back from the engine. Raises ProviderError where it does not run or is not cut off
        afterwards; UsageError where the engine cannot.
        """
        raise UsageError(f"{self.name} cannot seal {self._machine(plan, machine).name}", hint=_NO_SEAL)

    def unseal(self, plan: LabPlan, machine: str) -> None:
        """Join a running or paused machine to its management NIC again. Raises as ``seal`` does."""
        raise UsageError(f"{self.name} cannot unseal {self._machine(plan, machine).name}", hint=_NO_SEAL)

    def checkpoints(self, plan: LabPlan) -> Checkpoints | None:
        """Snapshots of the plan's machines, or None where the engine has none."""
        _ = plan
        return None

    def freight(self, job: Job) -> Freight | None:
        """What takes snapshots of the job's machines to other hosts and brings them here, or None."""
        _ = job
        return None

    def disk_use(self) -> int | None:
        """Bytes that this instance takes on the host's disk, without images; None where the engine cannot tell."""
        return None

    def uses(self) -> frozenset[Path]:
        """Files of images that machines of this instance cannot start without."""
        return frozenset()

    def console(self, plan: LabPlan, machine: str) -> Path | None:
        """A unix socket that carries the machine's serial console, or None."""
        _ = self._machine(plan, machine)
        return None

    def logs(self, plan: LabPlan, machine: str) -> tuple[Path, ...]:
        """Log files about a machine that exist now, the most telling first."""
        _ = self._machine(plan, machine)
        return ()

    def image_digests(self, plan: LabPlan) -> Mapping[str, str]:
        """Machine name to the digest of the image that its disk was made from; unknown ones are left out."""
        _ = plan
        return {}

    @staticmethod
    def _machine(plan: LabPlan, name: str) -> MachinePlan:
        return plan.machine(name)
