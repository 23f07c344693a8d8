"""Where an instance's files are. Names of machines have passed the spec's rules and are safe as file names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from labctl.host.files import private_folder, write_atomic
from labctl.host.folders import runtime_root


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """The files of one machine. Those in ``folder`` last; the sockets live in the runtime folder."""

    folder: Path
    socket_stem: Path

    @property
    def record(self) -> Path:
        return self.folder / "machine.json"

    @property
    def overlay(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def pid(self) -> Path:
        return self.folder / "qemu.pid"

    @property
    def log(self) -> Path:
        """What QEMU itself says."""
        return self.folder / "qemu.log"

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    @property
    def provision_log(self) -> Path:
        return self.folder / "provision.log"

    @property
    def host_key(self) -> Path:
        """The guest's own SSH host key; the public half beside it has the suffix ``.pub``."""
        return self.folder / "ssh_host_ed25519_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def disk(self, name: str) -> Path:
        """An extra disk."""
        return self.folder / f"disk-{name}.qcow2"

    @property
    def monitor(self) -> Path:
        return self.socket_stem.with_suffix(".qmp")

    @property
    def agent(self) -> Path:
        return self.socket_stem.with_suffix(".qga")

    @property
    def console(self) -> Path:
        return self.socket_stem.with_suffix(".con")


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one instance. mark: in the arguments of every process of this instance and of no other."""

    workdir: Path
    mark: str
    runtime: Path

    @classmethod
    def of(cls, workdir: Path) -> Layout:
        """The layout that belongs to a provider's folder; makes nothing but the note of where the sockets are.

        The runtime folder depends on the session's environment, so the first answer is kept beside the machines.
        """
        workdir = workdir.resolve()
        mark = "labctl-" + hashlib.sha256(str(workdir).encode()).hexdigest()[:12]
        note = workdir / "runtime"
        if note.exists():
            return cls(workdir, mark, Path(note.read_text(encoding="utf-8").strip()))
        return cls(workdir, mark, runtime_root() / mark.removeprefix("labctl-"))

    def prepare(self) -> None:
        """Make the folders."""
        private_folder(self.workdir)
        private_folder(self.machines)
        write_atomic(self.workdir / "runtime", f"{self.runtime}\n")
        private_folder(self.runtime)

    @property
    def machines(self) -> Path:
        return self.workdir / "machines"

    @property
    def bases(self) -> Path:
        """What copies of templates began with."""
        return self.workdir / "bases"

    @property
    def key(self) -> Path:
        """The private key that opens every guest of this instance."""
        return self.workdir / "id_ed25519"

    @property
    def commands_log(self) -> Path:
        return self.workdir / "commands.log"

    def machine(self, name: str) -> MachineFiles:
        """The files of a machine. Socket names are short digests, because their paths are limited to 104 bytes."""
        return MachineFiles(self.machines / name, self.runtime / hashlib.sha256(name.encode()).hexdigest()[:8])

    def process_mark(self, name: str) -> str:
        """The value of ``-name`` of a machine's process."""
        return f"{self.mark}:{name}"

    def known_machines(self) -> list[str]:
        """Machines that have a folder here, whatever the plan says."""
        return sorted(p.name for p in self.machines.iterdir() if p.is_dir()) if self.machines.is_dir() else []
