"""``doctor``: what this host can run, what it lacks, and the command that mends it."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass

from labctl.errors import LabctlError
from labctl.host.folders import cache_root, state_root
from labctl.images import missing, missing_for_boxes
from labctl.lifecycle.locate import choose_backend
from labctl.providers import PROVIDERS
from labctl.providers.base import Backend, Capabilities, Lack


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """A provider on this host: what it lacks, and what it could do here (None where labctl only renders for it)."""

    name: str
    summary: str
    usable: bool
    lacks: tuple[Lack, ...]
    capabilities: Capabilities | None


@dataclass(frozen=True, slots=True)
class HostReport:
    """This host. chosen is the provider that ``up`` would use and why; free_bytes is where the state lives."""

    system: str
    python: str
    state: str
    cache: str
    free_bytes: int
    chosen: str
    providers: tuple[ProviderReport, ...]


def examine() -> HostReport:
    """Look at this host. Changes nothing; takes seconds where an accelerator has to be tried."""
    reports = tuple(_provider(name) for name in PROVIDERS)
    try:
        backend, why = choose_backend(None, None)
        chosen = f"{backend.name}: {why}"
    except LabctlError as error:
        chosen = f"none: {error.brief}"
    return HostReport(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=sys.version.split()[0],
        state=str(state_root()),
        cache=str(cache_root()),
        free_bytes=shutil.disk_usage(next(p for p in (state_root(), *state_root().parents) if p.exists())).free,
        chosen=chosen,
        providers=reports,
    )


def _lacking_for_images(backend: Backend) -> tuple[Lack, ...]:
    """What building images lacks here. Never fatal for a provider: images can also be fetched or imported."""
    if backend.images is None:
        return ()
    lacks = tuple(Lack(f"images cannot be built: {one.what}", one.remedy, fatal=False) for one in missing())
    if backend.images != "qemu":
        boxes = missing_for_boxes()
        lacks += tuple(Lack(f"boxes cannot be made: {one.what}", one.remedy, fatal=False) for one in boxes)
    return lacks


def _provider(name: str) -> ProviderReport:
    backend = PROVIDERS[name]
    lacks = (*backend.probe(), *_lacking_for_images(backend))
    usable = backend.engine is not None and not any(lack.fatal for lack in lacks)
    capabilities = backend.engine.capabilities() if usable and backend.engine is not None else None
    return ProviderReport(name, backend.summary, usable, lacks, capabilities)
