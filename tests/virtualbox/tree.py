"""A Debian sid tree with VirtualBox 7.2 and Vagrant, built once and kept in labctl's cache folder.

sid is where Debian has VirtualBox. Its files come from the mirror that this host's own apt uses, with signatures
checked; only the age of its release file is not, since sid's is short-lived and this host's clock may be ahead.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from labctl.errors import HostError
from labctl.host import files
from labctl.host.folders import cache_root
from labctl.host.runner import CommandError, Runner
from labctl.images import apt, host_tools, leftovers

SUITE = "sid"
VIRTUALBOX = "7.2."
PACKAGES = ("virtualbox", "python3", "vde-switch", "libvdeplug2t64", "mount", "procps")

# Debian's vagrant says that virtualbox >= 7.1 breaks it, because it does not know it; a Vagrantfile of the tests helps.
# So apt installs what vagrant depends on, and dpkg vagrant itself, which can be told to overlook that one relation.
_VAGRANT = """\
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" DEBIAN_FRONTEND=noninteractive
cd "$1/var/tmp"
apt-get -q -o APT::Sandbox::User=root download vagrant
apt-get -qy -o Dir::Bin::dpkg=env -o DPkg::Options::=--unset=TMPDIR -o DPkg::Options::=dpkg \
  -o DPkg::Chroot-Directory="$1" satisfy "$(dpkg-deb --field vagrant_*.deb Depends)"
chroot "$1" sh -c 'dpkg --force-breaks --install /var/tmp/vagrant_*.deb'
rm vagrant_*.deb
# At its first start it brings a file of its own up to date, and the tree is read-only later.
chroot "$1" env HOME=/root VAGRANT_HOME=/var/tmp/home vagrant plugin list
rm -r home
"""
_VERSIONS = """chroot "$1" dpkg-query -W -f '${Package} ${Version}\\n' virtualbox vagrant >"$1/versions" """
_APT_OPTIONS = ('Acquire::Languages "none"', 'Acquire::Retries "2"', 'Acquire::Check-Valid-Until "false"')
_LEFT_OUT = ("doc", "man", "locale", "lintian", "info")
_DPKG_OPTIONS = ("force-unsafe-io", *(f"path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT))
_BUILD_SECONDS = 900.0
_UNUSED_SECONDS = 14 * 86400.0
_NOTE = "tree.json"
# What apt and mmdebstrap say where a mirror cannot be reached, lacks the suite, or sid is out of joint just now.
_NOT_TO_BE_HAD = re.compile(
    rb"Unable to locate package|Failed to fetch|does not have a Release file|Could not resolve|Unable to connect|"
    rb"unmet dependencies|has no installation candidate|apt-get update.*failed|Unable to satisfy|held broken packages"
)


class UnavailableError(Exception):
    """sid, or VirtualBox 7.2 in it, cannot be had here; the text says why."""


@dataclass(frozen=True)
class Tree:
    """A finished tree. folder: its own folder in the cache, where things made with it may be kept too."""

    folder: Path
    virtualbox: str
    vagrant: str

    @property
    def root(self) -> Path:
        """What becomes the root of the file system."""
        return self.folder / "root"


def tree() -> Tree:
    """The tree, built where it is missing. Raises UnavailableError."""
    base = cache_root() / "tests"
    base.mkdir(parents=True, exist_ok=True)
    folder = base / f"virtualbox-{_digest()}"
    with FileLock(base / "virtualbox.lock"):
        leftovers.clear(base, lambda old: host_tools.remove_build_tree(old, Runner()))
        if not (folder / _NOTE).exists():
            _build(base, folder)
        os.utime(folder / _NOTE)
        _clear_unused(base)
    found = Tree(folder, **json.loads((folder / _NOTE).read_text()))
    if not found.virtualbox.startswith(VIRTUALBOX):
        raise UnavailableError(f"Debian {SUITE} has VirtualBox {found.virtualbox}, and these tests know {VIRTUALBOX}x")
    return found


def _build(base: Path, folder: Path) -> None:
    assert shutil.which("mmdebstrap"), (
        "mmdebstrap is not installed; make setup installs it (Debian: apt install mmdebstrap)"
    )
    draft = base / leftovers.folder_name("virtualbox")
    draft.mkdir(mode=0o755)
    try:
        with host_tools.scratch("virtualbox", Runner()) as scratch:
            runner = host_tools.build_runner(Runner(), scratch)
            _install(runner, scratch / "root")
            runner.run(["cp", "-a", "--", scratch / "root", draft], timeout=_BUILD_SECONDS)
        lines = (draft / "root/versions").read_text().splitlines()
        files.write_json(draft / _NOTE, dict(line.split(" ", 1) for line in lines))
        files.remove_tree(folder)
        draft.rename(folder)
    finally:
        files.remove_tree(draft)


def _install(runner: Runner, root: Path) -> None:
    try:
        runner.run(_argv(_sources(), apt.host_settings(runner), root), timeout=_BUILD_SECONDS)
    except CommandError as error:
        if reason := _reason(error.result.stderr + error.result.stdout):
            raise UnavailableError(reason) from error
        raise


def _argv(lines: Sequence[str], settings: Sequence[str], root: Path) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL", "mmdebstrap", "--quiet", "--mode=root", "--format=directory"),
        *("--variant=essential", "--skip=output/dev", "--skip=check/signed-by"),
        *(f"--aptopt={option}" for option in (*settings, *_APT_OPTIONS)),
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        f"--include={','.join(PACKAGES)}",
        f"--customize-hook={_VAGRANT}",
        f"--customize-hook={_VERSIONS}",
        *(SUITE, str(root), *lines),
    ]


def _sources() -> list[str]:
    """sid's main and contrib on the mirrors of this host's apt. Raises UnavailableError."""
    try:
        lines = apt.host_lines(SUITE)
    except HostError as error:
        raise UnavailableError(error.brief) from error
    sources = [source for line in lines for source in apt.parse_list(line) if source.suite == SUITE]
    return [replace(source, components=("main", "contrib")).line() for source in sources]


def _reason(said: bytes) -> str:
    """The line in which apt says that something cannot be had, or nothing where something else went wrong."""
    for line in said.splitlines():
        if _NOT_TO_BE_HAD.search(line):
            return (
                f"Debian {SUITE} with VirtualBox cannot be had from this host's mirror: {line.decode(errors='replace')}"
            )
    return ""


def _digest() -> str:
    """What a tree is made from, except for what the mirror has: 12 hexadecimal digits."""
    made_from = repr(_argv((), (), Path()))
    return hashlib.sha256(made_from.encode()).hexdigest()[:12]


def _clear_unused(base: Path) -> None:
    """Trees of other versions of these tests go when nobody has used them for two weeks."""
    for note in base.glob(f"virtualbox-*/{_NOTE}"):
        if time.time() - note.stat().st_mtime > _UNUSED_SECONDS:
            host_tools.remove_build_tree(note.parent, Runner())
