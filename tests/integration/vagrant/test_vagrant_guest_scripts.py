"""The scripts for Linux guests, run by a real shell: contents, arguments, and the routes of a guest.

Routes are made in a network namespace of the test's own, on NICs whose cables end there; no packet leaves it.
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
from labctl.plan.guest import SECRETS, GuestFile
from labctl.plan.model import LabPlan
from labctl.providers.vagrant import linux, management, provision
from labctl.spec.load import load
from labctl.spec.model import FileStep, ScriptStep, ShellStep

pytestmark = pytest.mark.integration

LABS = Path(__file__).resolve().parents[2] / "golden/vagrant"

TEXTS = [
    "plain\n",
    "no end",
    "",
    'it\'s $(touch owned) `touch owned` \\ "x"\n',
    "END\nEND_\nEOF\n",
    "-n\n",
    "%s %d\n",
    "\n\n",
    "ünïcødé\r\n",
]


@pytest.fixture(scope="module")
def plan() -> LabPlan:
    return build(load(LABS / "dmz/lab.yaml"), provider="virtualbox")


def run(text: str, folder: Path, *before: str) -> subprocess.CompletedProcess[bytes]:
    path = folder / "script.sh"
    path.write_bytes(text.encode())
    return subprocess.run([*before, "/bin/sh", "-e", path], cwd=folder, capture_output=True, timeout=60, check=False)


def test_a_step_reads_the_secrets_that_labctl_has_told_the_machine(plan: LabPlan, tmp_path: Path) -> None:
    steps = (ShellStep('cat "$LABCTL_SECRETS"/word'), FileStep("/etc/motd", content="x\n"))
    made = provision.script(plan, replace(plan.machine("web"), secrets=("word",), steps=steps))
    assert made.names(steps=True) == ("step 1 shell", "step 2 file")
    assert "machine" in made.names(steps=False)
    (name,) = (name for name in made.files if name.endswith("shell.sh"))
    told = tmp_path / "secrets"
    step = made.files[name].replace(SECRETS, str(told))
    alone = run(step, tmp_path)
    assert (alone.returncode, alone.stdout) == (1, b"") and b"labctl up tells them" in alone.stderr
    value = b"it's $HOME `id`"
    telling = linux.tell([GuestFile(f"{SECRETS}/word", value, "0600")]).replace(SECRETS, str(told))
    for _ in range(2):  # whatever is there from a time that was interrupted
        assert run(telling, tmp_path).returncode == 0
    assert run(step, tmp_path).stdout == value
    assert [path.stat().st_mode & 0o777 for path in (told, told / "word")] == [0o700, 0o600]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("name", ["plain", "it's $(touch owned)", "a\nb", "-x"])
def test_a_file_gets_exactly_its_content(tmp_path: Path, text: str, name: str) -> None:
    target = tmp_path / "made" / name
    done = run(linux.write_file(FileStep(str(target), content=text, mode="0640", owner=str(os.getuid()))), tmp_path)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == text.encode()
    assert target.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in tmp_path.iterdir()} == {"script.sh", "made"}


def test_a_script_gets_each_argument_as_it_is(tmp_path: Path) -> None:
    arguments = ("$(touch owned)", "two words", "it's", "", "`id`", "-n", "a\nb", '"')
    upload = tmp_path / "upload"
    upload.write_text('#!/bin/sh\nprintf "%s|" "${0##*/}" "$@"\nexit 3\n')
    text = linux.run_script(1, ScriptStep("scripts/set up.sh", arguments))
    here = text.replace(linux.UPLOAD, str(upload)).replace("/var/lib/labctl", str(tmp_path / "lib"))
    done = run(here, tmp_path)
    assert done.stdout.decode() == "|".join(("set up.sh", *arguments, ""))
    assert done.returncode == 3
    assert not (tmp_path / "owned").exists()


def test_every_rendered_script_is_a_shell_script(tmp_path: Path, plan: LabPlan) -> None:
    for machine in plan.machines:
        for name, text in provision.script(plan, machine).files.items():
            path = tmp_path / "script.sh"
            path.write_text(text)
            done = subprocess.run(["/bin/sh", "-n", path], capture_output=True, timeout=60, check=False)
            assert done.returncode == 0, (name, done.stderr)


ROUTES = """
set -e
mount -t tmpfs none /run
mount -t sysfs none /sys
# what a box has when labctl comes: its own NIC with a default route and a resolver, and others without an address
ip link add eth0 address {management} type veth peer name wire0
ip link set wire0 up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2 dev eth0
{nics}
ip link set lo up
for turn in first second; do
  /bin/sh {script}
