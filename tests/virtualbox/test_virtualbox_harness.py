"""The place where VirtualBox runs for tests: closed, gone without a trace, and honest about what cannot be had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.virtualbox import tree
from tests.virtualbox.harness import VirtualBoxHost, virtualbox_host

# The first test may have to build the tree.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.engines,
    pytest.mark.timeout(1200),
]

OUTLIVED = """\
import sys, time
from pathlib import Path
from tests.virtualbox.harness import virtualbox_host
from tests.virtualbox.tree import Tree
with virtualbox_host(Tree(Path(sys.argv[1]), "", ""), Path(sys.argv[2])) as host:
    host.run("VBoxManage", "list", "vms")
    print(host.pid, flush=True)
    time.sleep(600)
"""


def inside(pid: int) -> list[psutil.Process]:
    """The first process inside and all that run with it."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def ended(processes: list[psutil.Process]) -> bool:
    _gone, alive = psutil.wait_procs(processes, timeout=10)
    return alive == []


def test_labctl_finds_vagrant_and_virtualbox(virtualbox: VirtualBoxHost) -> None:
    report = json.loads(virtualbox.labctl("doctor", "--json"))
    (provider,) = [provider for provider in report["providers"] if provider["name"] == "virtualbox"]
    said = [lack["what"] for lack in provider["lacks"]]
    assert not [what for what in said if "not installed" in what]
    assert "Vagrant 2.3.8 does not know VirtualBox 7.2" in said


def test_a_program_runs_in_the_callers_folder_with_its_status_and_streams(virtualbox: VirtualBoxHost) -> None:
    folder = virtualbox.home / "a folder"
    folder.mkdir()
    (folder / "Vagrantfile").write_text("$stderr.puts(Dir.pwd); $stdout.puts(ENV['GIVEN']); exit(7)\n")
    done = subprocess.run(
        [*virtualbox.prefix, "vagrant", "status"],
        env={**os.environ, **virtualbox.environment, "GIVEN": "it's here"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "it's here\n", f"{folder}\n")


def test_it_has_a_loopback_and_no_other_interface(virtualbox: VirtualBoxHost) -> None:
    assert [link["ifname"] for link in json.loads(virtualbox.run("ip", "-json", "link"))] == ["lo"]
    assert virtualbox.run("ip", "route") == ""


def test_whatever_runs_in_it_ends_with_it(virtualbox_tree: tree.Tree, tmp_path: Path) -> None:
    before = Path("/proc/self/mounts").read_text()
    with virtualbox_host(virtualbox_tree, tmp_path / "home") as host:
        running: list[psutil.Process] = []
        for _ in range(
            5
        ):  # VBoxSVC goes by itself some seconds after its last client, on a busy machine before we look
            host.run("VBoxManage", "list", "vms")
            running = inside(host.pid)
            if "VBoxSVC" in [process.name() for process in running]:
                break
        assert "VBoxSVC" in [process.name() for process in running]
    assert ended(running)
    assert Path("/proc/self/mounts").read_text() == before


def test_whatever_runs_in_it_ends_when_its_owner_is_killed(virtualbox_tree: tree.Tree, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", OUTLIVED, str(virtualbox_tree.folder), str(tmp_path / "home")]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as owner:
        assert owner.stdout is not None
        running = inside(int(owner.stdout.readline()))
        assert "VBoxSVC" in [process.name() for process in running]
        owner.send_signal(signal.SIGKILL)
    assert ended(running)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("E: Failed to fetch http://mirror.invalid/ Could not resolve 'mirror.invalid'", "Failed to fetch"),
        ("E: Unable to locate package virtualbox", "Unable to locate package virtualbox"),
    ],
)
def test_what_cannot_be_had_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, reason: str
) -> None:
    mmdebstrap(tmp_path, monkeypatch, f'echo "{said}" >&2; exit 1')
    with pytest.raises(tree.UnavailableError, match=reason):
        tree.tree()
    assert made(tmp_path) == []


def test_another_failure_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mmdebstrap(tmp_path, monkeypatch, "echo 'E: run_chroot failed: exited with 2' >&2; exit 1")
    with pytest.raises(Exception, match="ended with status 1"):
        tree.tree()
    assert made(tmp_path) == []


def test_a_tree_is_made_once_and_again_after_a_build_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mmdebstrap(
        tmp_path,
        monkeypatch,
        'echo run >>"$0.runs"; while [ "$1" != sid ]; do shift; done\n'
        'mkdir "$2"; printf "virtualbox 7.2.0-1\\nvagrant 2.3.7-1\\n" >"$2/versions"',
    )
    killed = tmp_path / "cache/tests/.labctl-making-999999999-1-0a0a0a0a-virtualbox/root"
    killed.mkdir(parents=True)
    found = [tree.tree() for _ in range(2)]
    assert found[0] == found[1]
    assert (found[0].virtualbox, found[0].root.is_dir()) == ("7.2.0-1", True)
    assert made(tmp_path) == [found[0].folder.name]
    assert (tmp_path / "bin/mmdebstrap.runs").read_text() == "run\n"
    (found[0].folder / "tree.json").unlink()
    assert tree.tree() == found[0]
    assert (tmp_path / "bin/mmdebstrap.runs").read_text() == "run\n" * 2


def test_another_virtualbox_than_7_2_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        'while [ "$1" != sid ]; do shift; done; mkdir "$2"; printf "virtualbox 8.0.0\\nvagrant 9\\n" >"$2/versions"'
    )
    mmdebstrap(tmp_path, monkeypatch, script)
    with pytest.raises(tree.UnavailableError, match=r"sid has VirtualBox 8\.0\.0, and these tests know 7\.2\.x"):
        tree.tree()


def mmdebstrap(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program that does as mmdebstrap does in some case, and a cache folder of its own."""
    (folder / "bin").mkdir()
    program = folder / "bin/mmdebstrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(folder / "cache"))


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache/tests").iterdir() if path.is_dir())
