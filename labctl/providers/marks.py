"""The files in a guest that hold the mark by which a restored checkpoint is known again."""

from __future__ import annotations

MEMORY = "/run/labctl/checkpoint"
"""In memory: /run is a tmpfs on every Linux with systemd."""
ON_DISK = "/var/lib/labctl-checkpoint"
"""On the disk, where the file system writes a file through that is told so (``chattr +S``)."""
LAZY = f"{ON_DISK}.lazy"
"""Instead of it where the file system does not; ``sync`` has to follow each mark."""

READY = (
    f"[ -s {ON_DISK} ] || [ -s {LAZY} ] ||"
    f" {{ : >{ON_DISK} && chattr +S {ON_DISK} 2>/dev/null && echo none >{ON_DISK}; }} ||"
    f" {{ rm -f {ON_DISK} && echo none >{LAZY}; }}"
)
"""Shell text that makes the file on the disk, so that later marks are written into it without a program.

One without content is one that somebody was interrupted over.
"""
