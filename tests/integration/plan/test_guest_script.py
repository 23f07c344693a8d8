"""The configuration of a guest carried out for real, on copies of this host's own files in a mount namespace."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.plan.guest import Personality, personality
from labctl.plan.guest_network import network_script
from labctl.plan.model import LabPlan, MachinePlan
from labctl.spec.load import load
from labctl.spec.model import UserSpec

pytestmark = pytest.mark.integration

HOSTILE = "a'b\"c $(touch /tmp/labctl-hostile) `id` ; | & \\ # %s {x}"
LAB = """
version: 1
name: accounts
defaults: {image: debian-12}
networks: {a: {subnet: 10.1.0.0/24}}
machines:
  desk: {networks: [a]}
"""

# Everything that the script writes goes to memory: layers over this host's files, seen by this process tree only.
_APART = """
set -e
mount -t tmpfs none "$1"
for folder in etc root home; do
  mkdir -p "$1/$folder/upper" "$1/$folder/work"
  mount -t overlay none -o "lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work" "/$folder"
done
mount -t sysfs none /sys
mount -t tmpfs none /run
ip -batch - <<END
link add net7 type veth peer net8
link set net7 address $2
END
tar -xpf - -C /
/bin/sh -e /run/script
{ /bin/sh -e /run/script && echo again; } >&2
"""


@pytest.fixture(autouse=True)
def _needs() -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root to make namespaces: run it with sudo")
    for program, package in (("useradd", "passwd"), ("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            pytest.fail(f"needs {program}: apt install {package}")


@pytest.fixture
def plan(tmp_path: Path) -> LabPlan:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB)
    return build(load(file))


def pack(wanted: Personality) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content, mode in (
            *((f.path, f.content, f.mode) for f in wanted.files),
            ("/run/script", wanted.script.encode(), "0700"),
        ):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), int(mode, 8)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def applied(plan: LabPlan, machine: MachinePlan, folder: Path, look: str) -> str:
    """Apply a configuration twice, then say what ``look`` prints."""
    wanted = personality(plan, machine, authorized_keys=("ssh-ed25519 AAAA labctl",), host_key=("PRIVATE", "PUBLIC"))
    return run_apart(wanted, machine, folder, look)


def run_apart(wanted: Personality, machine: MachinePlan, folder: Path, look: str) -> str:
    """Apply a personality twice in namespaces of its own, then say what ``look`` prints there."""
    argv = ["unshare", "--mount", "--uts", "--net", "sh", "-c", _APART + look, "sh", str(folder)]
    argv.append(machine.interfaces[0].mac)
    done = subprocess.run(argv, input=pack(wanted), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_accounts_names_and_keys_are_as_planned(plan: LabPlan, tmp_path: Path) -> None:
    users = (
        UserSpec("root", keys=("ssh-ed25519 BBBB teacher",)),
        UserSpec("labstudent", HOSTILE, ("labgroup", "tty"), ("ssh-ed25519 CCCC student",), True, "/bin/sh"),
        UserSpec("labplain"),
    )
    machine = replace(plan.machine("desk"), users=users)
    look = """
    hostname; cat /etc/hosts; cat /etc/machine-id; ip -o -4 addr show dev eth0
    grep ^lab /etc/passwd; id -nG labstudent; grep ^lab /etc/shadow
    cat /root/.ssh/authorized_keys ~labstudent/.ssh/authorized_keys
    stat -c '%n %a %U:%G' ~labstudent ~labstudent/.ssh ~labstudent/.ssh/authorized_keys /etc/sudoers.d/labctl \
      /root/.ssh/authorized_keys /etc/ssh/ssh_host_ed25519_key
    cat /etc/sudoers.d/labctl; ls /etc/labctl
    readlink /etc/systemd/system/multi-user.target.wants/labctl-network.service
    """
    seen = applied(plan, machine, tmp_path, look)
    lines = seen.splitlines()
    address = machine.interfaces[0].address
    assert address is not None
    assert lines[0] == "desk"
    assert f"{address.ip} desk" in lines
    assert machine.uuid.replace("-", "") in lines
    assert f"inet {address}" in seen
    assert "/home/labstudent:/bin/sh" in seen
    assert "/home/labplain:/bin/bash" in seen
    assert "labstudent tty labgroup" in seen
    shadow = {line.split(":")[0]: line.split(":")[1] for line in lines if line.count(":") == 8}
    assert shadow["labplain"].startswith("!"), "no password, no login by password"
    assert _fits(HOSTILE, shadow["labstudent"])
    assert {"ssh-ed25519 AAAA labctl", "ssh-ed25519 BBBB teacher", "ssh-ed25519 CCCC student"} <= set(lines)
    assert "/home/labstudent/.ssh 700 labstudent:labstudent" in seen
    assert "/home/labstudent/.ssh/authorized_keys 600 labstudent:labstudent" in seen
    assert "/etc/sudoers.d/labctl 440 root:root" in seen
    assert "/root/.ssh/authorized_keys 600 root:root" in seen
    assert "/etc/ssh/ssh_host_ed25519_key 600 root:root" in seen
    assert "labstudent ALL=(ALL:ALL) NOPASSWD: ALL" in lines
    assert "passwords" not in seen, "the file with the passwords is gone"
    assert lines[-1] == "/etc/systemd/system/labctl-network.service"
    assert not Path("/tmp/labctl-hostile").exists()


def test_a_user_who_is_not_planned_any_more_is_gone_and_nobody_else(plan: LabPlan, tmp_path: Path) -> None:
    desk = plan.machine("desk")
    names = ("labalice", "labbob", "daemon", "root")
    before, after = (
        personality(plan, replace(desk, users=users), authorized_keys=(), host_key=None)
        for users in (tuple(UserSpec(name) for name in names), (UserSpec("labbob"),))
    )
    both = replace(after, script=f"{before.script}\ngrep ^labalice: /etc/passwd >/run/was-there\n{after.script}")
    look = "cat /run/was-there; grep -E '^(lab|daemon|root)' /etc/passwd | cut -d: -f1; ls -d /home/lab*"
    seen = run_apart(both, desk, tmp_path, look).splitlines()
    assert seen[0].startswith("labalice:")
    assert sorted(seen[1:]) == ["/home/labalice", "/home/labbob", "daemon", "labbob", "root"]


def _fits(password: str, hashed: str) -> bool:
    """Whether OpenSSL makes the same SHA-512 hash of a password with that salt."""
    salt = hashed.split("$")[2]
    argv = ["openssl", "passwd", "-6", "-salt", salt, "-stdin"]
    return (
        subprocess.run(argv, input=password.encode(), capture_output=True, check=True).stdout.decode().strip() == hashed
    )


def test_a_wrong_password_would_be_noticed() -> None:
    argv = ["openssl", "passwd", "-6", "-salt", "salt", "right"]
    hashed = subprocess.run(argv, capture_output=True, check=True).stdout.decode().strip()
    assert _fits("right", hashed)
    assert not _fits("wrong", hashed)


# Behaves as the server does: it reads its key, writes its number a while later, and does all that again when told to.
SSHD = """\
told=no
trap 'told=yes' HUP
echo up
while :; do
  sleep 0.5
  echo listens >>FOLDER/log
  echo $$ >FOLDER/sshd.pid
  until [ "$told" = yes ]; do sleep 0.05; done
  told=no
  echo told >>FOLDER/log
