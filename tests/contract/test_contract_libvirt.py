"""The contract suite on libvirt."""

from __future__ import annotations

from tests.contract.suite import *  # noqa: F403 - its tests, its fixture and its marks

SUBJECTS_HERE = ("libvirt",)
