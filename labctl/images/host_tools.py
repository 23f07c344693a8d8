"""What a host needs to build images, and where it builds them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError
from labctl.host import files
from labctl.host.runner import CommandError, Runner
from labctl.images import leftovers

# Where Debian keeps programs for administrators; an ordinary user's PATH lacks it.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_MEMORY_NEEDED = 3 << 30  # a root file system, the same as a raw disk, and room for what packages add
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a folder of our own with an unguessable name is made in it
# Where distributions keep GRUB's parts, those of them that boxes need, and the programs that put them into place.
GRUB = Path("/usr/lib/grub")
_BOX_FILES = {"i386-pc/boot.img": "grub-pc-bin", "x86_64-efi/modinfo.sh": "grub-efi-amd64-bin"}
_BOX_PROGRAMS = {"grub-mkimage": "grub-common", "mformat": "mtools", "debugfs": "e2fsprogs"}


@dataclass(frozen=True, slots=True)
class Missing:
    """Something this host lacks to build images. remedy: a command or step. fatal: no build without it."""

    what: str
    remedy: str
    fatal: bool = True


def missing() -> tuple[Missing, ...]:
    """What keeps this host from building images, or makes them worse. Starts no program."""
    if sys.platform != "linux":
        return (Missing("Linux: images are built there", "labctl image pull, or labctl image import"),)
    packages = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils", "tar": "tar"}
    if not _is_root():
        packages |= {"newuidmap": "uidmap", "fakeroot": "fakeroot"}
    lacks = [
        Missing(f"the program {program}", f"sudo apt install {package}")
        for program, package in packages.items()
        if not _which(program)
    ]
    if not _which("lz4"):
        lacks.append(Missing("the program lz4: guests boot some seconds slower", "sudo apt install lz4", fatal=False))
    if not _is_root():
        lacks += _rootless()
    return tuple(lacks)


def missing_for_boxes() -> tuple[Missing, ...]:
    """What keeps this host from making Vagrant boxes of images that it has. Starts no program."""
    if sys.platform != "linux":
        return (Missing("Linux: boxes are made there", "Make them on another computer: labctl image box NAME -o DIR"),)
    packages = {f"the program {name}": package for name, package in _BOX_PROGRAMS.items() if not _which(name)}
    packages |= {f"the file {GRUB / name}": p for name, p in _BOX_FILES.items() if not (GRUB / name).exists()}
    return tuple(Missing(what, f"sudo apt install {package}") for what, package in packages.items())


def require() -> None:
    """Raise HostError with every remedy where this host cannot build images."""
    _refuse_without("build images", missing())


def require_for_boxes() -> None:
    """Raise HostError with every remedy where this host cannot make boxes."""
    _refuse_without("make Vagrant boxes", missing_for_boxes())


def build_runner(runner: Runner, scratch: Path) -> Runner:
    """The same runner for building: programs for administrators are found, temporary files go to ``scratch``."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    return Runner(runner.log, runner.dry_run, {**runner.environment, "PATH": path, "TMPDIR": str(scratch)})


def as_root() -> tuple[str, ...]:
    """What goes before a program that must see and store files as root would."""
    return () if _is_root() else ("fakeroot", "--")


@contextlib.contextmanager
def scratch(subject: str, runner: Runner) -> Iterator[Path]:
    """A temporary folder, in memory where there is plenty; those of killed builds are removed first.

    Other users may pass through it, because without root the build runs under ids that are not the user's own.
    """
    for base in {_memory_folder(), _disk_folder()}:
        leftovers.clear(base, lambda old: remove_build_tree(old, runner))
    folder = (_memory_folder() if _memory_is_plenty() else _disk_folder()) / leftovers.folder_name(subject)
    try:
        folder.mkdir(mode=0o711)
    except OSError as error:
        raise files.explained(folder, error) from error
    try:
        yield folder
    finally:
        remove_build_tree(folder, runner)


def remove_build_tree(folder: Path, runner: Runner) -> None:
    """Remove a folder that may hold files of the ids that a build without root runs under.

    What cannot be removed yet, because a killed build is still ending, is left to the next build.
    """
    if _has_mounts(folder):
        return
    try:
        files.remove_tree(folder)
    except OSError:
        if not _is_root():
            # Those ids' own files can only be removed as root of their user namespace.
            inside = [str(path) for path in folder.glob("mmdebstrap.*")]
            runner.run(["mmdebstrap", "--unshare-helper", "rm", "-rf", "--", *inside], check=False, timeout=300)
        shutil.rmtree(folder, ignore_errors=True)


def _has_mounts(folder: Path) -> bool:
    """Whether anything is mounted below. A build mounts in a namespace of its own; this makes sure before deleting."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.split()[1].startswith(f"{folder}/") for line in mounts)


def full_disk(error: CommandError) -> HostError | None:
    """What to say where a program failed because it could not write; None where something else was wrong."""
    if b"No space left on device" not in error.result.stderr:
        return None
    return HostError(
        "the disk is full: the image cannot be made",
        details=error.result.last_words(2),
        hint="Free 2 GiB and repeat the command; nothing was left behind.",
    )


def _refuse_without(what: str, lacks: tuple[Missing, ...]) -> None:
    fatal = [lack for lack in lacks if lack.fatal]
    if fatal:
        raise HostError(
            f"this host cannot {what}",
            details="\n".join(f"missing: {lack.what}" for lack in fatal),
            hint="\n".join(dict.fromkeys(lack.remedy for lack in fatal)),
        )


def _rootless() -> list[Missing]:
    """What a build without root lacks: ids to act as, and the right to make a user namespace."""
    lacks = []
    for file in ("/etc/subuid", "/etc/subgid"):
        if not _has_ids(Path(file)):
            remedy = 'sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"'
            lacks.append(Missing(f"65536 ids for this user in {file}", remedy))
    for name, bad in (
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        value = Path("/proc/sys") / name
        if value.exists() and value.read_text().strip() == bad:
            wanted = "0" if bad == "1" else "1" if name.startswith("kernel") else "10000"
            lacks.append(
                Missing("user namespaces for ordinary users", f"sudo sysctl {name.replace('/', '.')}={wanted}")
            )
    return lacks


def _has_ids(file: Path) -> bool:
    import pwd  # POSIX only, as all that calls this

    uid = os.getuid()
    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        names = {str(uid)}
    try:
        entries = [line.split(":") for line in file.read_text().splitlines()]
    except OSError:
        return False
    return any(len(e) == 3 and e[0] in names and e[2].isdigit() and int(e[2]) >= 65536 for e in entries)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN)))


def _memory_folder() -> Path:
    return _MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else _disk_folder()


def _disk_folder() -> Path:
    chosen = Path("/var/tmp")  # noqa: S108 - as above; /tmp is often small and in memory
    return chosen if chosen.is_dir() else Path(tempfile.gettempdir())


def _memory_is_plenty() -> bool:
    """Whether a whole build fits into free memory twice over: unpacking there takes a tenth of the time."""
    import psutil

    folder = _memory_folder()
    roomy = psutil.virtual_memory().available > 2 * _MEMORY_NEEDED and shutil.disk_usage(folder).free > _MEMORY_NEEDED
    return roomy and os.access(folder, os.W_OK)
