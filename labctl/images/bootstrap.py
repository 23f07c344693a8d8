"""Images from distribution packages: a root file system by mmdebstrap, then a disk, a kernel and an initrd from it."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import ImageError
from labctl.host import files
from labctl.host.runner import Argument, CommandError, Runner
from labctl.images import apt, capabilities, host_tools, initrd, kernel, rootfs
from labctl.images.downloads import Downloads
from labctl.images.store import DISK, INITRD, KERNEL, ROOT_TAR

CMDLINE = (
    "console=ttyS0 quiet loglevel=3 net.ifnames=0 random.trust_cpu=on"
    # Defences of a guest's programs against each other cost seconds under emulation; the host keeps its own.
    " mitigations=off"
)
DISK_SIZE = "4G"
METHOD = 2
"""Counts up whenever the same packages and files would become another image."""

_FINISH = Path(__file__).parent / "finish.sh"
_BUILD_SECONDS = 1800.0
_DISK_SECONDS = 600.0
_APT_OPTIONS = ('Acquire::Languages "none"', 'Apt::Install-Recommends "false"', 'Acquire::Retries "3"')
# mmdebstrap's own way of installing: the host's apt fetches with the host's resolver and certificates.
_INSTALL = (
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true'
    " apt-get --yes -o Dir::Bin::dpkg=env -o DPkg::Options::=--unset=TMPDIR -o DPkg::Options::=dpkg"
    ' -o DPkg::Chroot-Directory="$1" install -- '
)
# Only what this build has downloaded itself is worth carrying out again.
_FORGET_LENT = (
    'find "$1/var/cache/apt/archives" "$1/var/lib/apt/lists" -type f ! -cnewer "$1/.lent" -delete; rm "$1/.lent"'
)
_NO_PACKAGE = re.compile(r"Unable to locate package (\S+)|Package '?([^' ]+)'? has no installation candidate")
_MAKE_DISK = (
    'mkdir "$1" && tar -C "$1" -xf "$2" && mkdir -p "$1/dev" &&'
    ' mke2fs -q -F -t ext4 -J size=16 -L root -d "$1" "$3" "$4"'
)


@dataclass(frozen=True, slots=True)
class RootJob:
    """A root file system to make: ``packages`` on top of the root file system ``base``, or of an empty one."""

    name: str
    release: str
    packages: tuple[str, ...]
    base: Path | None = None


def tool_digest() -> str:
    """SHA-256 of all that labctl itself puts into an image: another labctl, another image."""
    parts = [rootfs.early_tar(), rootfs.overlay_tar(), _FINISH.read_bytes(), initrd.INIT.read_bytes()]
    parts += [CMDLINE.encode(), DISK_SIZE.encode(), _MAKE_DISK.encode(), str(METHOD).encode()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def make_root(job: RootJob, draft: Path, scratch: Path, downloads: Downloads, runner: Runner) -> None:
    """Write ``job``'s root file system to ``draft/rootfs.tar``. Raises ImageError or HostError."""
    lines = apt.host_lines(job.release)
    runner = host_tools.build_runner(runner, scratch)
    staging = draft / "staging"
    staging.mkdir()
    try:
        downloads.lend(job.release, staging)
        (staging / "early.tar").write_bytes(rootfs.early_tar())
        (staging / "overlay.tar").write_bytes(rootfs.overlay_tar())
        settings = (*_APT_OPTIONS, *apt.host_settings(runner))
        runner.run(argv(job, draft / ROOT_TAR, staging, lines, settings), timeout=_BUILD_SECONDS)
        downloads.keep(job.release, staging)
    except CommandError as error:
        raise _explained(job, error, downloads) from error
    finally:
        files.remove_tree(staging)


