"""What copies of a template began with, kept in the instance by names of its own (hard links).

A template may go at any time: it is damaged, nobody has used it for long, somebody has cleared the cache. What is saved
of a copy is only its difference to the template, and is worth nothing without it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

from labctl.host.files import private_folder, remove_tree
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.template import Base, Template

_UNFINISHED = "."


def keep(layout: Layout, template: Template) -> Base:
    """Keep what a template has. One without a key where this file system has no links, or not across to the cache.

    A copy of the files instead would take the room of several snapshots, and share no memory with other instances.
    Raises FileNotFoundError where the template is gone.
    """
    before = template.folder.stat().st_ino
    # a template that is made anew under the same name is another one; the number is taken as long as there is a link
    key = f"{template.key}-{template.base.ram.stat().st_ino:x}"
    base = find(layout, key)
    if base is not None:
        return base
    folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=private_folder(layout.bases)))
    try:
        for name in ("ram", "state"):
            os.link(template.folder / name, folder / name)
        if template.folder.stat().st_ino != before:
            raise FileNotFoundError(template.folder)  # and the files may be of two
        with contextlib.suppress(OSError):  # another machine was quicker
            folder.rename(layout.bases / key)
    except FileNotFoundError:
        raise
    except OSError:
        return template.base
    finally:
        remove_tree(folder)
    return find(layout, key) or template.base


def find(layout: Layout, key: str) -> Base | None:
    """The one of this name that is kept, if it is."""
    base = Base(layout.bases / key, key)
    return base if key and base.there() else None


def borrowed(layout: Layout) -> int:
    """Bytes of what is kept that others have as well: the cache, or another instance."""
    found = 0
    for path in layout.bases.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found += stat.st_blocks * 512 if stat.st_nlink > 1 else 0
    return found


def tidy(layout: Layout, needed: Collection[str]) -> None:
    """Remove those that nothing needs, and what a labctl that was killed has left; no machine may be starting."""
    for folder in layout.bases.iterdir() if layout.bases.exists() else ():
        if folder.name not in needed:
            remove_tree(folder)
