"""What an instance's folder remembers of a machine, so that a crash at any point can be mended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from labctl.errors import StateError
from labctl.host.files import write_json
from labctl.host.processes import ProcessId
from labctl.providers.base import BootImage
from labctl.providers.qemu.layout import Layout


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """One machine as labctl left it.

    disk: digest of what its disk was made from, ``""`` while there is no whole disk. image: what it boots.
    wanted: what labctl last set out to do. pid and started: its process; None from the moment a start is begun until
    the process is known. hardware: digest of the hardware it was started with. port: forwarded to its SSH.
    personality: digest of the configuration applied. steps: digest of the provisioning begun, of which steps_done steps
    are done. complete: the last ``up`` finished with it. template: the template that its disk was copied from, while it
    has not run since; ``""`` afterwards. copied: its process began as a copy of a template, not with a boot. booted:
    why it began with a boot where others begin as copies, for people; ``""`` for a copy and where that needs no words.
    base: what is kept of the template that its process has its memory from, ``""`` for none. filling: its process is
    being given a memory, and must not move with what it has of that so far.
    """

    name: str
    image: Mapping[str, Any]
    disk: str = ""
    wanted: Literal["running", "stopped"] = "stopped"
    pid: int | None = None
    started: float | None = None
    hardware: str = ""
    port: int = 0
    personality: str = ""
    steps: str = ""
    steps_done: int = 0
    complete: bool = False
    template: str = ""
    copied: bool = False
    booted: str = ""
    base: str = ""
    filling: bool = False

    @property
    def process(self) -> ProcessId | None:
        """The process noted, dead or alive."""
        return None if self.pid is None or self.started is None else ProcessId(self.pid, self.started)

    @property
    def boot_image(self) -> BootImage:
        """The image the disk was made from: its kernel must go on matching the disk."""
        value = dict(self.image)
        paths = {name: Path(value[name]) if value.get(name) else None for name in ("disk", "kernel", "initrd")}
        return BootImage(**{**value, **paths})


def image_value(image: BootImage) -> dict[str, Any]:
    """A boot image as JSON holds it."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(image).items()}


def digest_of(*values: object) -> str:
    """A short digest of values whose ``repr`` says all about them."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]


def read(layout: Layout, name: str) -> MachineRecord | None:
    """The record of a machine, or None. Raises StateError where it cannot be understood."""
    path = layout.machine(name).record
    try:
        return MachineRecord(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StateError(
            f"the record of {name} cannot be read: {path}",
            details=str(error),
            hint="labctl destroy removes what is left.",
        ) from error


def write(layout: Layout, record: MachineRecord) -> MachineRecord:
    """Keep a record, and give it back."""
    write_json(layout.machine(record.name).record, asdict(record), durable=False)
    return record
