"""The file in a guest that holds the mark by which a restored checkpoint is known again."""

from __future__ import annotations

MARK_ON_DISK = "/var/lib/labctl-checkpoint"
LAZY = f"{MARK_ON_DISK}.lazy"
"""Is there where the file is not written through."""

READY = (
    f"[ -s {MARK_ON_DISK} ] || {{ : >{MARK_ON_DISK} &&"
    f" {{ chattr +S {MARK_ON_DISK} 2>/dev/null || : >{LAZY}; }} && echo none >{MARK_ON_DISK}; }}"
)
"""Shell text that makes the file, one that the kernel writes through, so that later marks need no program for it.

A file without content is one that somebody was interrupted over.
"""
