"""An ext4 file system inside a raw disk, read and changed by debugfs: nothing is mounted and nobody has to be root.

All that is written carries one fixed time, so that the same changes to the same file system give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import UUID

from labctl.errors import ImageError
from labctl.host.runner import CommandError, Result, Runner

_TIME = 946684800  # 2000-01-01, seconds since the epoch; debugfs takes 0 for "no time given"
_SECONDS = 120.0
_SUPERBLOCK = 1024  # Linux, Documentation/filesystems/ext4/super.rst
_UUID = 0x68
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9@._+-]+)+")  # what can stand in a debugfs command without quotes
_FOLDER, _FILE = 0o040000, 0o100000


@dataclass(frozen=True, slots=True)
class Node:
    """Something to add to a file system.

    A file with ``content``; a symbolic link where ``link`` is set; a folder where ``folder`` is. mode: permissions.
    replaces: there is a file of that name, and this one takes its place.
    """

    path: str
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    folder: bool = False
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Ext4:
    """The file system that begins ``offset`` bytes into the file ``disk``. scratch: a folder for files on the way."""

    disk: Path
    offset: int
    scratch: Path
    runner: Runner

    @property
    def uuid(self) -> UUID:
        """The file system's own identity."""
        with self.disk.open("rb") as file:
            file.seek(self.offset + _SUPERBLOCK + _UUID)
            return UUID(bytes=file.read(16))

    def read(self, path: str) -> bytes:
        """The content of a file. Raises CommandError where there is none."""
        return self._run("-R", f"cat {_checked(path)}").stdout

    def names(self, folder: str) -> tuple[str, ...]:
        """The names in a folder, sorted. Raises CommandError where there is none."""
        lines = self._run("-R", f"ls -p {_checked(folder)}").text.splitlines()
        fields = [line.split("/") for line in lines if line.startswith("/")]  # /inode/mode/uid/gid/name/size/
        return tuple(sorted({field[5] for field in fields} - {".", ".."}))

    def fetch(self, paths: Sequence[str], tree: Path) -> None:
        """Copy files to the same paths below ``tree``, a folder in ``scratch``."""
        commands = []
        for path in paths:
            target = tree / _checked(path)[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            commands.append(f"dump {path} {target.relative_to(self.scratch)}")
        self._script(commands)

    def add(self, nodes: Sequence[Node]) -> None:
        """Put files, links and folders into folders that are there or come before them."""
        commands = [f"set_current_time @{_TIME}"]
        for number, node in enumerate(nodes):
            path = PurePosixPath(_checked(node.path))
            commands += [f"cd {path.parent}"] if path.parent != PurePosixPath("/") else ["cd /"]
            if node.replaces:
                commands.append(f"rm {path.name}")
            if node.link:
                commands.append(f"symlink {path.name} {_checked(node.link)}")
                continue
            if node.folder:
                commands.append(f"mkdir {path.name}")
            else:
                (self.scratch / f"node-{number}").write_bytes(node.content)
                commands.append(f"write node-{number} {path.name}")
            mode = node.mode | (_FOLDER if node.folder else _FILE)
            for field, value in (("mode", f"0{mode:o}"), ("uid", node.uid), ("gid", node.gid)):
                commands.append(f"set_inode_field {path.name} {field} {value}")
        self._script(commands)

    def _script(self, commands: Sequence[str]) -> None:
        (self.scratch / "debugfs.commands").write_text("".join(f"{command}\n" for command in commands))
        self._run("-w", "-f", "debugfs.commands")

    def _run(self, *arguments: str) -> Result:
        disk = f"{self.disk.relative_to(self.scratch)}?offset={self.offset}"
        done = self.runner.run(["debugfs", *arguments, disk], timeout=_SECONDS, cwd=self.scratch)
        # debugfs ends with status 0 whatever happens; only its banner is no complaint.
        complaint = [line for line in done.stderr.decode(errors="replace").splitlines() if not _is_banner(line)]
        if complaint:
            raise CommandError("debugfs could not do its work", result=done, details="\n".join(complaint))
        return done


def _checked(path: str) -> str:
    if not _PLAIN_PATH.fullmatch(path) or ".." in PurePosixPath(path).parts:
        raise ImageError(f"a file in the image has a strange name: {path!r}")
    return path


def _is_banner(line: str) -> bool:
    return line.startswith("debugfs ") or not line.strip()
