"""What an instance's folder remembers of the machines that Vagrant made for it, besides what the engine knows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from labctl.errors import StateError
from labctl.host.files import remove_tree, write_json
from labctl.providers.vagrant.engine import Names


@dataclass(frozen=True, slots=True)
class MachineNote:
    """What is known of a machine between two commands. made: Vagrant has logged in to it once. complete: everything of
    the plan is in it. digest: of the box that its disk was made from, ``""`` for one from elsewhere."""

    user: str = "vagrant"
    made: bool = False
    complete: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes in a provider's folder, and where Vagrant keeps its own. engine: what Vagrant calls the engine."""

    workdir: Path
    engine: str

    @property
    def project(self) -> Path:
        """The folder with the Vagrantfile."""
        return self.workdir / "project"

    def announce(self, names: Names) -> None:
        """Note what things are called before they are made; what is noted already stays until it is destroyed."""
        known = self.names()
        networks = tuple(dict.fromkeys((*known.networks, *names.networks)))
        write_json(self.workdir / "names.json", asdict(Names({**known.machines, **names.machines}, networks)))

    def names(self) -> Names:
        """All that was announced, with the UUIDs that Vagrant has noted since. Raises StateError."""
        path = self.workdir / "names.json"
        if not path.exists():
            return Names({}, ())
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            machines = {name: (it[0], it[1] or self._id(name)) for name, it in value["machines"].items()}
            return Names(machines, tuple(value["networks"]))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise StateError(f"{path} is damaged", details=str(error)) from error

    def machine(self, name: str) -> MachineNote:
        """What is noted of a machine; nothing much of one that is not."""
        try:
            return MachineNote(**json.loads(self._machine(name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return MachineNote()

    def keep(self, name: str, note: MachineNote) -> None:
        """Note it."""
        write_json(self._machine(name), asdict(note))

    def forget(self, name: str) -> None:
        """Drop what is noted of a machine that is gone, Vagrant's notes too."""
        remove_tree(self.project / ".vagrant" / "machines" / name)
        for path in (self._machine(name), self.host_key(name)):
            path.unlink(missing_ok=True)

    def known_to_vagrant(self, name: str) -> bool:
        """Whether Vagrant has a note of this machine."""
        return (self._vagrant(name) / "id").exists()

    def copies(self, name: str) -> Path:
        """The Vagrantfile's note of copies that Vagrant was about to make for this machine; there may be none."""
        return self._vagrant(name) / "labctl-copies"

    def identity(self, name: str) -> Path:
        """The private key that Vagrant made for a machine when it first logged in."""
        return self._vagrant(name) / "private_key"

    def host_key(self, name: str) -> Path:
        """The file with the kind and the key of a guest's SSH server, once it is known."""
        return self.workdir / f"hostkey-{name}"

    def log(self, name: str) -> Path:
        """What Vagrant has said of a machine."""
        return self.workdir / f"vagrant-{name}.log"

    def _machine(self, name: str) -> Path:
        return self.workdir / f"machine-{name}.json"

    def _id(self, name: str) -> str:
        """The engine's UUID of a machine as Vagrant noted it, ``""`` where it has not."""
        path = self._vagrant(name) / "id"
        return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""

    def _vagrant(self, name: str) -> Path:
        return self.project / ".vagrant" / "machines" / name / self.engine
