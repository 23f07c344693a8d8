"""What is left where labctl and Vagrant are killed while VirtualBox copies a machine: the next command removes it.

Such a copy has a name that Vagrant made up, and Vagrant does not know of it yet. Others' copies look the same and stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
import pytest
from _pytest.mark import ParameterSet

from labctl.host.processes import marked
from tests.virtualbox.driven import Driven, driven, masters, traces, vms, wait_for
from tests.virtualbox.harness import VirtualBoxHost

# The first test may have to build the tree.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.engines,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("here"),
]

ONE = "networks: {lan: {subnet: 10.97.0.0/24}}\nmachines: {one: {networks: [lan]}}\n"
STRANGER = "temp_clone_1700000000000_12345"
MADE_UP = re.compile(r"\w+_\d{13}_\d{1,5}")
Kind = Literal["import", "clone"]


def slow(kind: Kind, manager: bool) -> ParameterSet:
    """A case that shows what another one shows: only where all about the engines is run."""
    return pytest.param(kind, manager, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def stranger(place: VirtualBoxHost) -> str:
    """A machine of somebody else's that is called as Vagrant calls a copy."""
    place.run("VBoxManage", "createvm", "--name", STRANGER, "--ostype", "Debian_64", "--register")
    return STRANGER


@pytest.fixture
def lab(place: VirtualBoxHost, stranger: str) -> Iterator[Driven]:
    yield (made := driven(place, "half", ONE))
    made.labctl("destroy", "--yes", code=None)
    assert traces(place, "half") == []
    assert stranger in vms(place)


def note(lab: Driven) -> Path | None:
    return next((lab.host.home / "state").rglob("labctl-copies"), None)


def begun(lab: Driven, kind: Kind) -> str:
    """The name under which a copy of this kind was begun, ``""`` where there is none."""
    path = note(lab)
    lines = path.read_text().splitlines() if path else []
    names = [json.loads(line)[0] for line in lines if line.endswith("]")]
    return next((name for name in names if name.startswith("temp_clone_") == (kind == "clone")), "")


def used_master(host: VirtualBoxHost) -> Path:
    (found,) = (host.home / ".vagrant.d/boxes").glob("*/*/virtualbox")
    return found / "master_id"


def strays(host: VirtualBoxHost) -> set[str]:
    """Made-up names of machines, disks and folders, but for the stranger's and that of the box's master."""
    said = "".join(host.run("VBoxManage", "list", what) for what in ("vms", "hdds"))
    found = set(MADE_UP.findall(said)) | {path.name for path in (host.home / "VirtualBox VMs").iterdir()}
    known = host.run("VBoxManage", "list", "vms")
    noted = used_master(host).read_text() if used_master(host).exists() else "none"
    kept = {name for name in found if f'"{name}" {{{noted}}}' in known} | {STRANGER}
    return {name for name in found - kept if MADE_UP.fullmatch(name)}


def noted_as_made(lab: Driven, kind: Kind) -> bool:
    """Whether Vagrant lived long enough to know what it has made."""
    files = [used_master(lab.host)] if kind == "import" else list((lab.host.home / "state").rglob("virtualbox/id"))
    return any(file.exists() for file in files)


def kill_in_the_middle(lab: Driven, kind: Kind, *, manager: bool) -> None:
    """Kill labctl, and Vagrant with it, between the beginning of a copy and its end. manager: VBoxManage, too."""
    with lab.start("up", "--provider", "virtualbox") as process:
        while not (name := begun(lab, kind)) or not (any(marked(name)) or noted_as_made(lab, kind)):
            assert process.poll() is None, process.communicate()
        process.kill()
    if manager:
        folder = lab.host.home / "VirtualBox VMs" / name
        wait_for(lambda: folder.exists() or not any(marked(name)))
        for found, _argv in marked(name):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(found.pid).kill()
    wait_for(lambda: not any(marked(name)))


def leave_half(lab: Driven, kind: Kind, *, manager: bool) -> None:
    """Have a lab with a copy that nobody knows of; once more where the kill came too early or too late."""
    for _again in range(10):
        if kind == "import":
            for master in set(masters(lab.host)) - {STRANGER}:
                lab.manage("unregistervm", master, "--delete")
            used_master(lab.host).unlink(missing_ok=True)
        kill_in_the_middle(lab, kind, manager=manager)
        if strays(lab.host) and not noted_as_made(lab, kind):
            return
        lab.labctl("destroy", "--yes")
    pytest.fail("Vagrant was never killed in time")


@pytest.mark.parametrize(("kind", "manager"), [slow("clone", True), slow("import", False), slow("clone", False)])
def test_up_begins_anew_and_leaves_no_half_made_copy(lab: Driven, kind: Kind, manager: bool) -> None:
    leave_half(lab, kind, manager=manager)
    assert lab.up() == {"one": "create"}
    assert lab.states() == {"one": "running"}
    assert lab.findings() == ()
    assert strays(lab.host) == set()
    assert note(lab) is None


@pytest.mark.parametrize(("kind", "manager"), [("import", True), slow("clone", True), slow("clone", False)])
def test_destroy_takes_a_half_made_copy_along(lab: Driven, kind: Kind, manager: bool) -> None:
    leave_half(lab, kind, manager=manager)
    lab.labctl("destroy", "--yes")
    assert strays(lab.host) == set()
    assert traces(lab.host, "half") == []


@pytest.mark.slow
def test_what_machines_are_cloned_from_is_no_half_made_copy(lab: Driven) -> None:
    """Killed when the box is in and no clone was begun: the next lab is cloned from it."""
    lab.up()
    (master,) = set(masters(lab.host)) - {STRANGER}
    (identity,) = (lab.host.home / "state").rglob("virtualbox/id")
    identity.with_name("labctl-copies").write_text(json.dumps([master, str(used_master(lab.host))]) + "\n")
    lab.labctl("destroy", "--yes")
    assert master in vms(lab.host)
