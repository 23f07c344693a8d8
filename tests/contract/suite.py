"""What every provider promises, in one suite. The lab is brought up once per provider; the tests leave it running."""

from __future__ import annotations

import ast
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from labctl.errors import GuestError, ProviderError
from labctl.plan.diff import Action
from labctl.plan.model import LabPlan
from labctl.providers.base import Endpoint, Job, MachineStatus, Provider, SealedError, is_management
from labctl.spec.model import FileStep, ShellStep
from tests.contract.providers import SUBJECTS, all_but
from tests.contract.subject import Subject
from tests.support import plans

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

# Of the fake provider's guests there is nothing to log in to and nothing that runs steps; VirtualBox has none here.
REAL = pytest.mark.parametrize("lab", all_but("fake", "virtualbox"), indirect=True)
# Where labctl runs the steps itself, and not Vagrant, which runs all of them again after one that failed.
OWN_STEPS = pytest.mark.parametrize("lab", all_but("fake", "virtualbox", "libvirt"), indirect=True)
ANSWERS = pytest.mark.parametrize("lab", all_but("virtualbox"), indirect=True)
# Each boots machines anew and has nothing to do with wires: once per engine is enough.
ONCE_PER_ENGINE = pytest.mark.parametrize("lab", all_but("qemu-hub"), indirect=True)


@dataclass
class Lab:
    """A lab under test: a provider's folder, and the plan that it has carried out last."""

    subject: Subject
    workdir: Path
    root: Path
    plan: LabPlan

    @property
    def provider(self) -> Provider:
        """A fresh object each time: nothing may hang on the memory of the process that brought the lab up."""
        return self.subject.provider(self.workdir)

    def up(self, plan: LabPlan | None = None, /, **actions: Action) -> None:
        """Carry out a plan; machines without an action are kept."""
        self.plan = plan or self.plan
        names = [machine.name for machine in self.plan.machines]
        wanted: Mapping[str, Action] = {**dict.fromkeys(names, "keep"), **actions}
        self.provider.up(Job(self.plan, wanted, {name: self.subject.image() for name in names}, self.root))

    def states(self) -> dict[str, str]:
        return {status.name: status.state for status in self.provider.observe(self.plan).machines}

    def status(self, machine: str) -> MachineStatus:
        return next(s for s in self.provider.observe(self.plan).machines if s.name == machine)

    def generations(self) -> dict[str, object]:
        return {m.name: self.subject.generation(self.provider, self.plan, m.name) for m in self.plan.machines}

    def run(self, machine: str, *argv: str) -> str:
        result = self.provider.execute(self.plan, machine, argv)
        assert result.code == 0, result
        return result.stdout.decode().strip()


def two_machines(subject: Subject, instance: str = "default") -> LabPlan:
    """Two machines, two networks; ``b`` sits on both and starts after ``a``."""
    lan = plans.network("lan", instance=instance)
    dmz = plans.network("dmz", subnet="10.2.0.0/24", instance=instance)
    a = plans.machine("a", plans.interface("a", "eth0", "lan", "10.1.0.1/24"), instance=instance)
    b = plans.machine(
        "b",
        plans.interface("b", "eth0", "lan", "10.1.0.2/24"),
        plans.interface("b", "eth1", "dmz", "10.2.0.2/24"),
        instance=instance,
    )
    return subject.plan(plans.lab([lan, dmz], [a, b], instance=instance, settings=subject.settings))


def changed(plan: LabPlan, name: str, **changes: object) -> LabPlan:
    machines = tuple(replace(m, **changes) if m.name == name else m for m in plan.machines)  # type: ignore[arg-type]
    return replace(plan, machines=machines)


@pytest.fixture(scope="module", params=all_but())
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    subject: Subject = SUBJECTS[request.param]()
    home = tmp_path_factory.mktemp("contract")
    found = Lab(subject, home / "engine", home, two_machines(subject))
    with subject.furnished(home):
        try:
            found.up(a="create", b="create")
            yield found
        finally:
            found.provider.destroy()
            assert subject.traces(found.workdir) == []


def test_machines_run_after_up(lab: Lab) -> None:
    assert lab.states() == {"a": "running", "b": "running"}
    assert lab.provider.observe(lab.plan).leftovers == ()


