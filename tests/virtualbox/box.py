"""A Vagrant box of a machine with an empty disk, made by VirtualBox itself and kept beside the tree."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from labctl.host.files import digest
from labctl.providers.base import BootImage
from tests.virtualbox.harness import VirtualBoxHost, virtualbox_host
from tests.virtualbox.tree import Tree

MAC = "080027000001"
_NAME = "empty"
_COMMANDS = (
    ("createmedium", "disk", "--filename", "disk.vmdk", "--size", "16", "--format", "VMDK"),
    ("createvm", "--name", _NAME, "--ostype", "Debian_64", "--register"),
    ("modifyvm", _NAME, "--memory", "32", "--nic1", "nat", "--mac-address1", MAC, "--audio-enabled", "off"),
    ("storagectl", _NAME, "--name", "IDE", "--add", "ide"),
    (
        "storageattach",
        _NAME,
        "--storagectl",
        "IDE",
        "--port",
        "0",
        "--device",
        "0",
        "--type",
        "hdd",
        "--medium",
        "disk.vmdk",
    ),
    ("export", _NAME, "--output", "box.ovf"),
)
_VAGRANTFILE = f"Vagrant.configure('2') {{ |config| config.vm.base_mac = '{MAC}' }}\n"


def empty_box(tree: Tree) -> BootImage:
    """The box as an image of labctl's."""
    key = hashlib.sha256(repr((_COMMANDS, _VAGRANTFILE)).encode()).hexdigest()[:12]
    path = tree.folder / "boxes" / f"{_NAME}-{key}.box"
    path.parent.mkdir(exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # no two that are made are the same
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=tree.folder) as folder, virtualbox_host(tree, Path(folder)) as host:
                _made(host).replace(path)
    return BootImage("debian-12", digest(path), path, user="vagrant")


def _made(host: VirtualBoxHost) -> Path:
    for command in _COMMANDS:
        host.run("VBoxManage", *command)
    (host.home / "metadata.json").write_text(json.dumps({"provider": "virtualbox"}))
    (host.home / "Vagrantfile").write_text(_VAGRANTFILE)
    box = host.home / "empty.box"
    with tarfile.open(box, "w:gz") as archive:
        for name in ("metadata.json", "Vagrantfile", "box.ovf", f"{_NAME}-disk001.vmdk"):
            archive.add(host.home / name, arcname=name)
    return box
