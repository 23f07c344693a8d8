"""What this host lacks to run machines under QEMU, each with what mends it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from labctl.errors import HostError
from labctl.providers.base import Lack
from labctl.providers.qemu.accelerator import accelerator
from labctl.providers.qemu.argv import BINARY
from labctl.providers.qemu.wires import bridge_lack

_PROGRAMS = {
    BINARY: "Debian, Ubuntu: apt install qemu-system-x86",
    "qemu-img": "Debian, Ubuntu: apt install qemu-utils",
    "ssh-keygen": "Debian, Ubuntu: apt install openssh-client",
}


def probe() -> tuple[Lack, ...]:
    """What is missing. Takes a few seconds once per boot of the host, where an accelerator has to be tried."""
    return tuple(_lacks())


def _lacks() -> Iterator[Lack]:
    if os.name != "posix":
        yield Lack("the embedded engine needs Linux or macOS", "Use VirtualBox on Windows.")
        return
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    yield from (Lack(f"{program} is not installed", _PROGRAMS[program]) for program in missing)
    if BINARY not in missing:
        try:
            found = accelerator()
        except HostError as error:
            yield Lack(error.brief, error.hint)
        else:
            if found.name == "tcg":
                yield Lack(
                    f"no hardware acceleration ({found.reason})",
                    "Machines run emulated, some ten times slower; nothing else changes.",
                    fatal=False,
                )
    if lack := bridge_lack():
        yield Lack(
            f"no bridge wires ({lack})",
            "Networks are hubs; `promiscuous` and `peers: false` need root, or user namespaces and /dev/net/tun.",
            fatal=False,
        )
