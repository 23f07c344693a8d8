"""labctl drives a real VirtualBox through a real Vagrant: what it says is there is what VirtualBox says is there.

Machines run and have empty disks; in place of guests, Vagrant's requests are written down. What VirtualBox holds is
read twice: by labctl, and from what VBoxManage prints for people.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from labctl.errors import ExitCode
from labctl.verify.model import Verdict
from tests.virtualbox.driven import BOX, Adapter, Driven, driven, masters, traces, vms, wait_for
from tests.virtualbox.harness import VirtualBoxHost

# The first test may have to build the tree.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.engines,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("here"),
]

SPEC = """\
networks:
  lan: {subnet: 10.99.0.0/24, subnet6: "fd00:99::/64"}
  tap:
  outside: {subnet: 203.0.113.0/24, egress: nat}
machines:
  server: {networks: {lan: 10.99.0.10}, memory: 72 MiB, cpus: 2}
  sensor: {networks: [{network: tap, promiscuous: true}, lan, outside]}
"""
MACHINES = ("server", "sensor")


@pytest.fixture(scope="module")
def lab(place: VirtualBoxHost) -> Driven:
    """A lab that labctl has brought up."""
    made = driven(place, "two", SPEC)
    assert made.up() == dict.fromkeys(MACHINES, "create")
    return made


@pytest.mark.parametrize("name", MACHINES)
def test_what_the_plan_says_is_what_virtualbox_holds(lab: Driven, name: str) -> None:
    machine = lab.plan.machine(name)
    assert lab.adapters(name) == lab.planned(name)
    assert lab.fact(name, "Memory size") == f"{machine.memory >> 20}MB"
    assert lab.fact(name, "Number of CPUs") == str(machine.cpus)
    assert f'natnet1="{lab.plan.management.subnet}"' in lab.shown(name, "--machinereadable")
    assert [(rule.protocol, rule.host_ip, rule.guest_port) for rule in lab.rules(name)] == [("tcp", "127.0.0.1", 22)]


def test_status_and_the_hosts_side_of_verify_agree(lab: Driven) -> None:
    status = lab.json("status")
    assert (status["state"], status["leftovers"], status["faults"]) == ("up", [], [])
    assert {machine["name"]: machine["state"] for machine in status["machines"]} == dict.fromkeys(MACHINES, "running")
    assert lab.findings() == ()


def test_each_machine_has_a_port_of_its_own(lab: Driven) -> None:
    ports = [rule.host_port for name in MACHINES for rule in lab.rules(name)]
    assert len(set(ports)) == len(MACHINES)


def test_a_second_up_starts_nothing_and_does_not_ask_vagrant(lab: Driven) -> None:
    since = {name: lab.started(name) for name in MACHINES}
    before = lab.log.read_text()
    found = lab.json("up")
    assert {change["action"] for change in found["changes"]} == {"keep"}
    added = lab.log.read_text().removeprefix(before)
    assert added and "vagrant" not in added
    assert {name: lab.started(name) for name in MACHINES} == since


def held(lab: Driven) -> dict[str, dict[int, Adapter]]:
    return {name: lab.adapters(name) for name in MACHINES}


def wanted(lab: Driven, *, sealed: bool = False) -> dict[str, dict[int, Adapter]]:
    """What ``held`` must give. sealed: the cable of each machine's first adapter, and no other, is out."""
    found = {name: lab.planned(name) for name in MACHINES}
    if sealed:
        for adapters in found.values():
            adapters[1] = replace(adapters[1], connected=False)
    return found


def test_seal_pulls_each_management_cable_and_unseal_puts_it_in_again(lab: Driven) -> None:
    lab.labctl("seal")
    assert held(lab) == wanted(lab, sealed=True)
    assert lab.findings() == ()
    lab.labctl("unseal")
    assert held(lab) == wanted(lab)


def test_a_running_lab_is_saved_and_comes_back_whole(lab: Driven) -> None:
    saved = json.loads(lab.snapshot("save", "live", "--json"))
    assert saved["machines"] == dict.fromkeys(MACHINES, "running")
    since = {name: lab.started(name) for name in MACHINES}
    lab.manage("controlvm", lab.full_name("server"), "nic2", "intnet", "elsewhere")
    lab.poweroff("sensor")
    lab.snapshot("restore", "live")
    assert lab.states() == dict.fromkeys(MACHINES, "running")
    assert not {name for name in MACHINES if lab.started(name) == since[name]}, "some were not put back"
    assert held(lab) == wanted(lab)
    assert lab.findings() == ()


