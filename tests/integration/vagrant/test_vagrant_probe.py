"""What ``labctl doctor`` says of Vagrant's engines, asked of programs that answer as the real ones do.

Each case has a PATH of its own with small programs that print what the real ones print; the CPU and the kernel driver
are this host's, so what is said of them is left out.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from labctl.host.runner import Runner
from labctl.providers.base import Lack
from labctl.providers.vagrant import BACKENDS, probe

pytestmark = pytest.mark.integration

WARNING = "WARNING: The character device /dev/vboxdrv does not exist."


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
    """A PATH with these programs alone, each a case over its arguments."""
    for name, cases in answers.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\ncase $* in\n{cases}\n*) exit 2 ;;\nesac\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def texts(lacks: tuple[Lack, ...]) -> list[str]:
    return [lack.what for lack in lacks if "driver" not in lack.what and "processor" not in lack.what]


def test_an_empty_host_lacks_everything_and_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch)
    for backend in BACKENDS:
        lacks = backend.probe()
        assert len(lacks) >= 2
        assert all(lack.fatal and lack.remedy for lack in lacks)
        assert lacks[0].what == "Vagrant is not installed"


@pytest.mark.parametrize(
    ("vagrant", "virtualbox", "said"),
    [
        ("2.4.9", "7.2.22", []),
        ("2.3.4", "7.0.20", []),
        ("2.3.4", "7.2.22", ["Vagrant 2.3.4 does not know VirtualBox 7.2"]),
        ("2.4.1", "7.1.0", ["Vagrant 2.4.1 does not know VirtualBox 7.1"]),
        ("2.4.9", "7.3.0", ["VirtualBox 7.3.0 is newer than any that labctl knows a Vagrant for"]),
        ("2.4.9", "6.1.50", ["VirtualBox 6.1.50 is too old: before 7.0 the host's loopback is open to guests"]),
        (
            "2.2.19",
            "7.0.20",
            ["Vagrant 2.2.19 is too old; labctl needs 2.3.2", "Vagrant 2.2.19 does not know VirtualBox 7.0"],
        ),
    ],
)
def test_versions_that_do_not_go_together_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vagrant: str, virtualbox: str, said: list[str]
) -> None:
    programs(
        tmp_path,
        monkeypatch,
        vagrant=f"--version) echo 'Vagrant {vagrant}' ;;",
        VBoxManage=f"--version) echo '{WARNING}'; echo '{virtualbox}_Debianr163906' ;;",
    )
    assert texts(probe.virtualbox()) == said


@pytest.mark.parametrize(
    ("plugins", "uri", "said"),
    [
        ("vagrant-libvirt (0.11.2, system)", "echo qemu:///system", []),
        ("No plugins installed.", "echo qemu:///system", ["Vagrant's libvirt plugin is not installed"]),
        ("vagrant-libvirt (0.12.2)", "exit 1", ["no libvirt daemon answers at qemu:///system"]),
    ],
)
def test_libvirt_needs_its_plugin_and_its_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugins: str, uri: str, said: list[str]
) -> None:
    programs(
        tmp_path,
        monkeypatch,
        vagrant=f"--version) echo 'Vagrant 2.3.4' ;;\n'plugin list') echo '{plugins}' ;;",
        virsh=f"--version) echo 9.0.0 ;;\n*' uri') {uri} ;;",
    )
    assert texts(probe.libvirt()) == said


@pytest.mark.parametrize(("plugins", "missing"), [("vagrant-vmware-desktop (3.0.5, global)", 0), ("none", 1)])
def test_what_labctl_only_renders_for_is_never_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugins: str, missing: int
) -> None:
    programs(tmp_path, monkeypatch, vagrant=f"--version) echo 'Vagrant 2.4.9' ;;\n'plugin list') echo '{plugins}' ;;")
    *others, last = probe.vmware()
    assert [lack.what for lack in others] == ["Vagrant's VMware plugin is not installed"] * missing
    for lack in (last, probe.hyperv()[-1]):
        assert lack.what == "labctl writes files for it and does not drive it, and nobody has tried those files"
        assert lack.fatal
    assert "labctl render --provider vmware_desktop -o DIR" in last.remedy


def test_a_linux_host_needs_the_driver_and_the_processors_help(tmp_path: Path) -> None:
    cpuinfo, driver = tmp_path / "cpuinfo", tmp_path / "vboxdrv"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu vme sse2\n")
    said = [lack.what for lack in probe.linux_lacks(driver, cpuinfo)]
    assert said == [
        f"VirtualBox's kernel driver is not loaded ({driver} is missing)",
        "this processor offers no VT-x or AMD-V here",
    ]
    driver.touch()
    cpuinfo.write_text("flags\t\t: fpu svm sse2\n")
    assert probe.linux_lacks(driver, cpuinfo) == []


@pytest.mark.parametrize(("answer", "lacks"), [("True", 1), ("False", 0)])
def test_windows_is_asked_for_another_hypervisor(
    answer: str, lacks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, powershell=f"*HypervisorPresent) echo {answer} ;;")
    found = probe.windows_lacks(Runner())
    assert [lack.fatal for lack in found] == [False] * lacks


def test_another_hypervisor_is_named_beside_what_virtualbox_lacks_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(
        tmp_path,
        monkeypatch,
        vagrant="--version) echo 'Vagrant 2.4.9' ;;",
        VBoxManage="--version) echo 7.2.22 ;;",
        powershell="*HypervisorPresent) echo True ;;",
    )
    monkeypatch.setattr(probe.sys, "platform", "win32")
    assert [lack.what.partition(",")[0] for lack in probe.virtualbox()] == ["Hyper-V is on"]


def test_the_real_host_is_asked_in_seconds() -> None:
    assert shutil.which("vagrant"), "Vagrant is not installed; make setup installs it (Debian: apt install vagrant)"
    started = time.monotonic()
    said = [lack.what for backend in BACKENDS for lack in backend.probe()]
    assert "Vagrant is not installed" not in said
    assert time.monotonic() - started < 20
