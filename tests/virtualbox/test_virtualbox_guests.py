"""Guests that answer, in a real VirtualBox: from ``labctl up`` to a memory that comes back.

No hardware virtualisation and no driver: every instruction of the guests is interpreted, so this takes many minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from labctl.errors import ExitCode
from labctl.providers.vagrant.vboxmanage import VBoxManage
from labctl.verify.model import Verdict
from tests.virtualbox.driven import Driven, traces, wait_for
from tests.virtualbox.guest_box import guest_box
from tests.virtualbox.harness import VirtualBoxHost, virtualbox_host
from tests.virtualbox.tree import Tree

pytestmark = [pytest.mark.e2e, pytest.mark.virtualbox_guest, pytest.mark.timeout(3000)]

BOX = "labctl-tests/guest"
SPEC = f"""\
version: 1
name: talk
defaults: {{image: {BOX}, memory: 192 MiB}}
networks: {{lan: {{subnet: 10.96.0.0/24}}}}
machines:
  one:
    networks: {{lan: 10.96.0.10}}
    provision: [{{shell: echo provisioned >/root/note}}]
  two: {{networks: {{lan: 10.96.0.20}}}}
"""
UP_SECONDS = 2400.0
VERIFY_SECONDS = 1500.0
MACHINES = ("one", "two")


@pytest.fixture(scope="module")
def place(virtualbox_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoxHost]:
    """The place, with guests, and with the box in it."""
    box = guest_box(virtualbox_tree)
    home = tmp_path_factory.mktemp("guests")
    with virtualbox_host(virtualbox_tree, home, shared=[box.parent], guests=True) as host:
        # an address of the host that guests could try
        host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "down0")
        host.run("ip", "address", "add", "192.0.2.1/24", "dev", "up0")
        host.run("ip", "link", "set", "up0", "up")
        host.run("vagrant", "box", "add", "--name", BOX, box)
        yield host


@pytest.fixture
def _here(place: VirtualBoxHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def lab(place: VirtualBoxHost) -> Driven:
    """The lab after ``labctl up``."""
    folder = place.home / "talk"
    folder.mkdir()
    (folder / "lab.yaml").write_text(SPEC)
    made = Driven(place, folder, "talk")
    with made.start("up", "--provider", "virtualbox") as process:
        out, _ = process.communicate(timeout=UP_SECONDS)
    logs = "".join(path.read_text()[-3000:] for path in (place.home / "state").rglob("vagrant-*.log"))
    assert process.returncode == 0, out.decode() + logs
    return made


def run(lab: Driven, machine: str, *argv: str, code: int | None = 0) -> str:
    return lab.host.labctl("exec", lab.folder, machine, "--", *argv, code=code)


def test_guests_have_their_names_and_what_was_provisioned(lab: Driven) -> None:
    assert [run(lab, name, "hostname") for name in ("one", "two")] == ["one\n", "two\n"]
    assert run(lab, "one", "cat", "/root/note") == "provisioned\n"


@pytest.mark.usefixtures("_here")
def test_guests_have_their_addresses_on_the_nics_that_the_plan_says(lab: Driven) -> None:
    for name in ("one", "two"):
        (interface,) = lab.plan.machine(name).interfaces
        lines = run(lab, name, "sh", "-c", "ip -brief link; ip -brief -4 address").splitlines()
        (device,) = [line.split()[0] for line in lines if interface.mac in line]
        (addresses,) = [line.split()[2:] for line in lines if line.startswith(device) and interface.mac not in line]
        assert addresses == [str(interface.address)]


def test_guests_meet_on_their_wire_and_not_beside_it(lab: Driven) -> None:
    """With the cable of the wire out they do not meet: no other path leads from one to the other."""
    ping = ("ping", "-c", "1", "-W", "20", "10.96.0.20")
    assert " 0% packet loss" in run(lab, "one", *ping)
    lab.manage("controlvm", lab.full_name("two"), "setlinkstate2", "off")
    assert "100% packet loss" in run(lab, "one", *ping, code=1)
    lab.manage("controlvm", lab.full_name("two"), "setlinkstate2", "on")
    assert " 0% packet loss" in run(lab, "one", *ping)


def test_the_hosts_side_of_verify_finds_nothing(lab: Driven, _here: None) -> None:
    assert [finding for finding in lab.findings() if finding.verdict is not Verdict.PASS] == []


# In the guest: what is called before the two programs that verify starts there, python3 and the one that hands over a
# task and waits for the answer, and notes whether the management cable is in, before and after.
WITNESS = """\
cat >/usr/local/bin/python3 <<'END'
#!/bin/sh
for path in /sys/class/net/*; do
  read -r mac <"$path/address"
  [ "$mac" = MAC ] && nic=$path
done
cat "$nic/carrier" >>/root/carrier
"/usr/bin/${0##*/}" "$@"
code=$?
cat "$nic/carrier" >>/root/carrier
exit $code
END
chmod 755 /usr/local/bin/python3
cp /usr/local/bin/python3 /usr/local/bin/head
"""


@contextmanager
def cables(lab: Driven) -> Iterator[dict[str, list[bool]]]:
    """Whether each machine's management cable is in, as VBoxManage says it over and over: machine to its changes."""
    seen: dict[str, list[bool]] = {name: [] for name in MACHINES}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            for name, found in seen.items():
                found.append(lab.adapters(name)[1].connected)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        for name, found in seen.items():
            seen[name] = [state for state, _ in groupby(found)]


