"""Templates: guests that have booted once, kept as files, from which machines start in a moment.

A template belongs to an image and a shape (memory, CPUs, number of NICs) on this host's QEMU. It is a folder with the
guest's memory, the state of its devices and its disk, all of one moment, and has no key, name or address of anybody. A
machine starts with that memory mapped privately, so what several have in common is in the host's memory once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from labctl.errors import GuestError, LabctlError, ProviderError
from labctl.events import Event, Listener
from labctl.host.files import private_folder, remove_tree
from labctl.host.folders import cache_root, runtime_root
from labctl.host.processes import marked
from labctl.host.runner import Runner, mortal
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import BootImage
from labctl.providers.qemu import habitat, settling, streams, waiting
from labctl.providers.qemu.accelerator import binary_id
from labctl.providers.qemu.agent import agent
from labctl.providers.qemu.argv import Ram, Seat, machine_argv
from labctl.providers.qemu.layout import MachineFiles
from labctl.providers.qemu.options import option
from labctl.providers.qemu.qmp import Monitor, RefusedError, monitor
from labctl.providers.workers import Stop

_FORMAT = 3  # of what a template is: another number makes all of them anew
_MARK = "labctl-template:"
_UUID = "6c616263-746c-4000-8000-000000000000"
_BOOT_SECONDS = 300.0
_SETTLE_SECONDS = 300.0
_STATE_SECONDS = 120.0
_END_SECONDS = 20.0
_POLL_SECONDS = 0.005
_UNUSED_SECONDS = 14 * 24 * 3600
_LEAST_FREE = 256 << 20


@dataclass(frozen=True, slots=True)
class Base:
    """A memory and the state of its devices, as a template has them. key: names it in an instance that keeps it for
    itself; ``""`` where it goes with the template."""

    folder: Path
    key: str = ""

    @property
    def ram(self) -> Path:
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def there(self) -> bool:
        """Whether it is whole."""
        return self.ram.exists() and self.state.exists()


@dataclass(frozen=True, slots=True)
class Template:
    """A template on disk: whole, or not there."""

    key: str

    @property
    def folder(self) -> Path:
        """Its place in the cache."""
        return _root() / self.key

    @property
    def base(self) -> Base:
        """What a machine's process begins with."""
        return Base(self.folder)

    @property
    def disk(self) -> Path:
        """An overlay over the image's disk, for machines to copy."""
        return self.folder / "disk.qcow2"

    def there(self) -> bool:
        """Whether a machine can start from it; also notes that it is in use."""
        found = self.base.there() and self.disk.exists()
        if found:
            with contextlib.suppress(OSError):
                os.utime(self.folder)
        return found

    def drop(self) -> None:
        """Remove one that does not work. Machines that run from it keep what they have."""
        remove_tree(self.folder)


def hindrance(machine: MachinePlan, image: BootImage) -> str:
    """Why a template cannot stand for this machine's boot, for people, or ``""``."""
    if os.name != "posix" or machine.os != "linux":  # QEMU of Windows cannot be given open files
        return "templates are for Linux guests on POSIX hosts"
    if image.kernel is None:
        return "its image was not built by labctl"
    return "has disks of its own" if machine.disks else ""


def of(plan: LabPlan, machine: MachinePlan, image: BootImage, accelerator: str) -> Template:
    """The template of an image and a machine's shape; it need not be there."""
    files = MachineFiles(Path("template"), Path("socket"))
    argv = machine_argv(plan, _shape(machine), _neutral(image), _seat(machine, files, accelerator, Path("ram")))
    # a guest that was given the host's own processor has found out what it can
    host = () if accelerator == "tcg" else (habitat.host_processor(),)
    facts = repr(
        (
            _FORMAT,
            binary_id(),
            image.digest,
            str(image.disk.resolve()),
            image.cmdline,
            argv,
            _settled(plan, machine),
            *host,
        )
    )
    return Template(f"{image.name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}")


def macs(machine: MachinePlan) -> tuple[tuple[str, str], ...]:
    """The MAC that each NIC has in a template, with the one that it has in this machine."""
    own = (machine.management_mac, *(interface.mac for interface in machine.interfaces))
    return tuple((_mac(number), mac) for number, mac in enumerate(own))


def make(
    template: Template,
    plan: LabPlan,
    machine: MachinePlan,
    image: BootImage,
    accelerator: str,
    *,
    runner: Runner,
    listener: Listener,
    stop: Stop,
) -> bool:
    """Boot and keep a template where it is missing; one of several labctl does it, the others wait.

    Gives whether it is there; where not, a machine boots for itself, and ``listener`` is told why.
    """
    root = private_folder(_root())
    lock = FileLock(root / f".{template.key}.lock")
    while not template.there():
        stop.check()
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            continue
        try:
            if not template.there():
                began = time.monotonic()
                listener(Event("started", "template", machine.name))
                _tidy(root, template.key)
                _build(template, plan, machine, image, accelerator, runner, stop)
                listener(Event("done", "template", machine.name, image.name, time.monotonic() - began))
        except (LabctlError, OSError) as error:
            why = (
                ": ".join(filter(None, (error.brief, error.details))) if isinstance(error, LabctlError) else str(error)
            )
            listener(Event("warning", "template", machine.name, f"{why}; it boots instead"))
            return False
        finally:
            lock.release()
    return True


