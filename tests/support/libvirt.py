"""A libvirt daemon of its own for tests, on a host that is a namespace: nothing of it is seen by this computer's own.

No init system is needed. Domains outlive their daemon, so whatever a test left is ended first.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.surroundings import Surroundings

# The tests' folders are root's, so domains run as root. Their output goes to files: no virtlogd is needed.
_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
stdio_handler = "file"
remember_owner = 0
namespaces = []
cgroup_controllers = []
"""
_LIBVIRTD_CONF = 'auth_unix_rw = "none"\nauth_unix_ro = "none"\nlog_outputs = "2:file:FOLDER/libvirtd.log"\n'


@contextmanager
def libvirtd(host: Surroundings, folder: Path) -> Iterator[None]:
    """Run the daemon on that host for the length of a ``with`` block. folder: for its files, the domains' disks too."""
    missing = [
        name for name in ("libvirtd", "virsh", "dnsmasq") if shutil.which(name, path="/usr/sbin:/usr/bin") is None
    ]
    assert not missing, f"needs {', '.join(missing)}: make setup installs libvirt-daemon-system libvirt-clients"
    for name in ("run", "lib", "etc", "cache", "log"):
        (folder / name).mkdir(parents=True)
        target = {"run": "/run/libvirt", "etc": "/etc/libvirt"}.get(name, f"/var/{name}/libvirt")
        Path(target).mkdir(parents=True, exist_ok=True)
        host.run("mount", "--bind", str(folder / name), target)
    (folder / "etc" / "qemu.conf").write_text(_QEMU_CONF)
    (folder / "etc" / "libvirtd.conf").write_text(_LIBVIRTD_CONF.replace("FOLDER", str(folder)))
    argv = [*host.enter(folder), "/usr/sbin/libvirtd", "--pid-file", str(folder / "run" / "libvirtd.pid")]
    with (folder / "said").open("wb") as said, subprocess.Popen(argv, stdout=said, stderr=said) as daemon:
        try:
            _await(host, daemon, folder)
            yield
        finally:
            for name in _virsh(host, "list", "--all", "--name"):
                _virsh(host, "destroy", name)
            for name in _virsh(host, "net-list", "--name"):
                _virsh(host, "net-destroy", name)  # ends its dnsmasq
            daemon.terminate()
            daemon.wait(20)


def _await(host: Surroundings, daemon: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 30
    asking = [*host.enter(folder), "virsh", "-c", "qemu:///system", "uri"]
    while daemon.poll() is None and time.monotonic() < deadline:
        if subprocess.run(asking, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError(f"libvirtd does not answer: {(folder / 'said').read_text()}")


def _virsh(host: Surroundings, *words: str) -> list[str]:
    argv = [*host.enter(Path("/")), "virsh", "--quiet", "--connect", "qemu:///system", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split()