def said(process: subprocess.Popen[bytes], seconds: float) -> str:
    try:
        return process.communicate(timeout=seconds)[0].decode()
    except BaseException:
        process.kill()
        raise


@pytest.mark.usefixtures("_here")
def test_a_sealed_lab_is_proven_while_its_cables_are_out(lab: Driven) -> None:
    """``verify --plug`` starts its probes and hears of them over the cable, and pulls it in between and afterwards."""
    for name in MACHINES:
        run(lab, name, "sh", "-c", WITNESS.replace("MAC", lab.plan.machine(name).management_mac))
    lab.labctl("seal")
    assert {flow["verdict"] for flow in json.loads(lab.labctl("verify", "--json", "--quiet", code=4))["flows"]} == {
        "INCONCLUSIVE"
    }
    with cables(lab) as seen, lab.start("verify", "--plug", "--json", "--quiet") as process:
        text = said(process, VERIFY_SECONDS)
    assert process.returncode == ExitCode.OK, text
    report = json.loads(text)
    assert {flow["verdict"] for flow in report["flows"]} == {"PASS"}
    met = {(flow["source"], flow["target"]) for flow in report["flows"] if flow["expected"] == "pass"}
    assert met == {("one", "two"), ("two", "one")}
    beside = [flow for flow in report["flows"] if flow["source_device"] == "mgmt"]
    assert {flow["target"] for flow in beside} == {"one", "two", "host", "management"}
    assert {control["by"] for flow in beside for control in flow["control"]} >= {"unplugged"}
    assert {finding["verdict"] for finding in report["host_evidence"]} <= {"PASS"}

    assert [lab.adapters(name)[1].connected for name in MACHINES] == [False, False]
    lab.labctl("unseal")
    for name in MACHINES:
        carrier = run(lab, name, "cat", "/root/carrier").split()
        assert set(carrier) == {"0"}, f"{name}: a probe ran with the cable in"
        programs = len(carrier) // 2
        assert programs >= 3  # listen, probe, collect
        plugged = seen[name]
        assert (plugged[0], plugged[-1]) == (False, False)
        assert plugged.count(True) >= 2 * programs, "in to start each program, out, and in to hear of it"
        run(lab, name, "rm", "/usr/local/bin/python3", "/usr/local/bin/head")


def test_a_live_snapshot_brings_the_old_memory_back(lab: Driven) -> None:
    manage = VBoxManage(lab.host.runner(Path(lab.host.home / "commands.log")))
    uuid = lab.fact("one", "UUID")
    run(lab, "one", "sh", "-c", "echo before >/dev/shm/memory")
    kept = manage.snapshot_take(uuid, "kept", live=True)
    run(lab, "one", "sh", "-c", "echo after >/dev/shm/memory")
    manage.poweroff(uuid)
    manage.snapshot_restore(uuid, kept.uuid)
    manage.start(uuid)
    wait_for(lambda: answers(lab, "one"), 300)
    assert run(lab, "one", "cat", "/dev/shm/memory") == "before\n"
    manage.snapshot_delete(uuid, kept.uuid)


def answers(lab: Driven, machine: str) -> bool:
    return re.search(r"^alive$", run(lab, machine, "echo", "alive", code=None), re.MULTILINE) is not None


def test_destroy_leaves_nothing(lab: Driven) -> None:
    lab.labctl("destroy", "--yes")
    assert traces(lab.host, "talk") == []
