"""The contract suite on engines of labctl's own."""

from __future__ import annotations

from tests.contract.suite import *  # noqa: F403 - its tests, its fixture and its marks

SUBJECTS_HERE = (
    "fake",
    "qemu-bridge",
    "qemu-hub",
)