def argv(job: RootJob, target: Path, staging: Path, lines: Sequence[str], settings: Sequence[str]) -> list[str]:
    """The command that makes a root file system. staging: a folder with ``debs``, ``lists`` and the two archives."""
    # Killed together with labctl; what it has started itself is ended by the next build (``leftovers``).
    command = ["setpriv", "--pdeathsig", "KILL", "mmdebstrap", "--mode=unshare", "--format=tar", "--skip=output/dev"]
    command += ["--skip=check/signed-by", f"--variant={'custom' if job.base else 'minbase'}"]
    command += [f"--aptopt={setting}" for setting in settings]
    if job.base:
        command.append(f"--setup-hook={_special('tar-in', job.base, '/')}")
    command += [
        '--setup-hook=mkdir -p "$1/dev" "$1/var/cache/apt/archives" "$1/var/lib/apt/lists"',
        f"--setup-hook={_special('sync-in', staging / 'debs', '/var/cache/apt/archives')}",
        f"--setup-hook={_special('sync-in', staging / 'lists', '/var/lib/apt/lists')}",
        '--setup-hook=: >"$1/.lent"',
    ]
    if job.base:
        # mmdebstrap would install everything it finds in the archives' folder; apt installs what is asked for.
        command.append(f"--customize-hook={_INSTALL}{shlex.join(job.packages)}")
    else:
        command += [
            "--skip=essential/unlink",
            f"--include={','.join(job.packages)}",
            f"--extract-hook={_special('tar-in', staging / 'early.tar', '/')}",
        ]
    return [
        *command,
        f"--customize-hook={_FORGET_LENT}",
        f"--customize-hook={_special('sync-out', '/var/cache/apt/archives', staging / 'debs')}",
        f"--customize-hook={_special('sync-out', '/var/lib/apt/lists', staging / 'lists')}",
        f"--customize-hook={_special('tar-in', staging / 'overlay.tar', '/')}",
        f"--customize-hook={_FINISH.read_text(encoding='utf-8')}",
        job.release,
        str(target),
        *lines,
    ]


def make_disk(draft: Path, scratch: Path, runner: Runner, *, boot_files: bool) -> None:
    """Write the disk of ``draft/rootfs.tar`` to the draft, and its kernel and initrd where ``boot_files``."""
    runner = host_tools.build_runner(runner, scratch)
    tree, raw = scratch / "tree", scratch / "disk.raw"
    make: list[Argument] = ["sh", "-c", _MAKE_DISK, "sh", tree, draft / ROOT_TAR, raw, DISK_SIZE]
    try:
        runner.run([*host_tools.as_root(), *make], timeout=_DISK_SECONDS)
        capabilities.copy(draft / ROOT_TAR, raw, runner)
        runner.run(["qemu-img", "convert", "-O", "qcow2", raw, draft / DISK], timeout=_DISK_SECONDS)
    except CommandError as error:
        raise host_tools.full_disk(error) or error from error
    if boot_files:
        kernels = sorted((tree / "boot").glob("vmlinuz-*"))
        if not kernels:
            raise ImageError("the image has no kernel", hint="Add a kernel package to the recipe.")
        kernel.unpack(kernels[-1], draft / KERNEL, runner)
        (draft / INITRD).write_bytes(initrd.build(tree))


def _special(hook: str, *paths: str | Path) -> str:
    """One of mmdebstrap's own hooks; it splits the text as a shell would."""
    return shlex.join((hook, *(str(path) for path in paths)))


def _explained(job: RootJob, error: CommandError, downloads: Downloads) -> Exception:
    if full := host_tools.full_disk(error):
        return full
    said = error.result.stderr.decode(errors="replace") + error.result.text
    if unknown := _NO_PACKAGE.search(said):
        package = unknown.group(1) or unknown.group(2)
        return ImageError(
            f"Debian {job.release} has no package {package}, which the image {job.name} asks for",
            hint="Check the name: apt-cache search WORD, on a machine with the same release.",
        )
    # A damaged package among the kept ones would fail every later build in the same way.
    downloads.drop()
    words = "\n".join(line for line in said.splitlines() if line.startswith(("E:", "W:", "dpkg: error", "Err:")))
    return ImageError(
        f"the image {job.name} could not be built",
        details=words or error.details,
        hint="Repeat the command: downloaded packages were dropped. If it fails again, check this host's apt sources.",
    )
