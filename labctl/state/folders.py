"""Where labctl keeps things on this host."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_state_path


def state_root() -> Path:
    """The folder of all instances: ``$LABCTL_STATE_DIR``, or ``labctl`` in the user's state folder."""
    chosen = os.environ.get("LABCTL_STATE_DIR")
    return Path(chosen).absolute() if chosen else user_state_path("labctl", appauthor=False)


def cache_root() -> Path:
    """The folder of images and answers that can be made again: ``$LABCTL_CACHE_DIR`` or the user's cache folder."""
    chosen = os.environ.get("LABCTL_CACHE_DIR")
    return Path(chosen).absolute() if chosen else user_cache_path("labctl", appauthor=False)
