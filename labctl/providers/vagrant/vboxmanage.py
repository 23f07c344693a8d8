"""The ``VBoxManage`` program, typed. What it changes is read back: some of its failures end with status 0.

Debian's VBoxManage is a script that warns on standard output where the kernel driver is missing; real errors are lines
of standard error that begin with ``VBoxManage: error:``. A call takes 0.03 to 0.1 s.
Reference: https://www.virtualbox.org/manual/topics/vboxmanage.html
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import ProviderError
from labctl.host.runner import Argument, Result, Runner
from labctl.providers.vagrant import virtualbox_reading as reading
from labctl.providers.vagrant.virtualbox_model import Details, NatNetwork, Registered, Snapshot

STOPPED = ("poweroff", "aborted", "aborted-saved", "saved")
"""States in which no process runs the machine."""

_QUERY_SECONDS = 60.0
_CHANGE_SECONDS = 120.0
_DISK_SECONDS = 900.0  # what copies or merges disks and memory
_SETTLE_SECONDS = 15.0
_POLL_SECONDS = 0.1
# The first character keeps a name from being an option.
_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
# What VirtualBox says while the program that ran or changed a machine until now lets go of it.
_LOCKED = ("already locked", "while it is locked")


@dataclass(frozen=True, slots=True)
class VBoxManage:
    """VirtualBox as its command line has it. Machines are named by UUID; whatever goes wrong is a ProviderError."""

    runner: Runner
    program: str = "VBoxManage"

    def machines(self) -> tuple[Registered, ...]:
        """All machines of this user, labctl's and others'."""
        return reading.registered(self._ask("list", "vms"))

    def running(self) -> tuple[Registered, ...]:
        """Those machines of this user that run or stand still for a moment."""
        return reading.registered(self._ask("list", "runningvms"))

    def find(self, name: str) -> Registered | None:
        """The machine with this name. Raises ProviderError where several have it."""
        found = [machine for machine in self.machines() if machine.name == name]
        if len(found) > 1:
            raise ProviderError(
                f"VirtualBox has {len(found)} machines called {name}", hint="Rename or remove the others."
            )
        return found[0] if found else None

    def details(self, uuid: str) -> Details:
        """The machine as it is now."""
        facts = reading.pairs(self._ask("showvminfo", _checked(uuid), "--machinereadable"))
        return reading.details(facts, self._adapters(facts))

    def start(self, uuid: str) -> None:
        """Run a stopped or saved machine without a window, and without a way to this computer's loopback.

        VirtualBox 7.2 forgets between two starts that this way is closed, also for a snapshot's own settings.
        """
        if self.details(uuid).state in STOPPED:
            closed = ("--nat-localhostreachable1", "off")
            self._change(uuid, "modifyvm", uuid, *closed, patience=_SETTLE_SECONDS)
            self._change(uuid, "startvm", uuid, "--type", "headless", patience=_SETTLE_SECONDS)
        self._until(uuid, "it does not run", lambda found: found.state in ("running", "paused"))

    def pause(self, uuid: str) -> None:
        """Stop the clock of a running machine."""
        if self.details(uuid).state != "paused":
            self._change(uuid, "controlvm", uuid, "pause")
        self._until(uuid, "it is not paused", lambda found: found.state == "paused")

    def resume(self, uuid: str) -> None:
        """Let a paused machine go on."""
        if self.details(uuid).state != "running":
            self._change(uuid, "controlvm", uuid, "resume")
        self._until(uuid, "it does not run", lambda found: found.state == "running")

    def poweroff(self, uuid: str) -> None:
        """End a machine as if its plug was pulled; a saved one stays saved."""
        if self.details(uuid).state not in STOPPED:
            self._change(uuid, "controlvm", uuid, "poweroff")
        self._until(uuid, "it does not stop", lambda found: found.state in STOPPED)

    def discard(self, uuid: str) -> None:
        """Forget the memory of a saved machine, so that it boots at its next start."""
        if self.details(uuid).state == "saved":
            self._change(uuid, "discardstate", uuid, patience=_SETTLE_SECONDS)
        self._until(uuid, "its saved state is still there", lambda found: found.state != "saved")

    def set_link(self, uuid: str, slot: int, connected: bool) -> None:
        """Plug the cable of an adapter in, or pull it; now, and for later starts."""
        word = "on" if connected else "off"
        if self.details(uuid).state in STOPPED:
            self._change(uuid, "modifyvm", uuid, f"--cable-connected{slot}", word, patience=_SETTLE_SECONDS)
        else:
            self._change(uuid, "controlvm", uuid, f"setlinkstate{slot}", word)

        def done(found: Details) -> bool:
            nic = found.nic(slot)
            return nic is not None and nic.connected == connected

        self._until(uuid, f"the cable of adapter {slot} is not {'in' if connected else 'out'}", done)

    def snapshots(self, uuid: str) -> tuple[Snapshot, ...]:
        """The machine's snapshots, parents first."""
        return self.details(uuid).snapshots

    def snapshot_take(self, uuid: str, name: str, *, live: bool = False) -> Snapshot:
        """Keep the state of the machine, memory included where it runs. live: without pausing it meanwhile."""
        if not _SNAPSHOT_NAME.fullmatch(name):
            raise ProviderError(
                f"{name!r} cannot name a snapshot",
                hint="Use letters, digits, spaces and '._-', a letter or digit first.",
            )
        before = {snapshot.uuid for snapshot in self.snapshots(uuid)}
        options = ["--live"] if live else []
        self._change(uuid, "snapshot", uuid, "take", name, *options, timeout=_DISK_SECONDS)
        for snapshot in self.snapshots(uuid):
            if snapshot.uuid not in before and snapshot.name == name and snapshot.current:
                return snapshot
        raise self._not_done(uuid, f"there is no snapshot {name} afterwards")

    def snapshot_restore(self, uuid: str, snapshot: str) -> None:
        """Put a stopped machine back to the snapshot with this UUID: ``saved`` if that has memory, else ``poweroff``.

        Settings go back as well, among them the state of cables.
        """
        command = ["snapshot", uuid, "restore", _checked(snapshot)]
        self._change(uuid, *command, timeout=_DISK_SECONDS, patience=_SETTLE_SECONDS)
        if not any(found.current and found.uuid == snapshot for found in self.snapshots(uuid)):
            raise self._not_done(uuid, "it does not go on from that snapshot")

    def snapshot_delete(self, uuid: str, snapshot: str) -> None:
        """Forget the snapshot with this UUID; the machine and its other snapshots stay as they are."""
        self._change(uuid, "snapshot", uuid, "delete", _checked(snapshot), timeout=_DISK_SECONDS)
        if any(found.uuid == snapshot for found in self.snapshots(uuid)):
            raise self._not_done(uuid, "the snapshot is still there")

    def unregister(self, uuid: str, *, delete: bool = True) -> None:
        """Forget a stopped machine. delete: with its disks, snapshots, logs and settings.

        Of one whose settings cannot be read VirtualBox knows no files: they stay.
        """
        known = {machine.uuid: machine for machine in self.machines()}
        if _checked(uuid) not in known:
            return
        if not known[uuid].accessible:
            self._change(uuid, "unregistervm", uuid)
            return
        file = self.details(uuid).settings_file
        options = ["--delete"] if delete else []
        self._change(uuid, "unregistervm", uuid, *options, timeout=_DISK_SECONDS, patience=_SETTLE_SECONDS)
        if uuid in {machine.uuid for machine in self.machines()}:
            raise self._not_done(uuid, "it is still registered")
        if delete:
            # A backup of the settings that stays behind keeps a machine of the same name from being made.
            with contextlib.suppress(OSError):
                file.with_name(file.name + "-prev").unlink(missing_ok=True)
                file.parent.rmdir()

    def machine_folder(self) -> Path:
        """Where machines get their folders. Raises ProviderError."""
        return reading.machine_folder(self._ask("list", "systemproperties"))

    def register(self, settings: Path) -> None:
        """Make a machine known whose settings are in this file."""
        self._do("registervm", settings)

    def internal_networks(self) -> tuple[str, ...]:
        """The internal networks that registered machines are on."""
        return reading.internal_networks(self._ask("list", "intnets"))

    def nat_networks(self) -> tuple[NatNetwork, ...]:
        """The shared networks with a way out."""
        return reading.nat_networks(self._ask("list", "natnets"))

    def remove_nat_network(self, name: str) -> None:
        """Forget a shared network with a way out, which no machine is on any more."""
        self._do("natnetwork", "remove", "--netname", name)

    def _adapters(self, facts: dict[str, tuple[str, ...]]) -> dict[int, reading.AdapterSettings] | None:
        try:
            text = reading.settings_file(facts).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        return reading.settings(text)

    def _until(self, uuid: str, otherwise: str, done: Callable[[Details], bool]) -> None:
        """Wait for a state that VirtualBox reaches a moment after its program has ended."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not done(found := self.details(uuid)):
            if self.runner.dry_run:
                return
            if time.monotonic() > deadline:
                raise self._not_done(uuid, f"{otherwise}; its state is {found.state}")
            time.sleep(_POLL_SECONDS)

    def _not_done(self, uuid: str, why: str) -> ProviderError:
        return ProviderError(f"VirtualBox did not do what it was told with machine {uuid}: {why}")

    def _ask(self, *arguments: Argument) -> str:
        result = self._run(arguments, changes=False, timeout=_QUERY_SECONDS)
        if errors := _errors(result):
            raise self._failed(arguments, result, errors)
        return result.text

    def _do(self, *arguments: Argument) -> None:
        """Run a command that changes something that is not a machine yet, or none at all."""
        result = self._run(arguments, changes=True, timeout=_CHANGE_SECONDS)
        if errors := _errors(result):
            raise self._failed(arguments, result, errors)

    def _change(self, uuid: str, *arguments: Argument, timeout: float = _CHANGE_SECONDS, patience: float = 0.0) -> None:
        """Run a command that changes a machine. patience: seconds to wait for somebody else's lock on it."""
        _checked(uuid)
        deadline = time.monotonic() + patience
        while True:
            result = self._run(arguments, changes=True, timeout=timeout)
            errors = _errors(result)
            if not errors:
                return
            if time.monotonic() > deadline or not any(word in line for line in errors for word in _LOCKED):
                raise self._failed(arguments, result, errors)
            time.sleep(_POLL_SECONDS)

    def _run(self, arguments: tuple[Argument, ...], *, changes: bool, timeout: float) -> Result:
        # Its words for yes and no follow the language of the user.
        environment = {**self.runner.environment, "LC_ALL": "C.UTF-8"}
        runner = Runner(self.runner.log, self.runner.dry_run, environment)
        return runner.run([self.program, *arguments], changes=changes, timeout=timeout, check=False)

    def _failed(self, arguments: tuple[Argument, ...], result: Result, errors: list[str]) -> ProviderError:
        command = f"VBoxManage {arguments[0]}"
        if result.code is None:
            hint = "VBoxSVC may hang: see its log in VirtualBox's settings folder."
            return ProviderError(f"{command} did not end in time", details=" ".join(map(str, arguments)), hint=hint)
        return ProviderError(f"{command} failed: {errors[0]}", details="\n".join(errors))


def _checked(uuid: str) -> str:
    """The UUID itself: machines' names never become arguments."""
    if not reading.UUID.fullmatch(uuid):
        raise ProviderError(f"{uuid!r} is no UUID")
    return uuid


def _errors(result: Result) -> list[str]:
    """What went wrong; nothing where all is well. Errors with status 0 exist, and so do statuses without a word."""
    lines = result.stderr.decode(errors="replace").splitlines()
    found = [line.removeprefix("VBoxManage: error: ") for line in lines if line.startswith("VBoxManage: error: ")]
    if not found and result.code != 0:
        found = [f"status {result.code}", *result.last_words().splitlines()]
    return found