def test_second_up_changes_nothing_and_is_quick(lab: Lab) -> None:
    before = lab.generations()
    with lab.subject.quickly(lab.workdir):
        lab.up()
    assert lab.generations() == before


def test_up_with_create_resumes_what_is_there(lab: Lab) -> None:
    """After an interrupted first ``up`` everything is still to be created, also what is finished."""
    before = lab.generations()
    lab.up(a="create", b="create")
    assert lab.generations() == before


def test_observed_nics_are_those_of_the_plan(lab: Lab) -> None:
    planned = {(m.name, i.mac, i.network) for m in lab.plan.machines for i in m.interfaces}
    planned |= {(m.name, m.management_mac, "management") for m in lab.plan.machines}
    nics = lab.provider.observe(lab.plan).nics
    assert {(nic.machine, nic.mac, nic.wire) for nic in nics} == planned
    assert all(nic.linked for nic in nics)


SENDS = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for _ in range(1000):
        try:
            sock.sendto(b"x" * 1000, (sys.argv[1], 9))
        except OSError:
            pass
"""


def management_cables(lab: Lab) -> dict[str, bool]:
    return {nic.machine: nic.linked for nic in lab.provider.observe(lab.plan).nics if is_management(nic)}


def test_a_sealed_machine_is_cut_off_until_it_is_unsealed(lab: Lab) -> None:
    assert management_cables(lab) == {"a": True, "b": True}
    for _ in range(2):  # saying it twice changes nothing
        lab.provider.seal(lab.plan, "b")
        assert management_cables(lab) == {"a": True, "b": False}
    if lab.subject.real:
        with pytest.raises(SealedError, match="b is sealed"):
            lab.provider.endpoint(lab.plan, "b")
        # what it sends in vain meanwhile must not keep the NIC from sending afterwards
        lab.run("b", "python3", "-c", SENDS, str(lab.plan.management.host))
    for _ in range(2):
        lab.provider.unseal(lab.plan, "b")
        assert management_cables(lab) == {"a": True, "b": True}
    if lab.subject.real:
        assert login(lab.provider.endpoint(lab.plan, "b"), "hostname").stdout == b"b\n"


def test_a_snapshot_brings_memory_and_disk_back(lab: Lab) -> None:
    engine = lab.provider.checkpoints(lab.plan)
    assert engine is not None
    keys = ("labctl-000000000001", "labctl-000000000002")
    if lab.subject.real:
        lab.run("a", "sh", "-c", "echo before >/root/disk; echo before >/run/memory")
    for key in keys:
        stood = engine.pause(["a", "b"])
        assert stood.keys() == {"a", "b"}
        assert max(stood.values()) - min(stood.values()) < lab.subject.skew
        assert lab.states() == {"a": "paused", "b": "paused"}
        for name in ("a", "b"):
            engine.save(name, key)
        assert lab.states() == {"a": "paused", "b": "paused"}
        engine.resume(["a", "b"])
        assert lab.states() == {"a": "running", "b": "running"}
    assert engine.keys("a") == engine.keys("b") == set(keys)
    engine.delete("a", keys[0])
    engine.delete("a", keys[0])
    assert engine.keys("a") == {keys[1]}
    if lab.subject.real:
        lab.run("a", "sh", "-c", "echo after >/root/disk; echo after >/run/memory")
    lab.provider.seal(lab.plan, "a")
    engine.prepare()
    engine.restore("a", keys[1])
    assert lab.states()["a"] in ("paused", "running")
    engine.resume(["a"])
    lab.provider.unseal(lab.plan, "a")
    assert lab.states() == {"a": "running", "b": "running"}
    if lab.subject.real:
        assert lab.run("a", "cat", "/root/disk", "/run/memory") == "before\nbefore"
        assert login(lab.provider.endpoint(lab.plan, "a"), "hostname").stdout == b"a\n"
    for name in ("a", "b"):
        for key in keys:
            engine.delete(name, key)
        assert engine.keys(name) == frozenset()


@ANSWERS
def test_execute_gives_output_and_takes_input(lab: Lab) -> None:
    assert lab.run("a", "hostname") == "a"
    assert lab.run("b", "hostname") == "b"
    data = bytes(range(256)) * 64
    assert lab.provider.execute(lab.plan, "a", ["cat"], stdin=data).stdout == data


@REAL
def test_a_file_that_is_there_is_written_over_where_that_takes_no_program(lab: Lab) -> None:
    lab.run("a", "sh", "-c", "echo the beginning >/run/over; echo the rest >>/run/over")
    done = lab.provider.write_over(lab.plan, "a", {"/run/over": b"another text.\n"})
    assert lab.run("a", "cat", "/run/over") == ("another text.\nthe rest" if done else "the beginning\nthe rest")
    assert done == (lab.provider.name == "qemu")
    assert not lab.provider.write_over(lab.plan, "a", {"/run/over": b"x", "/run/nothing": b"x"})
    assert lab.provider.execute(lab.plan, "a", ["ls", "/run/nothing"]).code != 0


@ANSWERS
def test_execute_of_a_missing_program_is_an_error(lab: Lab) -> None:
    with pytest.raises(GuestError, match="a: "):
        lab.provider.execute(lab.plan, "a", ["no-such-program"])


def test_unknown_machine_is_a_key_error(lab: Lab) -> None:
    with pytest.raises(KeyError):
        lab.provider.endpoint(lab.plan, "zebra")


@ANSWERS
def test_endpoint_logs_in_with_the_key_and_the_pinned_host_key(lab: Lab) -> None:
    if not lab.subject.real:
        assert lab.provider.endpoint(lab.plan, "a").host == "127.0.0.1"
        return
    for name in ("a", "b"):
        said = login(lab.provider.endpoint(lab.plan, name), "hostname")
        assert said.stdout.decode().strip() == name, said


@REAL
def test_management_path_leads_nowhere(lab: Lab) -> None:
    """Root in a guest gets nothing from the engine's gateway: not the host, its resolver, files, or another guest.

    The first line is the control: the same program does get an answer from a server that it may reach.
    """
    management = lab.plan.management
    other = lab.provider.endpoint(lab.plan, "b").port
    with socket.create_server(("", 0)) as canary:
        canary.settimeout(0.1)
        here = canary.getsockname()[1]
        targets = [("tcp", "10.1.0.2", 22)]
        targets += [("tcp", str(management.host), port) for port in (here, other, 22, 53, 139, 445)]
        targets += [("tcp", address, here) for address in own_addresses()]
        targets += [("tcp", str(management.dns), 53), ("udp", str(management.dns), 53)]
        targets += [("udp", str(management.host), 53)]
        text = repr([lab.plan.management.device, str(management.host), targets])
        result = lab.provider.execute(lab.plan, "a", ["python3", "-c", PROBE, text], timeout=60)
        assert result.code == 0, result
        answers = ast.literal_eval(result.stdout.decode())
        assert answers[0].startswith("SSH-"), answers
        assert set(answers[1:]) == {""}, dict(zip(map(str, targets), answers, strict=True))
        with pytest.raises(TimeoutError):
            canary.accept()


@REAL
def test_host_key_of_another_guest_is_refused(lab: Lab) -> None:
    a, b = (lab.provider.endpoint(lab.plan, name) for name in ("a", "b"))
    wrong = lab.workdir / "wrong"
    wrong.write_text(f"{a.known_hosts.read_text().split()[0]} {b.known_hosts.read_text().split(maxsplit=1)[1]}")
    result = login(replace(a, known_hosts=wrong), "true")
    assert result.returncode == 255
    assert b"HOST IDENTIFICATION HAS CHANGED" in result.stderr


def test_killed_machine_is_dead_and_up_mends_it(lab: Lab) -> None:
    before = lab.generations()
    if lab.subject.real:
        lab.run("a", "touch", "/root/kept")
        lab.run("a", "sync")
    lab.subject.kill(lab.provider, lab.plan, "a")
    assert lab.states() == {"a": "dead", "b": "running"}
    with pytest.raises(ProviderError, match="a does not run"):
        lab.provider.execute(lab.plan, "a", ["true"])
    lab.up()
    assert lab.states() == {"a": "running", "b": "running"}
    after = lab.generations()
    assert after["a"] != before["a"] and after["b"] == before["b"]
    if lab.subject.real:
        lab.run("a", "test", "-e", "/root/kept")


def test_configure_and_provision_change_a_running_guest(lab: Lab) -> None:
    before = lab.generations()
    steps = (
        FileStep("/root/note", content="it's $(here)\n", mode="0640"),
        ShellStep("cat /root/note /root/note >/root/twice"),
    )
    lab.up(changed(lab.plan, "a", hosts=(("10.1.0.99", ("printer",)),), steps=steps), a="provision")
    assert lab.generations() == before
    if lab.subject.real:
        assert lab.run("a", "cat", "/root/twice") == "it's $(here)\nit's $(here)"
        assert "10.1.0.99 printer" in lab.run("a", "cat", "/etc/hosts")


@REAL
def test_failing_step_names_itself_and_others_go_on(lab: Lab) -> None:
    good = lab.plan
    steps = (
        ShellStep("echo first >>/root/order"),
        ShellStep("echo so it goes >&2; exit 7"),
        ShellStep("echo third >>/root/order"),
    )
    broken = changed(changed(good, "a", steps=steps), "b", steps=(ShellStep("touch /root/b-was-here"),))
    with pytest.raises(GuestError if lab.subject.own_steps else ProviderError) as caught:
        lab.up(broken, a="provision", b="provision")
    if lab.subject.own_steps:
        assert "a: shell echo so it goes" in caught.value.brief and "status 7" in caught.value.brief
    else:
        assert "vagrant provision a failed" in caught.value.brief
    assert "so it goes" in caught.value.details
    assert lab.run("b", "ls", "/root/b-was-here") == "/root/b-was-here"
    # the step is mended: what was done before it is another list of steps now, so all of it runs
    lab.up(changed(broken, "a", steps=(steps[0], steps[2])), a="provision")
    assert lab.run("a", "cat", "/root/order").split() == ["first", "first", "third"]
    lab.plan = good


@OWN_STEPS
def test_repeated_up_goes_on_at_the_failed_step(lab: Lab) -> None:
    steps = (ShellStep("echo once >>/root/count"), ShellStep("test -e /root/allowed"))
    good = lab.plan
    with pytest.raises(GuestError):
        lab.up(changed(good, "a", steps=steps), a="provision")
    lab.run("a", "touch", "/root/allowed")
    lab.up(a="provision")
    assert lab.run("a", "cat", "/root/count") == "once"
    lab.plan = good


@ONCE_PER_ENGINE
def test_restart_changes_hardware_and_keeps_the_disk(lab: Lab) -> None:
    before = lab.generations()
    plan = changed(lab.plan, "b", memory=lab.plan.machine("b").memory + (32 << 20))
    if lab.subject.real:
        lab.run("b", "touch", "/root/kept")
    lab.up(plan, b="restart")
    after = lab.generations()
    assert after["a"] == before["a"] and after["b"] != before["b"]
    if lab.subject.real:
        lab.run("b", "ls", "/root/kept")


@ONCE_PER_ENGINE
def test_removed_machine_is_gone(lab: Lab) -> None:
    whole = lab.plan
    alone = replace(whole, machines=whole.machines[:1], waves=(("a",),))
    assert lab.provider.observe(alone).leftovers != ()
    lab.up(alone, b="remove")
    assert lab.states() == {"a": "running"}
    assert lab.provider.observe(alone).leftovers == ()
    lab.up(whole, b="create")
    assert lab.states() == {"a": "running", "b": "running"}


@ONCE_PER_ENGINE
def test_down_keeps_disks_up_starts_again_and_a_snapshot_of_a_stopped_machine_stops_it(lab: Lab) -> None:
    engine = lab.provider.checkpoints(lab.plan)
    assert engine is not None
    key = "labctl-000000000003"
    if lab.subject.real:
        lab.run("a", "touch", "/root/before-down")
    lab.provider.down(lab.plan, ["a"])
    assert lab.states() == {"a": "stopped", "b": "running"}
    engine.save("a", key)
    assert lab.states() == {"a": "stopped", "b": "running"}
    lab.provider.down(lab.plan, ["a", "b"])
    lab.provider.down(lab.plan, ["a", "b"])
    assert lab.states() == {"a": "stopped", "b": "stopped"}
    lab.up()
    assert lab.states() == {"a": "running", "b": "running"}
    if lab.subject.real:
        lab.run("a", "ls", "/root/before-down")
    engine.prepare()
    engine.restore("a", key)
    assert lab.states() == {"a": "stopped", "b": "running"}
    engine.delete("a", key)
    lab.up()
    assert lab.states() == {"a": "running", "b": "running"}


@ONCE_PER_ENGINE
def test_replace_makes_the_disk_anew(lab: Lab) -> None:
    if lab.subject.real:
        lab.run("a", "touch", "/root/old")
    before = lab.generations()
    lab.up(a="replace")
    assert lab.generations()["a"] != before["a"]
    if lab.subject.real:
        assert lab.provider.execute(lab.plan, "a", ["test", "-e", "/root/old"]).code == 1


def test_two_instances_share_nothing(lab: Lab, tmp_path: Path) -> None:
    plan = two_machines(lab.subject, instance="other")
    plan = replace(plan, machines=plan.machines[:1], waves=(("a",),))
    other = Lab(lab.subject, tmp_path / "engine", tmp_path, plan)
    before = lab.generations()
    try:
        other.up(a="create")
        assert other.states() == {"a": "running"}
        if lab.subject.real:
            ours, theirs = (one.provider.endpoint(one.plan, "a") for one in (lab, other))
            assert (ours.host, ours.port) != (theirs.host, theirs.port)
            assert login(replace(theirs, identity=ours.identity), "true").returncode == 255
            # the same network, the same subnet: nobody there
            assert lab.provider.execute(other.plan, "a", ["true"]).code == 0
            assert other.provider.execute(other.plan, "a", ["ping", "-c1", "-W2", "10.1.0.2"]).code != 0
            assert lab.provider.execute(lab.plan, "a", ["ping", "-c1", "-W5", "10.1.0.2"]).code == 0
    finally:
        other.provider.destroy()
    assert lab.subject.traces(other.workdir) == []
    assert lab.generations() == before


def test_destroy_leaves_nothing_and_may_be_repeated(lab: Lab, tmp_path: Path) -> None:
    gone = Lab(lab.subject, tmp_path / "engine", tmp_path, two_machines(lab.subject, instance="gone"))
    gone.provider.destroy()
    gone.provider.destroy()
    assert lab.subject.traces(gone.workdir) == []
    assert set(gone.states().values()) == {"absent"}


# For the guest's python3-minimal, which has no json: sends what a caller would send over the management NIC, and prints
# what came back, one answer per target.
PROBE = """
import ast, socket, subprocess, sys
device, gateway, targets = ast.literal_eval(sys.argv[1])
query = b"\\x12\\x34\\x01\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7example\\3org\\0\\0\\1\\0\\1"
answers = []
for number, (kind, address, port) in enumerate(targets):
    if number:
        subprocess.run(["ip", "route", "replace", address + "/32", "via", gateway, "dev", device, "onlink"])
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as caller:
        caller.settimeout(5 if number == 0 else 1)
        try:
            caller.connect((address, port))
            if kind == "udp":
                caller.send(query)
            answers.append(caller.recv(100).decode("latin-1"))
        except OSError:
            answers.append("")
    if number:
        subprocess.run(["ip", "route", "del", address + "/32"])
print(answers)
"""


def own_addresses() -> list[str]:
    """The host's own IPv4 addresses but for the loopback's."""
    found = (a.address for all_of in psutil.net_if_addrs().values() for a in all_of if a.family == socket.AF_INET)
    return [address for address in found if not address.startswith("127.")]


def login(endpoint: Endpoint, command: str) -> subprocess.CompletedProcess[bytes]:
    """Log in over SSH as an endpoint says, trusting nothing but its pinned host key."""
    options = {
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(endpoint.known_hosts),
        "GlobalKnownHostsFile": "none",
        "ConnectTimeout": "30",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    argv = ["ssh", "-F", "none", *words, "-i", str(endpoint.identity), "-p", str(endpoint.port)]
    return subprocess.run(
        [*argv, f"{endpoint.user}@{endpoint.host}", command], capture_output=True, timeout=60, check=False
    )
