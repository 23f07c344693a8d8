"""A lab of two small real guests with checkpoints, driven by the command line and looked at from beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from labctl.providers.qemu.agent import agent
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.qmp import Monitor, monitor
from tests.support.command import Labctl

LAB = """\
version: 1
name: NAME
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  wire: {subnet: 10.9.0.0/28}
machines:
  one: {networks: {wire: 10.9.0.1}}
  two: {networks: {wire: 10.9.0.2}}
"""
THREE = "  three: {networks: {wire: 10.9.0.3}}\n"
BOTH = ("one", "two")

# What a guest keeps of a moment: a file on its disk, one in its memory, and a program that counts there.
_SET = """\
echo "$1" >/root/disk; echo "$1" >/run/memory; sync /root/disk
[ -e /run/counter ] || {
  setsid perl -e 'while (1) { open(F, ">/run/count.new"); print F ++$n, "\\n"; close(F);
    rename("/run/count.new", "/run/count"); select(undef, undef, undef, 0.5) }' >/dev/null 2>&1 </dev/null &
  echo $! >/run/counter
}
"""
_GET = """\
read -r before </run/count; now=$before; tries=100; pid=none; [ -e /run/counter ] && read -r pid </run/counter
while [ "$now" -le "$before" ] && [ -d "/proc/$pid" ] && [ $tries -gt 0 ]; do
  sleep 0.1; read -r now </run/count; tries=$((tries - 1))
done
[ "$now" -le "$before" ] || counts=counting
echo "$(cat /root/disk) $(cat /run/memory)" $counts
"""
_BLIND = """
from labctl.host.memory import Mapped
def refuse(*_):
    raise PermissionError(1, "Operation not permitted")
