"""A machine's disks: an overlay over its image, and empty extra ones."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

from labctl.errors import HostError
from labctl.host.files import explained, private_folder
from labctl.host.runner import CommandError, Runner
from labctl.plan.model import MachinePlan
from labctl.providers.base import BootImage
from labctl.providers.qemu import record as records
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.template import Template

_LEAST_FREE = 256 << 20


def key(machine: MachinePlan, image: BootImage) -> str:
    """Names what a machine's disks are made from."""
    return records.digest_of(machine.uuid, image.digest, machine.packages, machine.disks)


def create(
    layout: Layout, machine: MachinePlan, image: BootImage, template: Template | None = None, *, runner: Runner
) -> MachineRecord:
    """Make a machine's disks anew; it must not run. The record says so only once they are whole.

    template: what to copy the disk from instead of beginning with the image's. Raises HostError on a full disk.
    """
    files = layout.machine(machine.name)
    private_folder(files.folder)
    record = records.write(layout, MachineRecord(machine.name, records.image_value(image)))
    for old in (*files.folder.glob("disk*.qcow2"), *files.folder.glob("labctl-*"), files.provision_log):
        old.unlink(missing_ok=True)
    if template is None:
        _qemu_img(runner, files.overlay, "-b", image.disk.resolve(), "-F", "qcow2")
    else:
        _copy(template.disk, files.overlay)
    for disk in machine.disks:
        _qemu_img(runner, files.disk(disk.name), size=disk.size)
    return records.write(layout, replace(record, disk=key(machine, image), template=template.key if template else ""))


def check_room(layout: Layout, size: int = 0) -> None:
    """Raises HostError where the disk is as good as full, before anything is made. size: bytes about to be written."""
    free = shutil.disk_usage(layout.workdir).free
    if free < size + _LEAST_FREE:
        raise HostError(
            f"the disk is full: {free >> 20} MiB are free under {layout.workdir}",
            hint=f"Free some space: this takes up to {(size + _LEAST_FREE) >> 20} MiB. Nothing was changed.",
        )


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise explained(target, error) from error


def _qemu_img(runner: Runner, path: Path, *extra: str | Path, size: int | None = None) -> None:
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *extra, path]
    try:
        runner.run([*argv, size] if size is not None else argv)
    except CommandError as error:
        path.unlink(missing_ok=True)
        said = error.result.stderr.decode(errors="replace")
        if any(word in said for word in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))):
            raise HostError(
                f"the disk is full: cannot make {path}",
                details=said.strip(),
                hint="Free some space and repeat the command.",
            ) from error
        raise HostError(f"cannot make the disk {path}", details=said.strip()) from error