done
# the box's network service renews its lease
ip route replace default via 10.0.2.2 dev eth0
{asked}
"""


def routes(plan: LabPlan, name: str, folder: Path, *asked: str) -> list[str]:
    """What ``ip`` says to each question in a namespace in which the guest's network was set up twice."""
    assert shutil.which("ip"), "iproute2 is not installed; make setup installs it"
    machine = plan.machine(name)
    files = provision.script(plan, machine).files
    (text,) = (text for name, text in files.items() if name.endswith("-machine.sh"))
    found = re.search(r"/etc/labctl/network\.sh <<'(END_*)'\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    assert found
    (folder / "network.sh").write_text(found[2])
    nics = "\n".join(
        f"ip link add eth{n} address {interface.mac} type veth peer name wire{n}\nip link set wire{n} up"
        for n, interface in enumerate(machine.interfaces, 1)
    )
    questions = "\n".join(f"(ip {question} || :) 2>&1 | head -1" for question in asked)
    text = ROUTES.format(management=machine.management_mac, nics=nics, script=folder / "network.sh", asked=questions)
    done = run(text, folder, "unshare", "--user", "--map-root-user", "--net", "--mount")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_a_guest_without_a_router_has_no_way_out(plan: LabPlan, tmp_path: Path) -> None:
    """The attacker's network has a router, so take its default route away to see what is left."""
    attacker = replace(plan.machine("attacker"), routes=())
    alone = replace(plan, machines=tuple(attacker if m.name == "attacker" else m for m in plan.machines))
    answers = routes(
        alone,
        "attacker",
        tmp_path,
        "route get 192.0.2.1",
        "route get 192.0.2.1 oif eth0",
        "route get 10.0.2.3",
        "route get 10.0.2.2",
        "route get 203.0.113.1",
        "-6 route get 2001:db8::1",
    )
    unreachable = "RTNETLINK answers: No route to host"
    assert answers[0] == answers[2] == unreachable
    assert " via " not in answers[1], "the gateway of the box is used by whoever names its NIC"
    assert answers[3].startswith("10.0.2.2 dev eth0 "), "Vagrant must reach the guest"
    assert answers[4].startswith("203.0.113.1 dev lab0 ")
    assert answers[5].endswith(("No route to host", "Network is unreachable"))


def test_the_way_out_is_the_router_of_the_lab(plan: LabPlan, tmp_path: Path) -> None:
    answers = routes(
        plan,
        "office-1",
        tmp_path,
        "route get 198.51.100.5",
        "route get 192.0.2.1",
        "route get 192.0.2.1 oif eth0",
        "-6 route get fd00:10::1",
    )
    assert answers[0].startswith("198.51.100.5 via 10.10.10.1 dev lab0 ")
    assert answers[1].startswith("192.0.2.1 via 10.10.10.1 dev lab0 ")
    assert " via " not in answers[2]
    assert answers[3].startswith("fd00:10::1 ")


def test_a_router_keeps_forwarded_packets_off_the_management_nic(plan: LabPlan, tmp_path: Path) -> None:
    """Without nft in the namespace's file system the firewall is left out here; routes are what is asked."""
    router = plan.machine("fw")
    plain = replace(plan, machines=tuple(replace(m, router=False) if m is router else m for m in plan.machines))
    answers = routes(plain, "fw", tmp_path, "route get 192.0.2.1 from 10.10.10.230 iif lab2", "route get 192.0.2.1")
    assert answers == ["RTNETLINK answers: No route to host"] * 2


def test_the_firewall_of_a_router_knows_the_box_s_name_of_the_nic(plan: LabPlan, tmp_path: Path) -> None:
    rules = tmp_path / "router.nft"
    rules.write_text('iifname "mgmt" tcp dport 22 accept\n')
    nic = tmp_path / "net/enp0s3"
    nic.mkdir(parents=True)
    router = plan.machine("fw")
    (nic / "address").write_text(router.management_mac + "\n")
    text = management.find(plan, router).replace("/sys/class/net", str(tmp_path / "net"))
    done = run(text.replace("/etc/labctl/router.nft", str(rules)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert rules.read_text() == 'iifname "enp0s3" tcp dport 22 accept\n'