@pytest.mark.slow
def test_a_lab_that_is_down_is_saved_and_is_down_after_a_restore(lab: Driven) -> None:
    lab.labctl("down")
    saved = json.loads(lab.snapshot("save", "off", "--json"))
    assert saved["machines"] == dict.fromkeys(MACHINES, "stopped")
    lab.up()
    lab.snapshot("restore", "off")
    assert lab.states() == dict.fromkeys(MACHINES, "stopped")
    lab.snapshot("delete", "off")
    lab.up()
    assert held(lab) == wanted(lab)
    assert lab.findings() == ()


@pytest.mark.slow
def test_a_machine_whose_plug_was_pulled_is_started_again_and_the_others_are_left_alone(lab: Driven) -> None:
    since = lab.started("server")
    lab.poweroff("sensor")
    assert lab.states() == {"server": "running", "sensor": "stopped"}
    lab.up()
    assert lab.states() == dict.fromkeys(MACHINES, "running")
    assert lab.started("server") == since
    assert lab.findings() == ()


@pytest.mark.slow
def test_a_machine_whose_process_was_killed_is_dead_and_up_mends_it(lab: Driven) -> None:
    inside = psutil.Process(lab.host.pid).children(recursive=True)
    argvs = [(process, process.as_dict(["cmdline"])["cmdline"] or []) for process in inside]
    (process,) = [p for p, argv in argvs if lab.full_name("server") in argv and "VBoxHeadless" in " ".join(argv)]
    process.kill()
    wait_for(lambda: lab.states() == {"server": "dead", "sensor": "running"})
    lab.up()
    assert lab.states() == dict.fromkeys(MACHINES, "running")
    assert lab.findings() == ()


@pytest.mark.slow
def test_a_paused_machine_goes_on(lab: Driven) -> None:
    lab.manage("controlvm", lab.full_name("server"), "pause")
    assert lab.states()["server"] == "paused"
    (finding,) = lab.findings()
    assert (finding.kind, finding.machine, finding.verdict) == ("not-running", "server", Verdict.INCONCLUSIVE)
    lab.up()
    assert lab.states()["server"] == "running"


@pytest.mark.slow
def test_down_and_up_again_keep_machines_disks_and_wires(lab: Driven) -> None:
    uuids = {name: lab.fact(name, "UUID") for name in MACHINES}
    disks = lab.manage("list", "hdds").count("Location:")
    assert "Stopped server, sensor." in lab.labctl("down")
    assert lab.states() == dict.fromkeys(MACHINES, "stopped")
    assert "Stopped" not in lab.labctl("down")
    lab.up()
    assert {name: lab.fact(name, "UUID") for name in MACHINES} == uuids
    assert lab.manage("list", "hdds").count("Location:") == disks
    assert {name: lab.adapters(name) for name in MACHINES} == {name: lab.planned(name) for name in MACHINES}
    assert lab.findings() == ()


LIVE = {  # commands to plant and to undo (M is the machine), and what must be found
    "another wire": (
        "controlvm M nic3 intnet elsewhere",
        "controlvm M nic3 intnet LAN",
        {("wrong-wire", "eth1 (MAC3) is on intnet elsewhere, planned on lan")},
    ),
    "the host's network": (
        "controlvm M nic3 nat",
        "controlvm M nic3 intnet LAN",
        {
            ("wrong-wire", "eth1 (MAC3) is on nat nat, planned on lan"),
            ("opening", "the NAT of adapter 3 tells it this computer's domain"),
        },
    ),
    "a pulled cable": (
        "controlvm M setlinkstate3 off",
        "controlvm M setlinkstate3 on",
        {("unlinked", "eth1 (MAC3, lan) has its cable pulled")},
    ),
    "promiscuous": (
        "controlvm M nicpromisc3 allow-all",
        "controlvm M nicpromisc3 deny",
        {("opening", "adapter 3 may see others' packets (allow-all), planned is deny")},
    ),
    "a folder": (
        "sharedfolder add M --name hole --hostpath /tmp --transient",
        "sharedfolder remove M --name hole --transient",
        {("opening", "the folder /tmp of this computer is shared with it as hole")},
    ),
    "the clipboard": (
        "controlvm M clipboard mode bidirectional",
        "controlvm M clipboard mode disabled",
        {("opening", "the clipboard is shared with it (bidirectional)")},
    ),
    "a port": (
        "controlvm M natpf1 hole,tcp,127.0.0.1,8080,,80",
        "controlvm M natpf1 delete hole",
        {("opening", "the forwarded port 127.0.0.1:8080 to tcp port 80 is not in the plan")},
    ),
}


