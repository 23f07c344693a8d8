"""A built image boots, answers its agent and lets SSH in, in little memory too."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from labctl.images import Image, resolve
from labctl.providers.qemu.agent import Agent

pytestmark = pytest.mark.e2e

BOOT_SECONDS = 120.0  # generous, for a machine with other work; the benchmark measures


@dataclass(frozen=True)
class Guest:
    """A running guest: its agent, the loopback port that leads to its SSH port, and when it was started."""

    agent: Agent
    port: int
    started: float

    def run(self, script: str) -> str:
        done = self.agent.execute(["/bin/sh", "-c", script], timeout=60)
        assert done.code == 0, done.stderr
        return done.stdout.decode()


@contextmanager
def booted(image: Image, folder: Path, memory: int) -> Iterator[Guest]:
    """A guest with its own overlay of an image; memory is in MiB."""
    overlay, socket_path = folder / "overlay.qcow2", folder / "agent"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image.disk, overlay], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert image.kernel is not None
    assert image.initrd is not None
    started = time.monotonic()
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-accel", "tcg,tb-size=128", "-cpu", "Nehalem,+rdrand", "-M", "q35,usb=off"),
            *("-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none"),
            *("-kernel", image.kernel, "-initrd", image.initrd, "-append", image.cmdline),
            *("-drive", f"file={overlay},if=virtio,cache=unsafe", "-serial", f"file:{folder / 'console'}"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,path={socket_path},server=on,wait=off,id=agent"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0", "-device", "virtio-rng-pci"),
            *("-netdev", f"user,id=m,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22"),
            *("-device", "virtio-net-pci,netdev=m,romfile="),
        ]
    )
    try:
        while not socket_path.exists():
            assert process.poll() is None
            time.sleep(0.02)
        agent = Agent(socket_path, alive=lambda: process.poll() is None)
        agent.synchronise(BOOT_SECONDS)
        yield Guest(agent, port, started)
    finally:
        process.kill()
        process.wait()


def _banner(guest: Guest) -> bytes:
    while True:
        try:
            with socket.create_connection(("127.0.0.1", guest.port), 1) as connection:
                connection.settimeout(30)  # a slow guest: one patient caller instead of many
                if banner := connection.recv(64):
                    return banner
        except OSError:
            pass
        assert time.monotonic() - guest.started < BOOT_SECONDS
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["debian-12", pytest.param("debian-13", marks=pytest.mark.slow)])
def test_an_image_boots_to_ssh_in_little_memory(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with booted(resolve(name), tmp_path, 128) as guest:
        agent_seconds = time.monotonic() - guest.started
        guest.run("ip address add 10.0.2.15/24 dev eth0 && ip link set eth0 up")
        assert _banner(guest).startswith(b"SSH-2.0-OpenSSH")
        ssh_seconds = time.monotonic() - guest.started
        with capsys.disabled():
            sys.stdout.write(f"\n{name}, 128 MiB: agent {agent_seconds:.1f} s, SSH {ssh_seconds:.1f} s\n")
        deadline = time.monotonic() + BOOT_SECONDS
        while guest.run("systemctl is-system-running || true").strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline
            time.sleep(1)
        assert guest.run("systemctl list-units --failed --no-legend") == ""
        # The agent writes each command it runs to the journal: the pattern must not match itself there.
        assert guest.run("journalctl -b | grep -c 'ordering cycl[e]' || true").strip() == "0"
        assert guest.run("systemctl is-active ssh labctl-console systemd-udevd").split() == ["active"] * 3
        assert guest.run("ls /etc/ssh/ssh_host_*_key").split() == ["/etc/ssh/ssh_host_ed25519_key"]
        assert guest.run("test -c /dev/net/tun && findmnt -no FSTYPE,OPTIONS /").startswith("ext4")
        link = json.loads(guest.run("ip -j link show dev eth0"))[0]
        assert "UP" in link["flags"]
        while "login:" not in (tmp_path / "console").read_text(errors="replace"):
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_a_service_of_a_derived_image_runs_from_the_first_boot(tmp_path: Path) -> None:
    with booted(resolve("debian-12", ["nginx-light"]), tmp_path, 256) as guest:
        deadline = time.monotonic() + BOOT_SECONDS
        while guest.run("systemctl is-active nginx || true").strip() != "active":
            assert time.monotonic() < deadline
            time.sleep(1)
        assert "nginx" in guest.run(
            'python3 -c \'import socket; s = socket.create_connection(("127.0.0.1", 80)); '
            's.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); print(s.recv(400).decode())\''
        )
