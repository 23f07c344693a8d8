"""Real Vagrant reads the rendered files: ``vagrant validate`` of Debian's package, without a network.

What Vagrant checks depends on what is installed. Without VirtualBox it takes another provider that is usable here and
leaves VirtualBox's settings unread; ``--ignore-provider`` is not needed for that. So that they are read as well, a
program called VBoxManage that only tells a version stands in for VirtualBox: Vagrant's own VirtualBox provider then
checks every setting. Hyper-V's provider is part of Vagrant as well, and is told that it is usable here. VMware's is a
plug-in that no distribution has: of its files only the syntax is checked, by Ruby. Debian's Vagrant comes without the
winrm gem and ends with a LoadError at a Windows guest; an empty communicator stands in for it, since nobody logs in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.providers.vagrant import BACKENDS
from labctl.spec.load import load

pytestmark = pytest.mark.integration

LABS = Path(__file__).resolve().parents[2] / "golden/vagrant"
SHIPPED = LABS.parents[2] / "labs"

NO_WINRM_GEM = """\
Class.new(Vagrant.plugin('2')) do
  name 'no winrm gem'
  communicator('winrm') { Class.new(Vagrant.plugin('2', :communicator)) { def initialize(_machine); end } }
end
"""
HYPERV_IS_USABLE = """\
require Vagrant.source_root.join('plugins/providers/hyperv/provider')
VagrantPlugins::HyperV::Provider.define_singleton_method(:usable?) { |_raise = false| true }
"""
VBOXMANAGE = '#!/bin/sh\n[ "$1" = --version ] && echo 7.0.20r163906\n'


class Vagrant:
    """Vagrant with a home of its own, in a folder with a rendered lab."""

    def __init__(self, folder: Path, lab: str, provider: str) -> None:
        """lab: the name of one that is kept for these tests, or of a shipped one after ``shipped/``."""
        home = SHIPPED / Path(lab).name if lab.startswith("shipped/") else LABS / lab
        self.vagrant = shutil.which("vagrant")
        assert self.vagrant, "Vagrant is not installed; make setup installs it (Debian: apt install vagrant)"
        self.folder = folder / "rendered"
        self.home = folder / "home"
        self.home.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("VAGRANT_", "LABCTL_"))},
            "VAGRANT_HOME": str(self.home),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "LABCTL_LAB_ROOT": str(home),
        }
        (self.home / "Vagrantfile").write_text(NO_WINRM_GEM)
        backend = next(backend for backend in BACKENDS if backend.name == provider)
        plan = build(load(home / "lab.yaml"), provider=provider)
        if backend.load is None:
            plan = replace(plan, seal=True)
        for name, text in backend.render(plan, {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())

    @property
    def file(self) -> Path:
        return self.folder / "Vagrantfile"

    def with_virtualbox(self, folder: Path) -> Vagrant:
        """The same where VBoxManage tells a version."""
        folder.mkdir()
        program = folder / "VBoxManage"
        program.write_text(VBOXMANAGE)
        program.chmod(0o755)
        self.environment |= {"PATH": f"{folder}:{self.environment['PATH']}", "VAGRANT_DEFAULT_PROVIDER": "virtualbox"}
        return self

    def validate(self) -> tuple[int, str]:
        """Exit status and what was said."""
        done = subprocess.run(
            [str(self.vagrant), "validate"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize(
    ("lab", "provider"),
    [
        (f"shipped/{lab.name}", provider)
        for lab in sorted(SHIPPED.iterdir())
        for provider in ("virtualbox", "libvirt")
        if (lab.name, provider) != ("sensor", "libvirt")  # which refuses a NIC that is to hear others
    ],
)
def test_vagrants_own_providers_take_every_shipped_lab(tmp_path: Path, lab: str, provider: str) -> None:
    vagrant = Vagrant(tmp_path, lab, provider)
    if provider == "virtualbox":
        vagrant.with_virtualbox(tmp_path / "bin")
    vagrant.environment["VAGRANT_DEFAULT_PROVIDER"] = provider
    code, said = vagrant.validate()
    assert (code, "validated successfully" in said) == (0, True), said


@pytest.mark.parametrize("lab", ["dmz", "everything"])
def test_plain_vagrant_validate_takes_the_file(tmp_path: Path, lab: str) -> None:
    code, said = Vagrant(tmp_path, lab, "virtualbox").validate()
    assert (code, "validated successfully" in said) == (0, True), said


def test_vagrants_virtualbox_provider_takes_every_setting(tmp_path: Path) -> None:
    vagrant = Vagrant(tmp_path, "everything", "virtualbox").with_virtualbox(tmp_path / "bin")
    code, said = vagrant.validate()
    assert (code, "validated successfully" in said) == (0, True), said
    vagrant.file.write_text(vagrant.file.read_text().replace("vb.gui = ", "vb.guy = "))
    code, said = vagrant.validate()
    assert code == 1
    assert "The following settings shouldn't exist: guy" in said


@pytest.mark.parametrize("lab", ["apart", "dmz", "plain"])
def test_vagrants_libvirt_provider_takes_every_setting(tmp_path: Path, lab: str) -> None:
    vagrant = Vagrant(tmp_path, lab, "libvirt")
    vagrant.environment["VAGRANT_DEFAULT_PROVIDER"] = "libvirt"
    code, said = vagrant.validate()
    hint = "Vagrant's libvirt plugin is needed; make setup installs it (Debian: apt install vagrant-libvirt)"
    assert "'libvirt'" not in said, f"{hint}\n{said}"
    assert (code, "validated successfully" in said) == (0, True), said
    vagrant.file.write_text(vagrant.file.read_text().replace("lv.driver = ", "lv.drivel = "))
    code, said = vagrant.validate()
    assert code == 1
    assert "The following settings shouldn't exist: drivel" in said


def test_vagrants_hyperv_provider_takes_every_setting(tmp_path: Path) -> None:
    vagrant = Vagrant(tmp_path, "alone", "hyperv")
    vagrant.environment["VAGRANT_DEFAULT_PROVIDER"] = "hyperv"
    (vagrant.home / "Vagrantfile").write_text(NO_WINRM_GEM + HYPERV_IS_USABLE)
    code, said = vagrant.validate()
    assert (code, "validated successfully" in said) == (0, True), said
    vagrant.file.write_text(vagrant.file.read_text().replace("hv.vmname = ", "hv.vmnome = "))
    code, said = vagrant.validate()
    assert code == 1
    assert "The following settings shouldn't exist: vmnome" in said


@pytest.mark.parametrize(
    ("lab", "provider"), [("dmz", "vmware_desktop"), ("plain", "vmware_desktop"), ("alone", "hyperv")]
)
def test_what_nobody_has_run_is_ruby(tmp_path: Path, lab: str, provider: str) -> None:
    ruby = shutil.which("ruby")
    assert ruby, "Ruby is not installed; make setup installs it (Debian: apt install ruby)"
    file = Vagrant(tmp_path, lab, provider).file
    done = subprocess.run([ruby, "-wc", file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Syntax OK"), done.stderr
    # the one variable that a lab without files of its own does not need
    assert [line for line in done.stderr.splitlines() if "unused variable - here" not in line] == []


def test_a_lab_without_its_files_is_told_which_are_missing(tmp_path: Path) -> None:
    vagrant = Vagrant(tmp_path, "dmz", "virtualbox")
    del vagrant.environment["LABCTL_LAB_ROOT"]
    code, said = vagrant.validate()
    assert code == 1
    assert re.search(r"source file \S*/rendered/files/index\.html must exist", said)


def test_another_provider_is_refused_before_a_machine_is_made(tmp_path: Path) -> None:
    """libvirt would make these networks with a way out."""
    vagrant = Vagrant(tmp_path, "dmz", "virtualbox")
    done = subprocess.run(
        [str(vagrant.vagrant), "up", "--provider", "libvirt", "attacker"],
        cwd=vagrant.folder,
        env=vagrant.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode != 0
    assert "isolates its networks with the virtualbox provider and with no other" in said
