"""Where labctl keeps things on this host."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from labctl.errors import HostError


def state_root() -> Path:
    """The folder of all instances: ``$LABCTL_STATE_DIR``, or ``labctl`` in the user's state folder."""
    from platformdirs import user_state_path

    chosen = os.environ.get("LABCTL_STATE_DIR")
    return Path(chosen).absolute() if chosen else user_state_path("labctl", appauthor=False)


def cache_root() -> Path:
    """The folder of images and answers that can be made again: ``$LABCTL_CACHE_DIR`` or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("LABCTL_CACHE_DIR")
    return Path(chosen).absolute() if chosen else user_cache_path("labctl", appauthor=False)


def runtime_root() -> Path:
    """A private folder with a short path, for sockets: their paths are limited to 104 bytes on some systems.

    ``$XDG_RUNTIME_DIR/labctl``, else a folder of this user under the temporary folder. Raises HostError where somebody
    else owns that folder already.
    """
    chosen = os.environ.get("XDG_RUNTIME_DIR")
    if chosen and len(chosen) <= 40 and Path(chosen).is_dir():
        root = Path(chosen) / "labctl"
    else:
        root = Path(tempfile.gettempdir()) / f"labctl-{os.getuid() if hasattr(os, 'getuid') else 0}"
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.lstat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise HostError(
            f"{root} belongs to another user", hint="Set XDG_RUNTIME_DIR to a private folder with a short path."
        )
    root.chmod(0o700)
    return root
