"""Engines that run plans: one explicit dict, no plug-in machinery."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.providers import fake, qemu, vagrant
from labctl.providers.base import Backend

PROVIDERS: Mapping[str, Backend] = {
    backend.name: backend for backend in (qemu.BACKEND, *vagrant.BACKENDS, fake.BACKEND)
}