Mapped.changed = refuse
from labctl.__main__ import main
main()
"""


@dataclass(frozen=True)
class Guests:
    """An instance called ``default`` of a lab. folder: of its lab file. sees: the root of the file system it is in."""

    labctl: Labctl
    folder: Path
    sees: Path = Path("/")

    @classmethod
    def make(cls, labctl: Labctl, name: str, text: str = LAB, *, sees: Path = Path("/")) -> Guests:
        """Write its lab file; ``up`` is left to the caller."""
        found = cls(labctl, labctl.home / name, sees)
        found.folder.mkdir()
        found.write(text)
        return found

    def write(self, text: str = LAB) -> None:
        """Give it another lab file."""
        (self.folder / "lab.yaml").write_text(text.replace("NAME", self.folder.name))

    def up(self) -> None:
        self.labctl.run("up", self.folder, "--no-fresh")

    def save(self, name: str) -> Any:
        return self.labctl.json("snapshot", "save", name, self.folder)

    def restore(self, name: str) -> Any:
        return self.labctl.json("snapshot", "restore", name, self.folder)

    def blindly(self, verb: str, name: str) -> None:
        """Let a labctl do something with a checkpoint that may not look into machines' processes."""
        argv = (sys.executable, "-c", _BLIND, "snapshot", verb, name, str(self.folder))
        with self.labctl.spawn(*argv) as process:
            _out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err.decode()

    def refused(self, verb: str, name: str, code: int = 1) -> str:
        """What labctl says where it must not do something with a checkpoint."""
        return self.labctl.complaint("snapshot", verb, name, self.folder, code=code)

    def names(self) -> list[str]:
        """Of the checkpoints as labctl lists them, the oldest first."""
        listed = self.labctl.json("snapshot", "list", self.folder)
        return [one["name"] for one in listed["checkpoints"]]

    def states(self) -> dict[str, str]:
        return {one["name"]: one["state"] for one in self.labctl.json("status", self.folder)["machines"]}

    def state(self) -> str:
        return str(self.labctl.json("status", self.folder)["state"])

    def sh(self, machine: str, script: str, *arguments: str) -> str:
        """What a shell in a guest says, asked by its agent from beside labctl: a command of labctl's takes a second."""
        with agent(self.layout.machine(machine).agent, timeout=60) as session:
            said = session.execute(["/bin/sh", "-c", script, "sh", *arguments], timeout=60)
        assert said.code == 0, said
        return said.stdout.decode().strip()

    def mark(self, text: str) -> None:
        """Put a text on each guest's disk and into its memory, and let a program count there."""
        with ThreadPoolExecutor(len(BOTH)) as pool:  # an emulated guest thinks for half a second about it
            list(pool.map(lambda machine: self.sh(machine, _SET, text), BOTH))

    def marks(self) -> dict[str, str]:
        """What each guest has of it now: ``DISK MEMORY counting``, without the last word where nothing counts."""
        with ThreadPoolExecutor(len(BOTH)) as pool:
            return dict(zip(BOTH, pool.map(lambda machine: self.sh(machine, _GET), BOTH), strict=True))

    @property
    def state_folder(self) -> Path:
        """The instance's folder as it is seen from here."""
        return self.sees / (self.labctl.state / self.folder.name / "default").relative_to("/")

    @cached_property
    def layout(self) -> Layout:
        engine = self.state_folder / "engine"
        # the mark is of the path that labctl knows; the note is read here, because it may not be seen by that path
        mark = Layout.of(Path("/") / engine.relative_to(self.sees)).mark
        return Layout(engine, mark, Path((engine / "runtime").read_text().strip()))

    def overlay(self, machine: str = "two") -> Path:
        return self.layout.machine(machine).overlay

    def monitor(self, machine: str = "two") -> AbstractContextManager[Monitor]:
        """QEMU's monitor of a machine, while no labctl speaks with it."""
        return monitor(self.layout.machine(machine).monitor, timeout=60)

    def pid(self, machine: str = "two") -> int:
        record = json.loads(self.layout.machine(machine).record.read_text())
        return int(record["pid"])

    def kill(self, machine: str = "two") -> None:
        """What kills a machine's process, as the host's out-of-memory killer does."""
        process = psutil.Process(self.pid(machine))
        process.kill()
        psutil.wait_procs([process], timeout=20)

    @contextmanager
    def altered(self, path: Path, alter: Callable[[str], str]) -> Iterator[None]:
        """One of its files with another content, for a while."""
        whole = path.read_text()
        path.write_text(alter(whole))
        try:
            yield
        finally:
            path.write_text(whole)

    def manifests(self) -> list[Path]:
        """Of the checkpoints, whole or not."""
        return sorted((self.state_folder / "checkpoints").glob("[0-9a-f]*.json"))

    def whole_ones(self) -> list[str]:
        """Names of the checkpoints that are whole, the oldest first, as they lie on the disk."""
        found = [json.loads(path.read_text()) for path in self.manifests()]
        return [one["name"] for one in sorted(found, key=lambda one: float(one["created"])) if one["complete"]]

    def manifest(self, name: str) -> Path:
        return next(path for path in self.manifests() if json.loads(path.read_text())["name"] == name)

    def key(self, name: str) -> str:
        """What QEMU calls a checkpoint."""
        return f"labctl-{self.manifest(name).stem}"

    def snapshots(self, machine: str) -> set[str]:
        """Keys of the snapshots that there are in a machine's disk."""
        argv = ["qemu-img", "snapshot", "--force-share", "-l", str(self.overlay(machine))]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
        return {word for word in said.split() if word.startswith("labctl-")}

    def kept(self) -> dict[str, set[str]]:
        """Machine to the keys that its disk and its notes have, which ought to be those of the list of checkpoints."""
        found = {}
        for machine in self.layout.known_machines():
            notes = {path.stem for path in self.layout.machine(machine).folder.glob("labctl-*.json")}
            assert notes == self.snapshots(machine), f"notes and snapshots of {machine} differ"
            beside = {path.name.partition(".")[0] for path in self.layout.machine(machine).folder.glob("labctl-*")}
            assert beside == notes, f"{machine} has files of no snapshot"
            found[machine] = notes
        return found


def until(condition: Callable[[], bool], *, seconds: float = 180, every: float = 0.01) -> None:
    """Wait for something that is to happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(every)
