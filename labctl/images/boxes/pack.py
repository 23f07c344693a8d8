"""A box file: a tar archive of a disk, what the hypervisor needs to know of it, and defaults for Vagrant."""

from __future__ import annotations

import io
import json
import string
import tarfile
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from labctl.host.runner import Runner
from labctl.images.boxes import disk, vmdk

OVF = Path(__file__).parent / "box.ovf"
_VMDK = "box-disk001.vmdk"
_MEMORY = 512  # MiB, where a Vagrantfile says nothing else
NICS = 8
_PACK_SECONDS = 600.0
_GB = 10**9

VAGRANTFILE = """\
# What is true of this box wherever it runs: it shares no folder, and all its network cards are VirtIO ones.
Vagrant.configure('2') do |config|
  config.vm.guest = :debian
  config.vm.synced_folder '.', '/vagrant', disabled: true
{settings}
end
"""
VIRTUALBOX = """\
  config.vm.base_mac = '{mac}'
  config.vm.provider 'virtualbox' do |vb|
    vb.check_guest_additions = false
    vb.functional_vboxsf = false
    vb.default_nic_type = 'virtio'
  end"""
LIBVIRT = """\
  config.vm.provider 'libvirt' do |lv|
    lv.disk_bus = 'virtio'
    lv.nic_model_type = 'virtio'
  end"""


def virtualbox(name: str, digest: str, raw: Path, target: Path) -> None:
    """Write a box for VirtualBox. name: what the machine is called before Vagrant names it. digest: the image's.

    The disk is on an IDE controller, since the images' kernel has no driver for a SATA one. For the same reason all
    NICs are VirtIO ones, those that a lab adds too.
    """
    packed = raw.with_name(_VMDK)
    vmdk.write(raw, packed, disk.identity(digest, "vmdk"))
    mac = base_mac(digest)
    ovf = string.Template(OVF.read_text(encoding="utf-8")).substitute(
        name=escape(name),
        disk_file=_VMDK,
        disk_file_size=packed.stat().st_size,
        capacity=raw.stat().st_size,
        disk_uuid=disk.identity(digest, "vmdk"),
        machine_uuid=disk.identity(digest, "machine"),
        memory=_MEMORY,
        adapters="\n".join(adapter(slot, mac) for slot in range(NICS)),
    )
    small = {
        "Vagrantfile": VAGRANTFILE.format(settings=VIRTUALBOX.format(mac=mac)).encode(),
        "box.ovf": ovf.encode(),
        "metadata.json": as_json({"provider": "virtualbox"}),
    }
    archive(small, {_VMDK: packed}, target)


def libvirt(raw: Path, target: Path, runner: Runner) -> None:
    """Write a box for libvirt."""
    packed = raw.with_name("box.img")
    runner.run(
        ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", raw, packed],
        timeout=_PACK_SECONDS,
    )
    size = -(-raw.stat().st_size // _GB)
    small = {
        "Vagrantfile": VAGRANTFILE.format(settings=LIBVIRT).encode(),
        "metadata.json": as_json({"provider": "libvirt", "format": "qcow2", "virtual_size": size}),
    }
    archive(small, {"box.img": packed}, target)


def base_mac(digest: str) -> str:
    """The MAC address of the first NIC, in VirtualBox's own range, where a Vagrantfile sets none."""
    return f"080027{digest[:6].upper()}"


def archive(small: Mapping[str, bytes], large: Mapping[str, Path], target: Path) -> None:
    """A tar archive with the same bytes for the same content. Not packed further: the disks in it are."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted([*small, *large]):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o644
            if name in small:
                entry.size = len(small[name])
                tar.addfile(entry, io.BytesIO(small[name]))
            else:
                entry.size = large[name].stat().st_size
                with large[name].open("rb") as file:
                    tar.addfile(entry, file)


def adapter(slot: int, mac: str) -> str:
    """A NIC. Without a word of it, VirtualBox would let the guest reach this computer's loopback through its NAT."""
    nat = '<NAT localhost-reachable="false"/>'
    if slot == 0:
        return f'          <Adapter slot="0" enabled="true" MACAddress="{mac}" type="virtio">{nat}</Adapter>'
    off = f"<DisabledModes>{nat}</DisabledModes>"
    return f'          <Adapter slot="{slot}" enabled="false" type="virtio">{off}</Adapter>'


def as_json(value: object) -> bytes:
    """A box's metadata, the same bytes each time."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
