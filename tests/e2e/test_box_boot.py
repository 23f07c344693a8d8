"""The disks of boxes boot by BIOS and by EFI, take an address, and let Vagrant in with the key that it tries first."""

from __future__ import annotations

import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from labctl.images import resolve_box

pytestmark = [pytest.mark.e2e, pytest.mark.engines]

BOOT_SECONDS = 200.0  # generous, for a machine with other work
OVMF = Path("/usr/share/OVMF")
KEYS = "/usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant"


@dataclass(frozen=True)
class Guest:
    """A running guest: the loopback port that leads to its SSH port, a file with what it says, when it was started."""

    port: int
    console: Path
    key: Path
    started: float
    process: subprocess.Popen[bytes]

    def wait(self) -> float:
        """Seconds from the start to SSH's banner."""
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.settimeout(60)  # a slow guest: one patient caller instead of many
                    if connection.recv(64).startswith(b"SSH-2.0-OpenSSH"):
                        return time.monotonic() - self.started
            except OSError:
                pass
            said = self.console.read_text(errors="replace")[-2000:] if self.console.exists() else ""
            assert self.process.poll() is None, said
            assert time.monotonic() - self.started < BOOT_SECONDS, said
            time.sleep(0.2)

    def run(self, script: str) -> str:
        """What a command says in a session of Vagrant's account."""
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={self.console}.hosts")
        done = subprocess.run(
            [
                *("ssh", "-F", "none", "-i", str(self.key), "-p", str(self.port)),
                *(word for option in options for word in ("-o", option)),
                *("vagrant@127.0.0.1", script),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key that is published with Vagrant, as its package brings it."""
    found = sorted(Path("/").glob(KEYS[1:]))
    assert found, "Vagrant is not installed; make setup installs it (Debian: apt install vagrant)"
    copy = tmp_path_factory.mktemp("key") / "vagrant"
    copy.write_bytes(found[0].read_bytes())
    copy.chmod(0o600)
    return copy


def _disk(image: str, provider: str, member: str, folder: Path) -> Path:
    """A disk with the content of the one that the box brings, unpacked as an import does."""
    with tarfile.open(resolve_box(image, (), provider).path) as tar:
        tar.extract(member, folder, filter="data")
    disk = folder / "disk.qcow2"
    kind = "vmdk" if member.endswith(".vmdk") else "qcow2"
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "qcow2", folder / member, disk], check=True)
    return disk


@contextmanager
def _booted(folder: Path, key: Path, machine: str, *arguments: str) -> Iterator[Guest]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    console = folder / "console"
    started = time.monotonic()
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-accel", "tcg,tb-size=128", "-cpu", "Nehalem,+rdrand", "-M", machine),
            *("-m", "512", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", *arguments),
            *("-serial", f"file:{console}"),
            *("-netdev", f"user,id=m,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22"),
            *("-netdev", "hubport,id=lab,hubid=1"),
            *("-device", "virtio-net-pci,netdev=m,romfile=", "-device", "virtio-net-pci,netdev=lab,romfile="),
        ]
    )
    try:
        yield Guest(port, console, key, started, process)
    finally:
        process.kill()
        process.wait()


_LOOK = """\
sudo -n id -un
findmnt -no SOURCE /
test -e /sys/firmware/efi && echo efi || echo bios
cat /etc/ssh/ssh_host_ed25519_key.pub
ip -br address show eth0
ip -br link show eth1
ls /etc/ssh/ssh_host_*_key
ip route show default; cat /etc/resolv.conf
until sudo systemctl is-system-running | grep -qE 'running|degraded'; do sleep 1; done
sudo systemctl list-units --failed --no-legend
sudo systemctl is-active labctl-management getty@tty1
"""


def _look(guest: Guest) -> tuple[float, list[str]]:
    """Seconds until SSH's banner, and what one session says, line by line: under emulation a login takes seconds."""
    seconds = guest.wait()
    return seconds, guest.run(_LOOK).splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("image", ["debian-12", "debian-13"])
def test_boxes_boot_by_bios_and_by_efi_and_let_vagrant_in(
    image: str, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VirtualBox's disk on an IDE controller by BIOS, libvirt's on virtio-blk by EFI; both at the same time."""
    firmware, variables = OVMF / "OVMF_CODE_4M.fd", tmp_path / "variables.fd"
    assert firmware.exists(), "OVMF is not installed; make setup installs it (Debian: apt install ovmf)"
    variables.write_bytes((OVMF / "OVMF_VARS_4M.fd").read_bytes())
    bios_folder, efi_folder = tmp_path / "bios", tmp_path / "efi"
    bios_folder.mkdir()
    efi_folder.mkdir()
    bios_disk = _disk(image, "virtualbox", "box-disk001.vmdk", bios_folder)
    efi_disk = _disk(image, "libvirt", "box.img", efi_folder)
    with ExitStack() as stack:
        bios = stack.enter_context(
            _booted(bios_folder, key, "pc,usb=off", "-drive", f"file={bios_disk},if=ide,cache=unsafe")
        )
        efi = stack.enter_context(
            _booted(
                efi_folder,
                key,
                "q35,usb=off",
                *("-drive", f"file={firmware},if=pflash,format=raw,readonly=on"),
                *("-drive", f"file={variables},if=pflash,format=raw"),
                *("-drive", f"file={efi_disk},if=virtio,cache=unsafe"),
            )
        )
        with ThreadPoolExecutor() as pool:
            (bios_seconds, bios_said), (efi_seconds, efi_said) = pool.map(_look, (bios, efi))
    with capsys.disabled():
        sys.stdout.write(f"\nBIOS: SSH after {bios_seconds:.1f} s; EFI: {efi_seconds:.1f} s; at the same time\n")
    assert bios_said[:3] == ["root", "/dev/sda3", "bios"]
    assert efi_said[:3] == ["root", "/dev/vda3", "efi"]
    assert bios_said[3] != efi_said[3], "machines made of one disk must not have one host key"
    for _, address, lab_nic, *rest in (bios_said[3:], efi_said[3:]):
        assert address.split() == ["eth0", "UP", "10.0.2.15/24"]
        assert lab_nic.split()[:2] == ["eth1", "DOWN"]
        # In between there is nothing: no route, no resolver, no failed unit.
        assert rest == ["/etc/ssh/ssh_host_ed25519_key", "active", "active"]
