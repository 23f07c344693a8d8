"""What a host lacks for Vagrant's providers, found in seconds and without starting a machine."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from labctl.errors import HostError
from labctl.host.runner import Runner
from labctl.providers.base import Lack
from labctl.providers.vagrant.networks import SYSTEM_URI

Version = tuple[int, int]

# The first Vagrant that accepts a VirtualBox of this minor version (CHANGELOG.md of Vagrant).
_VAGRANT_FOR_VIRTUALBOX: dict[Version, tuple[int, ...]] = {(7, 0): (2, 3, 2), (7, 1): (2, 4, 2), (7, 2): (2, 4, 9)}
_OLDEST_VIRTUALBOX: Version = (7, 0)
_OLDEST_VAGRANT = (2, 3, 2)
_SECONDS = 20.0


def virtualbox() -> tuple[Lack, ...]:
    """What is missing for the ``virtualbox`` provider."""
    runner = Runner()
    vagrant = _version(runner, "vagrant")
    box = _version(runner, _vboxmanage())
    lacks = [*_vagrant_lacks(vagrant), *_virtualbox_lacks(box)]
    if vagrant is not None and box is not None:
        needed = _VAGRANT_FOR_VIRTUALBOX.get((box[0], box[1]))
        if needed is not None and vagrant < needed:
            lacks.append(
                Lack(
                    f"Vagrant {_dotted(vagrant)} does not know VirtualBox {box[0]}.{box[1]}",
                    f"Install Vagrant {_dotted(needed)} or later from https://developer.hashicorp.com/vagrant/install",
                )
            )
    if sys.platform == "linux":
        lacks += linux_lacks(Path("/dev/vboxdrv"), Path("/proc/cpuinfo"))
    elif sys.platform == "win32":
        lacks += windows_lacks(runner)
    return tuple(lacks)


def libvirt() -> tuple[Lack, ...]:
    """What is missing for the ``libvirt`` provider."""
    runner = Runner()
    vagrant = _version(runner, "vagrant")
    lacks = _vagrant_lacks(vagrant)
    if vagrant is not None and b"vagrant-libvirt" not in _said(runner, "vagrant", "plugin", "list"):
        lacks.append(
            Lack(
                "Vagrant's libvirt plugin is not installed",
                "apt install vagrant-libvirt, or: vagrant plugin install vagrant-libvirt",
            )
        )
    if _version(runner, "virsh") is None:
        lacks.append(Lack("virsh is not installed", "apt install libvirt-clients libvirt-daemon-system"))
    elif not _said(runner, "virsh", "--connect", SYSTEM_URI, "uri").strip():
        lacks.append(
            Lack(
                f"no libvirt daemon answers at {SYSTEM_URI}",
                "systemctl start libvirtd, and add yourself to the group libvirt",
            )
        )
    return tuple(lacks)


def vmware() -> tuple[Lack, ...]:
    """What is missing for the ``vmware_desktop`` provider, of which labctl only renders files."""
    runner = Runner()
    vagrant = _version(runner, "vagrant")
    lacks = _vagrant_lacks(vagrant)
    if vagrant is not None and b"vagrant-vmware-desktop" not in _said(runner, "vagrant", "plugin", "list"):
        lacks.append(
            Lack(
                "Vagrant's VMware plugin is not installed",
                "vagrant plugin install vagrant-vmware-desktop; it also needs the Vagrant VMware Utility",
            )
        )
    return (*lacks, _renders_only("vmware_desktop"))


def hyperv() -> tuple[Lack, ...]:
    """What is missing for the ``hyperv`` provider, of which labctl only renders files."""
    lacks = _vagrant_lacks(_version(Runner(), "vagrant"))
    if sys.platform != "win32":
        lacks.append(Lack("Hyper-V is a part of Windows", "Use another provider here."))
    return (*lacks, _renders_only("hyperv"))


def _renders_only(name: str) -> Lack:
    return Lack(
        "labctl writes files for it and does not drive it, and nobody has tried those files",
        f"labctl render --provider {name} -o DIR, then read what it wrote and run `vagrant up` there",
    )


def _vagrant_lacks(version: tuple[int, ...] | None) -> list[Lack]:
    remedy = "apt install vagrant, or see https://developer.hashicorp.com/vagrant/install"
    if version is None:
        return [Lack("Vagrant is not installed", remedy)]
    if version < _OLDEST_VAGRANT:
        return [Lack(f"Vagrant {_dotted(version)} is too old; labctl needs {_dotted(_OLDEST_VAGRANT)}", remedy)]
    return []


def _virtualbox_lacks(version: tuple[int, ...] | None) -> list[Lack]:
    remedy = "Install VirtualBox 7 from https://www.virtualbox.org/wiki/Downloads"
    if version is None:
        return [Lack("VirtualBox (VBoxManage) is not installed", remedy)]
    if version[:2] < _OLDEST_VIRTUALBOX:
        why = "before 7.0 the host's loopback is open to guests"
        return [Lack(f"VirtualBox {_dotted(version)} is too old: {why}", remedy)]
    if version[:2] > (newest := max(_VAGRANT_FOR_VIRTUALBOX)):
        return [
            Lack(
                f"VirtualBox {_dotted(version)} is newer than any that labctl knows a Vagrant for",
                f"Install VirtualBox {_dotted(newest)}, or a newer labctl.",
            )
        ]
    return []


def linux_lacks(driver: Path, cpuinfo: Path) -> list[Lack]:
    """What VirtualBox needs of a Linux host: its kernel driver, and hardware virtualisation that is there for it."""
    lacks = []
    if not driver.exists():
        lacks.append(
            Lack(
                f"VirtualBox's kernel driver is not loaded ({driver} is missing)",
                "apt install virtualbox-dkms, or run: sudo /sbin/vboxconfig",
            )
        )
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    if flags and not {"vmx", "svm"} & set(flags[1].split()):
        lacks.append(
            Lack(
                "this processor offers no VT-x or AMD-V here",
                "Switch it on in the firmware; inside a virtual machine, switch on nested virtualisation.",
            )
        )
    return lacks


def windows_lacks(runner: Runner) -> list[Lack]:
    """Whether another hypervisor has the processor: VirtualBox runs on top of Hyper-V then, slowly where it does."""
    question = "(Get-CimInstance Win32_ComputerSystem).HypervisorPresent"
    if _said(runner, "powershell", "-NoProfile", "-Command", question).strip() != b"True":
        return []
    remedy = "bcdedit /set hypervisorlaunchtype off, switch off memory integrity, and restart"
    return [Lack("Hyper-V is on, which makes VirtualBox slow or keeps it from starting machines", remedy, fatal=False)]


def _vboxmanage() -> str:
    """VBoxManage, which Windows installers do not put on the PATH but name a variable for."""
    folder = os.environ.get("VBOX_MSI_INSTALL_PATH") or os.environ.get("VBOX_INSTALL_PATH")
    if folder and shutil.which("VBoxManage") is None:
        return str(Path(folder) / "VBoxManage.exe")
    return "VBoxManage"


def _version(runner: Runner, program: str) -> tuple[int, ...] | None:
    """The version that ``program --version`` prints last, or None. Debian's VBoxManage warns on standard output."""
    found = re.findall(rb"(\d+)\.(\d+)\.(\d+)", _said(runner, program, "--version"))
    return tuple(int(part) for part in found[-1]) if found else None


def _said(runner: Runner, *argv: str) -> bytes:
    """What a program prints; nothing where it is missing, fails or does not end in time."""
    try:
        result = runner.run(argv, changes=False, timeout=_SECONDS, check=False)
    except HostError:
        return b""
    return result.stdout if result.code == 0 else b""


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
