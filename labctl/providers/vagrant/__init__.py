"""Labs through Vagrant, for the engines it drives: labctl renders a Vagrantfile that plain ``vagrant up`` takes."""

from __future__ import annotations

from collections.abc import Mapping

from labctl.plan.model import LabPlan
from labctl.providers.base import Backend, BootImage, Lack, Provider


def _probe_virtualbox() -> tuple[Lack, ...]:
    from labctl.providers.vagrant import probe

    return probe.virtualbox()


def _probe_libvirt() -> tuple[Lack, ...]:
    from labctl.providers.vagrant import probe

    return probe.libvirt()


def _render_virtualbox(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    from labctl.providers.vagrant import render

    return render.render_virtualbox(plan, images)


def _render_libvirt(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    from labctl.providers.vagrant import render

    return render.render_libvirt(plan, images)


def _load_libvirt() -> type[Provider]:
    from labctl.providers.vagrant.provider import LibvirtProvider

    return LibvirtProvider


def _load_virtualbox() -> type[Provider]:
    from labctl.providers.vagrant.provider import VirtualBoxProvider

    return VirtualBoxProvider


BACKENDS: tuple[Backend, ...] = (
    Backend(
        "virtualbox",
        "VirtualBox, through Vagrant",
        _probe_virtualbox,
        _render_virtualbox,
        _load_virtualbox,
        "virtualbox",
    ),
    Backend(
        "libvirt",
        "KVM and QEMU under libvirt, through Vagrant",
        _probe_libvirt,
        _render_libvirt,
        _load_libvirt,
        "libvirt",
    ),
)
