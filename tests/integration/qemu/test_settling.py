"""What a template's guest is told before it is kept, and what its copies are spared by that: real shells, no guest."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from labctl.plan.guest import personality
from labctl.providers.qemu import guest, settling
from tests.support import plans

pytestmark = pytest.mark.integration

KEY = ("private", "ssh-ed25519 AAAA web")
# A server that notes that it was told of a key, and listens anew.
SERVER = """\
cp -s /bin/sh /run/sshd
/run/sshd -c 'trap "echo told >/run/told; echo $$ >/run/sshd.pid" HUP
echo $$ >/run/sshd.pid
while :; do sleep 0.05; done' &
until [ -s /run/sshd.pid ]; do sleep 0.05; done
"""


def inside(script: str) -> str:
    """What a shell says in namespaces of its own, where /run is empty and /sys shows its own network."""
    mounts = "set -e\nmount -t tmpfs none /run\nmount -t sysfs none /sys\n"
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += ["env", "--default-signal=HUP", "sh"]  # a shell cannot trap what was ignored when it began, as under nohup
    done = subprocess.run(argv, input=mounts + script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nics_get_the_names_that_they_have_in_every_copy() -> None:
    names = [("02:00:00:00:00:00", "mgmt"), ("02:00:00:00:00:01", "eth0"), ("02:00:00:00:00:02", "eth1")]
    made = "".join(f"ip link add eth{n} address {mac} type bridge\n" for n, (mac, _) in enumerate(names))
    said = inside(f"{made}ip link add other type bridge\n{settling._naming(names)}ip -brief link")
    found = {line.split()[2]: line.split()[0] for line in said.splitlines()}
    assert {mac: found[mac] for mac, _ in names} == dict(names)
    assert "other" in found.values()


@pytest.mark.parametrize("seen", [True, False])
def test_only_a_server_that_must_be_told_of_another_key_is_told(seen: bool) -> None:
    plan = plans.lab([], [plans.machine("web")])
    text = personality(plan, plan.machines[0], authorized_keys=(), host_key=KEY).script
    ssh = text[text.index("sshd_runs() {") :]
    mark = f": >{settling.ANY_HOST_KEY}\n" if seen else ""
    said = inside(f"{SERVER}{mark}{guest.Copy((), KEY[1]).rekeyed()}{ssh}cat /run/told /run/labctl-host-key || :")
    assert said.splitlines() == [*([] if seen else ["told"]), hashlib.sha256(KEY[1].encode()).hexdigest()]


@pytest.mark.parametrize("reads", [True, False])
def test_a_server_that_reads_its_key_for_each_connection_is_recognised(reads: bool) -> None:
    """A stand-in asks the server: one that shows the key of now, or the key that was there when it began."""
    key = "/etc/ssh/ssh_host_ed25519_key.pub" if reads else "/run/first.pub"
    scan = f'#!/bin/sh\\nread -r kind key _ <{key}\\necho "127.0.0.1 $kind $key"\\n'
    said = inside(
        f"""mkdir -p /etc/ssh && mount -t tmpfs none /etc/ssh
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
cp /etc/ssh/ssh_host_ed25519_key.pub /run/first.pub
printf '{scan}' >/run/ssh-keyscan; chmod 755 /run/ssh-keyscan; PATH=/run:$PATH
echo 1 >/run/sshd.pid
{settling._TRY_KEYS}
ls {settling.ANY_HOST_KEY} || :"""
    )
    assert said.split() == ([settling.ANY_HOST_KEY] if reads else [])
