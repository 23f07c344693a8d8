"""kill -9 of labctl at any moment of ``up``: nothing is started twice, ``up`` finishes, ``destroy`` leaves nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.plan.model import LabPlan
from labctl.providers.base import Job
from labctl.providers.qemu import vm
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.provider import QemuProvider
from labctl.spec.model import ShellStep
from tests.contract.providers import QemuSubject
from tests.support import plans
from tests.support.images import debian

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WORKER = """
import pickle, sys
from pathlib import Path
from labctl.providers.qemu.provider import QemuProvider
job = pickle.loads(sys.stdin.buffer.read())
QemuProvider(Path(sys.argv[1]), lambda event: print(event.status, event.step, event.subject, flush=True)).up(job)
"""

KILLED_AFTER = (0.5, 0.7, 0.9, 1.1)
KILLED_AT = ("started boot one", "done boot two", "done configure two", "started provision two")
KILLS = len(KILLED_AFTER) + len(KILLED_AT)


class Lab:
    def __init__(self, home: Path, repository: Path) -> None:
        self.workdir, self.repository = home / "engine", repository
        self.plan = a_plan()
        self.job = Job(self.plan, dict.fromkeys(("one", "two"), "create"), {n: debian() for n in ("one", "two")}, home)

    def begin(self) -> subprocess.Popen[bytes]:
        """``up`` in a process of its own."""
        argv = [sys.executable, "-c", WORKER, str(self.workdir)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=self.repository)
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(self.job))
        process.stdin.close()
        return process

    def until(self, process: subprocess.Popen[bytes], line: str) -> None:
        """Wait until the process has said a line."""
        assert process.stdout is not None
        for said in process.stdout:
            if said.decode().strip() == line:
                return
        pytest.fail(f"up ended before it said {line!r}")

    def running(self) -> Counter[str]:
        return Counter(name for name, _ in vm.processes(Layout.of(self.workdir)))

    def traces(self) -> list[str]:
        return QemuSubject("auto").traces(self.workdir)


def a_plan() -> LabPlan:
    steps = (ShellStep("echo first >>/root/steps"), ShellStep("sleep 3; echo second >>/root/steps"))
    machines = [
        plans.machine(name, plans.interface(name, "eth0", "lan", f"10.1.0.{number}/24"), steps=steps)
        for number, name in enumerate(("one", "two"), 1)
    ]
    return plans.lab([plans.network("lan")], machines)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def lab(tmp_path: Path, repository: Path) -> Iterator[Lab]:
    found = Lab(tmp_path, repository)
    yield found
    QemuProvider(found.workdir).destroy()
    assert found.traces() == []


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0, 1.5])
def test_destroy_after_a_kill_leaves_nothing(lab: Lab, seconds: float) -> None:
    process = lab.begin()
    time.sleep(seconds)
    kill(process)
    QemuProvider(lab.workdir).destroy()
    assert lab.traces() == []


def test_up_after_kills_finishes_and_starts_nothing_twice(lab: Lab) -> None:
    for moment in KILLED_AT:  # before those that a fast host would be past
        process = lab.begin()
        lab.until(process, moment)
        kill(process)
        assert all(count == 1 for count in lab.running().values())
    for seconds in KILLED_AFTER:
        process = lab.begin()
        time.sleep(seconds)
        kill(process)
        assert all(count == 1 for count in lab.running().values())
    seen = dict(vm.processes(Layout.of(lab.workdir)))
    provider = QemuProvider(lab.workdir)
    provider.up(lab.job)
    assert lab.running() == {"one": 1, "two": 1}
    assert dict(vm.processes(Layout.of(lab.workdir))) == seen
    assert {status.state for status in provider.observe(lab.plan).machines} == {"running"}
    for name in ("one", "two"):
        said = provider.execute(lab.plan, name, ["cat", "/root/steps"]).stdout.decode().split()
        # A step that was under way when labctl died runs again; one that was noted as done does not.
        assert said == sorted(said) and set(said) == {"first", "second"}
        assert len(said) <= 2 + KILLS, "a kill repeats one step at most"
    assert provider.execute(lab.plan, "one", ["ping", "-c1", "-W5", "10.1.0.2"]).code == 0


def test_wires_that_died_are_seen_and_mended(lab: Lab) -> None:
    provider = QemuProvider(lab.workdir)
    alone = plans.lab(lab.plan.networks, [replace(lab.plan.machines[0], steps=())])
    provider.up(Job(alone, {"one": "create"}, lab.job.images, lab.job.root))
    wires = provider._wires(provider._noted_kind() or "hub")
    wires.destroy()
    observed = provider.observe(alone)
    assert {status.state for status in observed.machines} == {"dead"}
    assert all("wires are gone" in status.details for status in observed.machines)
    provider.up(Job(alone, {"one": "keep"}, lab.job.images, lab.job.root))
    mended = provider.observe(alone)
    assert {status.state for status in mended.machines} == {"running"}
    assert {(nic.wire, nic.linked) for nic in mended.nics} == {("lan", True), ("management", True)}


def test_port_taken_by_another_program_is_not_used(lab: Lab) -> None:
    """Also one that is taken between the look and QEMU's own try."""
    import socket

    from labctl.host import ports

    real, held = ports.candidates, socket.create_server(("127.0.0.1", 0))
    taken = held.getsockname()[1]

    def candidates(seed: int) -> Iterator[int]:
        yield taken
        yield from real(seed)

    ports.candidates = candidates
    try:
        alone = plans.lab(lab.plan.networks, lab.plan.machines[:1])
        QemuProvider(lab.workdir).up(Job(alone, {"one": "create"}, lab.job.images, lab.job.root))
        assert QemuProvider(lab.workdir).endpoint(alone, "one").port != taken
    finally:
        ports.candidates = real
        held.close()
