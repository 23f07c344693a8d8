"""A place where VirtualBox and Vagrant really run, whatever this host has: namespaces furnished from a Debian tree.

Three kinds of programs meet in it. VirtualBox and Vagrant run inside, where the tree is the root of the file system.
labctl runs outside, from its own environment, in the network namespace of the inside, where the ports are that
VirtualBox forwards; on its PATH it finds two small programs called ``vagrant`` and ``VBoxManage``, which enter the
inside. The tests themselves stay where they are.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from labctl.host.runner import Runner
from tests.virtualbox.tree import Tree

INSIDE = Path(__file__).with_name("inside")
# Vagrant finds VirtualBox's own VBoxManage first: Debian's, in /usr/bin, warns on standard output that there is no
# driver, and Vagrant takes that for an error. labctl gets Debian's.
_PATH = "/usr/lib/virtualbox:/usr/sbin:/usr/bin:/sbin:/bin"
_SECONDS = 900.0

# Where a program starts inside: the folder it is called in, if that is seen there. It ends with the one that waits for
# it outside, so whoever kills that has killed it. Ctrl-C is for the program alone: the one that waits must go on to.
_WRAPPER = """\
#!/bin/sh
trap '' INT
exec {enter} setpriv --pdeathsig KILL /bin/sh -c 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"' sh "$PWD" \\
  /usr/bin/env --default-signal=INT {settings} {program} "$@"
"""
# Programs that talk to guests. One that waits for a guest where there is none is not waited for.
_GUEST_WRAPPER = """\
#!/bin/sh
exec nsenter --target={pid} --net -- {limit}/usr/bin/{name} "$@"
"""


@dataclass(frozen=True)
class VirtualBoxHost:
    """A running place.

    home: seen inside and outside at the same path, empty at first but for what is hidden. pid: of the first process
    inside, as this host sees it. guests: whether disks have systems on them; else Vagrant's requests to guests are
    written down and succeed.
    """

    home: Path
    pid: int
    guests: bool

    @property
    def guest_notes(self) -> Path:
        """Where Vagrant's recording communicator writes what guests would have been told, a file per machine."""
        return self.home / ".guests"

    @property
    def environment(self) -> Mapping[str, str]:
        """What to add to the environment of labctl, or of any program that calls ``vagrant`` and ``VBoxManage``."""
        added = {
            "PATH": f"{self.home / '.bin'}:{os.environ['PATH']}",
            "VAGRANT_HOME": str(self.home / ".vagrant.d"),
            "VBOX_USER_HOME": str(self.home / ".virtualbox"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "LABCTL_STATE_DIR": str(self.home / "state"),
        }
        return added if self.guests else {**added, "LABCTL_TEST_NO_GUEST": str(self.guest_notes)}

    @property
    def prefix(self) -> list[str]:
        """The start of an argv that runs the rest outside, with the network of the inside."""
        return ["nsenter", f"--target={self.pid}", "--net", "--"]

    def start(self, *argv: str | Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program with ``prefix`` and ``environment``, and do not wait for it; its pid is the process's."""
        return subprocess.Popen(
            [*self.prefix, *map(str, argv)],
            env={**os.environ, **self.environment},
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def runner(self, log: Path | None = None) -> Runner:
        """A runner of labctl's whose ``vagrant`` and ``VBoxManage`` are those inside."""
        return Runner(log, environment=self.environment)

    def run(self, *argv: str | Path, cwd: Path | None = None, code: int | None = 0) -> str:
        """Run a program with ``prefix`` and ``environment`` to its end, insist on its exit code, give what it printed.

        Standard error goes in between standard output; code None takes any status.
        """
        with self.start(*argv, cwd=cwd) as process:
            try:
                out, _ = process.communicate(timeout=_SECONDS)
            except BaseException:
                process.kill()
                raise
        said = out.decode(errors="replace")
        assert code is None or process.returncode == code, (
            f"{shlex.join(map(str, argv))}: {process.returncode}\n{said[-6000:]}\n{self._complaints()}"
        )
        return said

    def _complaints(self) -> str:
        """What went wrong with switches for internal networks, which no other log has."""
        file = Path(f"/proc/{self.pid}/root/tmp/labctl-vde.log")
        return file.read_text() if file.exists() else ""

    def labctl(self, *arguments: str | Path, cwd: Path | None = None, code: int | None = 0) -> str:
        """Run labctl from this checkout against this place."""
        return self.run(sys.executable, "-m", "labctl", *arguments, cwd=cwd, code=code)


@contextmanager
def virtualbox_host(
    tree: Tree, home: Path, *, shared: Sequence[Path] = (), guests: bool = False
) -> Iterator[VirtualBoxHost]:
    """Furnish a place and leave nothing of it: whatever runs in it ends with it, or with this process.

    home: an empty folder, or one that is to be made. shared: more folders that are seen inside at their own paths.
    """
    assert os.geteuid() == 0, "these tests make mount, pid and network namespaces: run them as root"
    for name in (".vagrant.d", ".virtualbox", ".bin", ".guests", ".root", "state"):
        (home / name).mkdir(parents=True)
    shutil.copy(INSIDE / "Vagrantfile", home / ".vagrant.d")
    headless = Path(shutil.copy(INSIDE / "VBoxHeadless", home / ".bin"))
    headless.chmod(0o755)
    argv = ["sh", INSIDE / "holder.sh", tree.root, home / ".root", headless, home, *shared]
    with _holder([str(word) for word in argv]) as pid:
        host = VirtualBoxHost(home, pid, guests)
        _write_wrappers(host)
        # Its default follows the password file and not $HOME.
        host.run("VBoxManage", "setproperty", "machinefolder", home / "VirtualBox VMs")
        # For all machines, where `modifyvm --vm-execution-engine interpreter` would change each one's settings.
        host.run("VBoxManage", "setextradata", "global", "VBoxInternal/HM/FallbackToIEM", "1")
        yield host


@contextmanager
def _holder(argv: Sequence[str]) -> Iterator[int]:
    """The first process of new namespaces, which ends when its standard input does, however this process ends."""
    unshare = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*unshare, *argv], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            ready = process.stdout.readline()
            assert ready == b"ready\n", process.stderr.read().decode(errors="replace")
            (child,) = psutil.Process(process.pid).children()
            yield child.pid
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            finally:
                process.kill()


def _write_wrappers(host: VirtualBoxHost) -> None:
    enter = f"nsenter --target={host.pid} --mount --net --pid --ipc --uts --"
    settings = shlex.join([f"HOME={host.home}", f"PATH={_PATH}", "TMPDIR=/tmp", "LC_ALL=C.UTF-8"])
    limit = "" if host.guests else "timeout 1 "
    wrappers = {
        name: _WRAPPER.format(enter=enter, settings=settings, program=f"/usr/bin/{name}")
        for name in ("vagrant", "VBoxManage")
    }
    wrappers |= {name: _GUEST_WRAPPER.format(pid=host.pid, limit=limit, name=name) for name in ("ssh", "ssh-keyscan")}
    for name, text in wrappers.items():
        wrapper = host.home / ".bin" / name
        wrapper.write_text(text)
        wrapper.chmod(0o755)
