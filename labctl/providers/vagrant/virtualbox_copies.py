"""What a Vagrant that was killed leaves of a machine that it was still copying.

Vagrant imports a box, and clones what it imported, under a name that it makes up, and knows the copy's UUID only when
VirtualBox is done. So the Vagrantfile notes that name first; nothing else tells such a copy from another lab's.

VirtualBox's service goes on with a copy whoever asked for it. Seen with 7.2: an import is registered in the end, and a
clone where its VBoxManage lives; where that was killed too, the clone's files are complete and no machine has them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import ProviderError
from labctl.host.files import remove_tree
from labctl.host.processes import marked
from labctl.providers.vagrant.vboxmanage import VBoxManage

_COPY_SECONDS = 900.0  # as long as a large box takes on a slow disk
_DONE_SECONDS = 3.0  # for which nothing has changed in the folder of a copy that has settings
_DEAD_SECONDS = 20.0  # the same of one that has none: whoever wrote it has died
_POLL_SECONDS = 0.5
# Both kinds of names end with a moment in milliseconds and a random number; what is in front may be the box's own.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,150}_\d{10,16}_\d{1,5}")


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was begun. master: the file in which Vagrant notes which machine the box's machines are cloned from,
    ``""`` where there is none."""

    name: str
    master: str


def read(noted: Path) -> tuple[Copy, ...]:
    """The copies in a note of the Vagrantfile's. A line that is not whole, and a name that is none, are passed over."""
    return tuple(_read(noted.read_text(encoding="utf-8", errors="replace"))) if noted.exists() else ()


def clear(vbox: VBoxManage, noted: Path, kept: str) -> None:
    """Remove copies that became nothing, and the note. kept: the machine's own UUID, ``""`` where none is known.

    Raises ProviderError where one cannot be removed; then the note stays.
    """
    for copy in read(noted):
        folder = vbox.machine_folder() / copy.name
        _await_end(vbox, copy.name, folder)
        _clear(vbox, copy, folder, kept)
    noted.unlink(missing_ok=True)


def _clear(vbox: VBoxManage, copy: Copy, folder: Path, kept: str) -> None:
    found = vbox.find(copy.name)
    settings = folder / f"{copy.name}.vbox"
    if found is None and _is_in(vbox, kept, folder):
        return  # the machine itself, which has its name by now and not yet its folder
    if found is None and settings.exists():
        vbox.register(settings)  # so that VirtualBox knows its disks, and which one they are a layer of
        found = vbox.find(copy.name)
    if found is None:
        remove_tree(folder)
    elif found.uuid not in (kept, _master(copy)) and not vbox.snapshots(found.uuid):  # those have been cloned from
        vbox.unregister(found.uuid)


def _is_in(vbox: VBoxManage, uuid: str, folder: Path) -> bool:
    known = {machine.uuid for machine in vbox.machines() if machine.accessible}
    return uuid in known and vbox.details(uuid).settings_file.parent == folder


def _read(text: str) -> Iterator[Copy]:
    for line in text.splitlines():
        try:
            name, master = json.loads(line)
        except (ValueError, TypeError):
            continue
        if isinstance(name, str) and _NAME.fullmatch(name):
            yield Copy(name, master if isinstance(master, str) else "")


def _await_end(vbox: VBoxManage, name: str, folder: Path) -> None:
    """Wait until nobody works on a copy any more."""
    deadline = time.monotonic() + _COPY_SECONDS
    while any(marked(name)) or _changes(folder, _patience(vbox, name, folder)):
        if time.monotonic() > deadline:
            raise ProviderError(
                f"VirtualBox is still copying {name}", hint="Run the same command again when that is done."
            )
        time.sleep(_POLL_SECONDS)


def _patience(vbox: VBoxManage, name: str, folder: Path) -> float:
    whole = (folder / f"{name}.vbox").exists() or vbox.find(name) is not None
    return _DONE_SECONDS if whole else _DEAD_SECONDS


def _changes(folder: Path, seconds: float) -> bool:
    """Whether anything in a folder was written within the last seconds; not where there is no folder."""
    try:
        newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return folder.exists()  # something went meanwhile
    return time.time() - newest < seconds


def _master(copy: Copy) -> str:
    try:
        return Path(copy.master).read_text(encoding="utf-8").strip() if copy.master else ""
    except (OSError, ValueError):
        return ""
