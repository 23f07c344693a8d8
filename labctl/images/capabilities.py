"""File capabilities, such as ping's right to open raw sockets: put straight into a disk's file system.

Without root nobody may give them to a file on the host, and fakeroot loses files that have them.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from labctl.errors import ImageError
from labctl.host.runner import CommandError, Runner

_ATTRIBUTE = "security.capability"
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._+/-]+")  # what can stand in a debugfs command without quotes


def copy(root_tar: Path, disk: Path, runner: Runner) -> None:
    """Give the files on ``disk`` (a raw ext4 image) the capabilities that they have in ``root_tar``."""
    for number, (path, value) in enumerate(sorted(read(root_tar).items())):
        if not _PLAIN_PATH.fullmatch(path):
            raise ImageError(f"a file with capabilities has a strange name: {path!r}")
        content = disk.with_name(f"capability-{number}")
        content.write_bytes(value)
        done = runner.run(["debugfs", "-w", "-R", f"ea_set -f {content} {path} {_ATTRIBUTE}", disk], timeout=60)
        # debugfs ends with status 0 whatever happens; only its banner is no complaint.
        if complaint := [line for line in done.stderr.decode().splitlines() if not line.startswith("debugfs ")]:
            failed = f"the capabilities of {path} could not be set"
            raise CommandError(failed, result=done, details="\n".join(complaint))
        content.unlink()


def read(root_tar: Path) -> dict[str, bytes]:
    """Path below the root to capabilities, as the kernel stores them, of every file in a tar archive that has some."""
    found = {}
    with tarfile.open(root_tar) as tar:
        for member in tar:
            value = member.pax_headers.get(f"SCHILY.xattr.{_ATTRIBUTE}")
            if value is not None and member.isfile():
                found["/" + member.name.removeprefix("./")] = value.encode("utf-8", "surrogateescape")
    return found
