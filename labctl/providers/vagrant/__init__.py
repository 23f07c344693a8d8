"""Labs through Vagrant, for the engines it drives: labctl renders a Vagrantfile that plain ``vagrant up`` takes.

For VMware and Hyper-V that is all it does: nobody has run those files yet, and they say so.
"""

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


def _probe_vmware() -> tuple[Lack, ...]:
    from labctl.providers.vagrant import probe

    return probe.vmware()


def _probe_hyperv() -> tuple[Lack, ...]:
    from labctl.providers.vagrant import probe

    return probe.hyperv()


def _render_virtualbox(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    from labctl.providers.vagrant import render

    return render.render_virtualbox(plan, images)


def _render_libvirt(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    from labctl.providers.vagrant import render

    return render.render_libvirt(plan, images)


def _render_vmware(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    from labctl.providers.vagrant import render

    return render.render_vmware(plan, images)


def _render_hyperv(plan: LabPlan, images: Mapping[str, BootImage]) -> Mapping[str, str]:
    from labctl.providers.vagrant import render

    return render.render_hyperv(plan, images)


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
    Backend(
        "vmware_desktop",
        "VMware Workstation, through Vagrant: files only, untested",
        _probe_vmware,
        _render_vmware,
        None,
    ),
    Backend("hyperv", "Hyper-V, through Vagrant: files only, untested", _probe_hyperv, _render_hyperv, None),
)