def load(session: Monitor, state: int) -> None:
    """Give a QEMU that waits for it the state of its devices, from an open file; it stands still then.

    Raises RefusedError where it does not take it, ProviderError.
    """
    _ignore_shared(session)
    session.hand_over("state", state)
    session.execute("migrate-incoming", uri="fd:state")
    _finished(session, "load")
    _ignore_shared(session, False)  # whatever is saved of this guest later has its memory in it


def _build(
    template: Template,
    plan: LabPlan,
    machine: MachinePlan,
    image: BootImage,
    accelerator: str,
    runner: Runner,
    stop: Stop,
) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f".{template.key}.", dir=_root()))
    sockets = Path(tempfile.mkdtemp(prefix="t", dir=runtime_root()))
    try:
        if shutil.disk_usage(folder).free < machine.memory + _LEAST_FREE:
            raise ProviderError("there is no room on the disk for a template")
        files = MachineFiles(folder, sockets / "t")
        runner.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.disk.resolve(), "-F", "qcow2", files.overlay]
        )
        seat = replace(_seat(machine, files, accelerator, folder / "ram"), mark=_mark(template.key))
        argv = machine_argv(plan, _shape(machine), image, seat)
        streams.make_pipes(files.agent)
        with (folder / "state").open("wb") as state:
            process = runner.spawn([*mortal(), *argv], output=files.log)
            try:
                _keep(files, _settled(plan, machine), state.fileno(), lambda: not stop() and process.poll() is None)
                process.wait(_END_SECONDS)
            finally:
                process.kill()
                process.wait()
        for name in ("qemu.log", "qemu.pid", "console.log"):
            (folder / name).unlink(missing_ok=True)
        folder.chmod(0o700)
        folder.rename(template.folder)
    finally:
        remove_tree(sockets)
        remove_tree(folder)


def _keep(files: MachineFiles, settled: str, state: int, alive: Callable[[], bool]) -> None:
    """Wait until a guest has settled, by this shell text, then write its state and end it."""
    deadline = time.monotonic() + _END_SECONDS
    while not files.monitor.exists() and alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    with agent(files.agent, timeout=_BOOT_SECONDS, alive=alive) as session:
        session.execute(["/bin/sh", "-c", settled], timeout=_SETTLE_SECONDS)
    if not alive():
        raise GuestError("the template's boot was given up")
    with monitor(files.monitor) as session:
        session.execute("stop")
        _ignore_shared(session)
        session.hand_over("state", state)
        session.execute("migrate", uri="fd:state")
        _finished(session, "keep")
        session.execute("quit")


def _ignore_shared(session: Monitor, state: bool = True) -> None:  # memory is a file of its own
    session.execute("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": state}])


def _finished(session: Monitor, what: str) -> None:
    deadline = time.monotonic() + _STATE_SECONDS
    while (found := session.execute("query-migrate")).get("status") != "completed":
        if found.get("status") in ("failed", "cancelled"):
            raise RefusedError(f"QEMU could not {what} the state of a template", details=str(found)[:500])
        if time.monotonic() > deadline:
            raise ProviderError(f"QEMU does not {what} the state of a template in time", details=str(found)[:500])
        time.sleep(_POLL_SECONDS)


def _tidy(root: Path, key: str) -> None:
    """Remove what a labctl that was killed has left of this template, and templates that nobody has used for long.

    The caller holds the template's lock, so nobody is at work on it.
    """
    for process, _ in marked(_mark(key)):
        process.stop(grace=1)
    for path in root.glob(f".{key}.*"):
        if path.is_dir():
            remove_tree(path)
    for path in root.iterdir():
        if not path.name.startswith(".") and time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
            remove_tree(path)


def _mark(key: str) -> str:
    """What a template's process is known by: of this cache, because others make the same template."""
    return f"{_MARK}{hashlib.sha256(str(_root()).encode()).hexdigest()[:8]}:{key}"


def _root() -> Path:
    return cache_root() / "templates"


def _shape(machine: MachinePlan) -> MachinePlan:
    """The machine with everything left out that a template must not have of it."""
    interfaces = tuple(
        replace(interface, mac=_mac(number), device=f"eth{number - 1}")
        for number, interface in enumerate(machine.interfaces, 1)
    )
    return replace(machine, name="template", uuid=_UUID, management_mac=_mac(0), interfaces=interfaces)


def _settled(plan: LabPlan, machine: MachinePlan) -> str:
    names = (plan.management.device, *(interface.device for interface in machine.interfaces))
    return settling.script([(_mac(number), name) for number, name in enumerate(names)]) + waiting.START


def _neutral(image: BootImage) -> BootImage:
    """The image without its place on this host."""
    return replace(image, disk=Path("disk"), kernel=Path("kernel"), initrd=Path("initrd") if image.initrd else None)


def _seat(machine: MachinePlan, files: MachineFiles, accelerator: str, ram: Path) -> Seat:
    wires = {
        f"eth{number}": option("hubport", id=f"net-eth{number}", hubid=1 + number)
        for number in range(len(machine.interfaces))
    }
    return Seat(accelerator, 0, files, wires, f"{_MARK}shape", Ram(ram, shared=True))


def _mac(number: int) -> str:
    """Locally administered, and none that a plan makes: those are digests."""
    return f"02:00:00:00:00:{number:02x}"