@pytest.mark.parametrize("what", LIVE)
def test_what_is_changed_behind_labctls_back_is_found(lab: Driven, what: str) -> None:
    spoil, mend, expected = LIVE[what]
    plan = lab.plan
    values = {"M": lab.full_name("sensor"), "LAN": plan.network("lan").wire}
    mac = plan.machine("sensor").interfaces[1].mac
    lab.manage(*(values.get(word, word) for word in spoil.split()))
    try:
        found = {(finding.kind, finding.details.removeprefix("sensor: ")) for finding in lab.findings()}
        assert {(finding.machine, finding.verdict) for finding in lab.findings()} == {("sensor", Verdict.FAIL)}
    finally:
        lab.manage(*(values.get(word, word) for word in mend.split()))
    # A machine cloned from a master that VirtualBox has read from its file anew has that open in every adapter.
    inherited = (
        {("opening", "the NAT of adapter 3 lets it reach this computer's loopback")}
        if "nat" in spoil.split()
        else set()
    )
    assert found - inherited == {(kind, text.replace("MAC3", mac)) for kind, text in expected}
    assert lab.findings() == ()


@pytest.mark.slow
def test_what_is_planted_in_a_stopped_machine_is_found_when_it_runs(lab: Driven) -> None:
    """And is gone after down and up."""
    lab.poweroff("sensor")
    name = lab.full_name("sensor")
    for command in (
        "modifyvm M --nat-localhostreachable1 on",
        "modifyvm M --nic5 intnet --intnet5 elsewhere --mac-address5 080027aabbcc",
        "modifyvm M --nic-promisc3 allow-all",
        "modifyvm M --clipboard-mode bidirectional",
        "modifyvm M --natpf1 hole,tcp,,8080,,80",
        "sharedfolder add M --name hole --hostpath /tmp",
    ):
        lab.manage(*(name if word == "M" else word for word in command.split()))
    lab.power_on("sensor")
    found = {(finding.kind, finding.details.removeprefix("sensor: ")) for finding in lab.findings()}
    assert found == {
        ("opening", "the folder /tmp of this computer is shared with it as hole"),
        ("extra-nic", "a NIC 08:00:27:aa:bb:cc on intnet elsewhere is not in the plan"),
        ("opening", "adapter 5 (intnet elsewhere) is not in the plan"),
        ("opening", "adapter 3 may see others' packets (allow-all), planned is deny"),
        ("opening", "the NAT of adapter 1 lets it reach this computer's loopback"),
        ("opening", "the clipboard is shared with it (bidirectional)"),
        ("opening", "the forwarded port *:8080 to tcp port 80 does not stay on this computer's loopback"),
        ("opening", "the forwarded port *:8080 to tcp port 80 is not in the plan"),
    }
    lab.labctl("down", "--machine", "sensor")
    lab.up()
    assert lab.findings() == ()
    assert lab.adapters("sensor") == lab.planned("sensor")


def test_two_instances_share_no_wire_no_port_and_no_name(lab: Driven) -> None:
    other = Driven(lab.host, lab.folder, lab.name, "other")
    try:
        other.up()
        assert other.findings() == () == lab.findings()
        ours, theirs = (wires(one) for one in (lab, other))
        assert len(ours) == len(theirs) == 3
        assert not ours & theirs
        ports = [rule.host_port for one in (lab, other) for name in MACHINES for rule in one.rules(name)]
        assert len(set(ports)) == len(ports) == 4
        macs = [adapter.mac for one in (lab, other) for name in MACHINES for adapter in one.adapters(name).values()]
        assert len(set(macs)) == len(macs)

        other.manage("controlvm", other.full_name("sensor"), "nic3", "intnet", lab.plan.network("lan").wire)
        (found,) = lab.findings()
        assert (found.kind, found.verdict) == ("open-wire", Verdict.FAIL)
        assert found.details.startswith(f"lan: adapter 3 of the machine {other.full_name('sensor')} is on it")
        other.manage("controlvm", other.full_name("sensor"), "nic3", "intnet", other.plan.network("lan").wire)
    finally:
        other.labctl("destroy", "--yes")
    assert lab.findings() == ()
    assert not [name for name in vms(lab.host) if name.startswith("labctl.two.other.")]


def wires(lab: Driven) -> set[str]:
    """What VirtualBox calls the networks that machines of the lab are on, their management but not among them."""
    found = [adapter.attachment for name in MACHINES for adapter in lab.adapters(name).values()]
    return {attachment.split("'")[1] for attachment in found if "'" in attachment}


def test_destroy_leaves_nothing_but_what_other_labs_are_cloned_from(lab: Driven) -> None:
    """Running, paused and with a snapshot: nothing keeps a machine from being removed."""
    lab.manage("snapshot", lab.full_name("server"), "take", "kept")
    lab.manage("controlvm", lab.full_name("sensor"), "pause")
    lab.labctl("destroy", "--yes")
    assert traces(lab.host, "two") == []
    assert lab.host.run("VBoxManage", "list", "runningvms").count('"') == 0
    assert vms(lab.host) == masters(lab.host) and len(vms(lab.host)) == 1
    lab.labctl("destroy", "--yes", code=ExitCode.USAGE)


