"""The embedded default: machines as QEMU processes, without root, a daemon or a kernel module."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.plan.model import LabPlan
from labctl.providers.base import Backend, BootImage, Lack, Provider


def _probe() -> tuple[Lack, ...]:
    from labctl.providers.qemu.probe import probe  # see Backend.load

    return probe()


def _render(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    from labctl.providers.qemu.render import render

    return render(plan, images)


def _load() -> type[Provider]:
    from labctl.providers.qemu.provider import QemuProvider

    return QemuProvider


BACKEND = Backend(
    "qemu", "QEMU processes started by labctl itself; nothing else is needed", _probe, _render, _load, images="qemu"
)