done
"""


@pytest.mark.parametrize("early", [True, False], ids=["starting", "listening"])
def test_sshd_is_told_once_about_a_new_host_key_and_awaited(plan: LabPlan, tmp_path: Path, early: bool) -> None:
    wanted = personality(plan, plan.machine("desk"), authorized_keys=(), host_key=("PRIVATE", "PUBLIC"))
    reload = wanted.script[wanted.script.index("sshd_runs()") :].replace("/run/", f"{tmp_path}/")
    dash = shutil.which("dash")
    assert dash is not None
    shutil.copy(dash, tmp_path / "sshd")  # the process has the server's name
    # a shell cannot catch what was ignored when it started, as under nohup
    argv = ["env", "--default-signal=HUP", tmp_path / "sshd", "-c", SSHD.replace("FOLDER", str(tmp_path))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None and daemon.stdout.readline() == "up\n"
            while not early and not (tmp_path / "sshd.pid").exists():
                time.sleep(0.05)
            for _ in range(2):
                subprocess.run(["sh", "-e", "-c", reload], check=True)
            # whoever logs in now meets the new key
            assert (tmp_path / "log").read_text().split() == ["listens", "told", "listens"]
        finally:
            daemon.kill()


def test_without_sshd_nothing_is_waited_for(plan: LabPlan, tmp_path: Path) -> None:
    wanted = personality(plan, plan.machine("desk"), authorized_keys=(), host_key=("PRIVATE", "PUBLIC"))
    reload = wanted.script[wanted.script.index("sshd_runs()") :].replace("/run/", f"{tmp_path}/")
    reload = reload.replace("/proc/", f"{tmp_path}/proc/")
    subprocess.run(["sh", "-e", "-c", reload], check=True, timeout=5)
    assert (tmp_path / "labctl-host-key").exists()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_hostile_texts_reach_programs_as_they_are(shell: str, plan: LabPlan, tmp_path: Path) -> None:
    """The script with recorders in place of the programs: each writes its arguments, ended by NUL bytes."""
    if (found := shutil.which(shell)) is None:
        pytest.fail(f"needs {shell}: apt install {shell}")
    for program in ("useradd", "usermod", "groupadd", "chpasswd", "install", "ln", "rm"):
        recorder = tmp_path / "bin" / program
        recorder.parent.mkdir(exist_ok=True)
        recorder.write_text(f'#!/bin/sh\nprintf "%s\\0" {program} "$@" >>{tmp_path}/log\n')
        recorder.chmod(0o700)
    user = UserSpec("daemon", shell=HOSTILE, keys=(HOSTILE,))  # an account that every host has
    machine = replace(plan.machine("desk"), name=HOSTILE, users=(user,))
    wanted = personality(plan, machine, authorized_keys=(HOSTILE,), host_key=(HOSTILE, HOSTILE))
    text = wanted.script.replace(". /etc/labctl/network.sh", ":").replace("/run/", f"{tmp_path}/")
    run = ["unshare", "--uts", found, "-ec", f"{text}\ncat /proc/sys/kernel/hostname"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env={"PATH": f"{tmp_path}/bin:/usr/bin"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text().split("\0")[4:9] == ["usermod", "-s", HOSTILE, "--", "daemon"]
    assert done.stdout == f"{HOSTILE}\n"
    assert not Path("/tmp/labctl-hostile").exists()


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("router", [True, False])
def test_the_network_script_is_valid_shell(shell: str, router: bool, plan: LabPlan) -> None:
    machine = replace(plan.machine("desk"), router=router)
    done = subprocess.run(
        [shell, "-n"], input=network_script(plan, machine), text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_unit_is_what_systemd_understands(plan: LabPlan, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("needs systemd-analyze: apt install systemd")
    wanted = personality(plan, plan.machine("desk"), authorized_keys=(), host_key=None)
    unit = tmp_path / "labctl-network.service"
    unit.write_bytes(next(f.content for f in wanted.files if f.path.endswith(unit.name)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert unit.name not in done.stderr, done.stderr