ONE = "networks: {lan: {subnet: 10.97.0.0/24}}\nmachines: {one: {networks: [lan]}}\n"
THREE = """\
networks: {lan: {subnet: 10.97.0.0/24}}
machines:
  one: {networks: [lan]}
  two: {networks: [lan]}
  three: {networks: [lan], depends_on: [two]}
"""


@pytest.fixture
def cut(place: VirtualBoxHost) -> Iterator[Driven]:
    """A lab of three machines for a test that interrupts it."""
    yield (made := driven(place, "cut", THREE))
    made.labctl("destroy", "--yes", code=None)
    assert traces(place, "cut") == []


def make_small(lab: Driven) -> None:
    """Leave one machine in it."""
    file = lab.folder / "lab.yaml"
    file.write_text(file.read_text().replace(THREE, ONE))


def said(lab: Driven, machine: str, words: str) -> bool:
    """Whether Vagrant has come that far with a machine."""
    logs = (lab.host.home / "state").rglob(f"vagrant-{machine}.log")
    return any(words in log.read_text() for log in logs if lab.name in str(log))


# What Vagrant says before it imports the box, clones it, gives the clone its name, and starts it.
MOMENTS = ("Preparing master VM", "Cloning VM", "Setting the name", "Booting VM")


@pytest.mark.parametrize(
    "moment", [MOMENTS[0], *(pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS[1:])]
)
def test_up_goes_on_where_a_killed_one_was(cut: Driven, moment: str) -> None:
    make_small(cut)
    if moment == MOMENTS[0]:
        for master in masters(cut.host):
            cut.manage("unregistervm", master, "--delete")
    with cut.start("up", "--provider", "virtualbox") as process:
        wait_for(lambda: said(cut, "one", moment))
        process.kill()
    assert cut.json("status")["state"] == "interrupted"
    cut.up()
    assert cut.states() == {"one": "running"}
    assert cut.findings() == ()


@pytest.mark.slow
def test_an_interrupted_up_ends_soon_and_the_next_one_goes_on(cut: Driven) -> None:
    with cut.start("up", "--provider", "virtualbox") as process:
        wait_for(lambda: said(cut, "two", "Booting VM"))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, out.decode()
    assert cut.json("status")["state"] == "interrupted"
    since = cut.started("one")
    assert cut.up() == dict.fromkeys(("one", "two", "three"), "create")
    assert cut.states() == dict.fromkeys(("one", "two", "three"), "running")
    assert cut.started("one") == since
    assert cut.findings() == ()


@pytest.mark.parametrize("machine", ["one", pytest.param("two", marks=pytest.mark.slow)])
def test_what_a_killed_up_has_made_can_be_destroyed(cut: Driven, machine: str) -> None:
    """Also a clone that has another name still: Vagrant has noted its UUID."""
    with cut.start("up", "--provider", "virtualbox") as process:
        wait_for(lambda: said(cut, machine, "Setting the name"))
        process.kill()
    cut.labctl("destroy", "--yes")
    assert traces(cut.host, "cut") == []


@pytest.mark.slow
def test_a_machine_that_fails_is_named_with_the_tools_own_words_and_the_others_go_on(cut: Driven) -> None:
    """A folder is in the way where VirtualBox would put the machine called two."""
    blocked = cut.host.home / "VirtualBox VMs" / cut.full_name("two")
    blocked.mkdir()
    (blocked / f"{blocked.name}.vbox").write_text("not mine")
    said = cut.labctl("up", "--provider", "virtualbox", code=ExitCode.ERROR)
    assert "vagrant up two failed" in said
    assert "already exists" in said
    assert re.search(r"three .*it depends on two, which failed", said)
    assert cut.states() == {"one": "running", "two": "absent", "three": "absent"}
    (blocked / f"{blocked.name}.vbox").unlink()
    since = cut.started("one")
    cut.up()
    assert cut.states() == dict.fromkeys(("one", "two", "three"), "running")
    assert cut.started("one") == since
    assert cut.findings() == ()


def test_a_box_that_is_not_there_is_named(place: VirtualBoxHost) -> None:
    lab = driven(place, "boxless", ONE)
    file = lab.folder / "lab.yaml"
    file.write_text(file.read_text().replace(BOX, "labctl-tests/nowhere"))
    said = lab.labctl("up", "--provider", "virtualbox", code=ExitCode.ERROR)
    assert "vagrant up one failed" in said and "labctl-tests/nowhere" in said
    lab.labctl("destroy", "--yes")
    assert traces(place, "boxless") == []
