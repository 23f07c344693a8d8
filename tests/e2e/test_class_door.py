"""Students with real keys at a real SSH server: each gets to their own machine, and nobody to anything else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from labctl.providers.qemu.layout import Layout
from tests.support.command import Labctl
from tests.support.guests import until
from tests.support.sshd import ACCOUNT, Person, Said, Server, sshd
from tests.support.surroundings import HOST

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

LAB = """\
version: 1
name: pair
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks: {wire: {subnet: 10.9.0.0/28}}
secrets: {flag: {kind: flag, points: 3}}
machines:
  one:
    networks: {wire: 10.9.0.1}
    secrets: [flag]
    provision: [{shell: install -m 644 "$LABCTL_SECRETS/flag" /etc/flag}]
  two: {networks: {wire: 10.9.0.2}}
"""
CLASS = "version: 1\nname: monday\nlab: lab\nroster: students.csv\nlogin: {machines: [one]}\n"
QUIET = ("-o", "ExitOnForwardFailure=yes", "-N")


@dataclass(frozen=True)
class School:
    """A class of two at a server, where the teacher's own key opens everything."""

    labctl: Labctl
    folder: Path
    server: Server
    teacher: Person
    ada: Person
    zoe: Person

    def roster(self, *lines: str) -> None:
        (self.folder / "students.csv").write_text("\n".join(["id,name,key", *lines, "s03,,"]) + "\n")

    def port(self, instance: str, machine: str) -> int:
        found = self.labctl.json("class", "status", self.folder, "--only", instance)["instances"][0]
        return int(next(m["ssh"] for m in found["machines"] if m["name"] == machine).rpartition(":")[2])


@pytest.fixture(scope="module")
def school(labctl: Labctl) -> Iterator[School]:
    folder = labctl.home / "course"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "lab.yaml").write_text(LAB)
    (folder / "class.yaml").write_text(CLASS)
    assert labctl.host is not None
    with sshd(labctl.host, labctl.home / "server") as server:
        teacher, ada, zoe = (Person.make(server, labctl.home / name) for name in ("teacher", "ada", "zoe"))
        found = School(labctl, folder, server, teacher, ada, zoe)
        server.keys.write_text(f"{teacher.key}\n")
        found.roster(f"s01,Ada,{ada.key}", f"s02,Zoë,{zoe.key}")
        labctl.run("class", "up", folder, "--only", "s01,s02", "--no-fresh")
        assert "2 keys in" in labctl.run("class", "authorized-keys", folder, "--install", "--file", server.keys)
        for person, instance in ((ada, "s01"), (zoe, "s02")):
            person.settings(labctl.run("class", "ssh-config", folder, "--only", instance, "--jump", server.name))
            mark = ("sh", "-c", f"echo {instance} >/etc/whose")
            labctl.run("exec", "--instance", instance, folder / "lab", "one", "--", *mark)
        yield found


def test_each_gets_to_their_own_machine(school: School) -> None:
    for person, instance in ((school.ada, "s01"), (school.zoe, "s02")):
        said = person.ssh(f"{instance}-one", "hostname; cat /etc/whose; id -un")
        assert (said.code, said.out) == (0, f"one\n{instance}\nstudent\n"), said


def test_files_and_much_at_once_go_through(school: School) -> None:
    (school.ada.home / "large").write_bytes(bytes(range(256)) * (1 << 12))
    for words in (("large", "s01-one:back"), ("s01-one:back", "back")):
        assert school.ada.run("scp", "-q", "-o", "BatchMode=yes", *words).code == 0
    assert (school.ada.home / "back").read_bytes() == (school.ada.home / "large").read_bytes()


def test_a_handout_says_the_command_that_works(school: School) -> None:
    folder = school.labctl.home / "out"
    school.labctl.run("class", "handout", school.folder, "-o", folder, "--jump", school.server.name)
    page = (folder / "s01.html").read_text()
    command = page.partition("<code>ssh -o")[2].partition("</code>")[0].replace("&#34;", '"')
    said = school.ada.run("sh", "-c", f"ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o{command} hostname")
    assert said.out == "one\n", said


def test_anothers_settings_lead_to_ones_own_machine(school: School) -> None:
    """It is the key that says whose machine it is."""
    text = school.labctl.run("class", "ssh-config", school.folder, "--only", "s01", "--jump", school.server.name)
    school.zoe.settings(text.replace("monday.s01.one", "elsewhere"))
    try:
        assert school.zoe.ssh("s01-one", "cat /etc/whose").out == "s02\n"
    finally:
        school.zoe.settings(text.replace("s01", "s02"))


def test_a_flag_that_was_found_is_handed_in_at_the_door(school: School) -> None:
    flag = school.ada.ssh("s01-one", "cat /etc/flag").out
    said = school.ada.at_the_door("--", "submit", stdin=f"{flag}\n".encode())
    assert (said.code, said.out, said.error) == (0, "Right: flag, 3 points.\n", "Flag: ")
    assert school.ada.at_the_door("--", f"submit {flag}").out == "Right: flag, 3 points, as before.\n"
    said = school.zoe.at_the_door("--", f"submit {flag}")
    assert (said.code, said.out) == (1, "Wrong.\n")
    scores = school.labctl.json("class", "score", school.folder, "--only", "s01,s02")["instances"]
    assert [(one["earned"], one["borrowed"]) for one in scores] == [(3, []), (0, ["s01"])]


@pytest.mark.parametrize(
    "words",
    [
        "connect two",
        "connect ../../s02/one",
        "connect one; id",
        "connect $(id)",
        "connect one two",
        "connect",
        "--help",
    ],
)
def test_whatever_else_is_asked_for_at_the_door_is_refused(school: School, words: str) -> None:
    said = school.ada.at_the_door("--", words)
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.error


# What a key could do at the server beside leading to a machine. Each gives whether it could. What they are tried with:
# the teacher's key can do all of it.


def _ran(school: School, person: Person, *options: str, words: tuple[str, ...] = (), stdin: str = "") -> bool:
    trace = school.server.home / "trace"
    command = f"touch {trace}"
    person.at_the_door(*options, "--", *(word.replace("COMMAND", command) for word in words), stdin=stdin.encode())
    return _there(trace)


def _there(trace: Path) -> bool:
    found = trace.exists()
    trace.unlink(missing_ok=True)
    return found


def shell(school: School, person: Person) -> bool:
    return _ran(school, person, stdin=f"touch {school.server.home}/trace\n")


def terminal(school: School, person: Person) -> bool:
    return _ran(school, person, "-tt", stdin=f"touch {school.server.home}/trace\nexit\n")


def command(school: School, person: Person) -> bool:
    return _ran(school, person, words=("COMMAND",))


def command_beside_a_machine(school: School, person: Person) -> bool:
    return _ran(school, person, words=("connect one & COMMAND",))


def sftp(school: School, person: Person) -> bool:
    argv = ("sftp", "-b", "-", f"{ACCOUNT}@{HOST}")
    person.run(*argv, stdin=f"put passwd {school.server.home}/trace\n".encode())
    return _there(school.server.home / "trace")


def scp_in(school: School, person: Person) -> bool:
    person.run("scp", "-O", "-B", "passwd", f"{ACCOUNT}@{HOST}:trace")
    return _there(school.server.home / "trace")


def scp_out(school: School, person: Person) -> bool:
    person.run("scp", "-s", "-B", f"{ACCOUNT}@{HOST}:.ssh/authorized_keys", "trace")
    return _there(person.home / "trace")


def _greeted(said: Said, greeting: str = "SSH-") -> bool:
    return said.out.startswith(greeting)


def forward_to_the_servers_ssh(school: School, person: Person) -> bool:
    return _greeted(person.at_the_door("-W", f"{HOST}:22"))


def forward_to_a_neighbours_machine(school: School, person: Person) -> bool:
    neighbour = "s02" if person is school.ada else "s01"
    return _greeted(person.at_the_door("-W", f"127.0.0.1:{school.port(neighbour, 'one')}"))


def forward_to_a_machine_without_login(school: School, person: Person) -> bool:
    own = "s02" if person is school.zoe else "s01"
    return _greeted(person.at_the_door("-W", f"127.0.0.1:{school.port(own, 'two')}"))


@contextmanager
def _open(person: Person, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with person.start("ssh", "-oBatchMode=yes", *options, f"{ACCOUNT}@{HOST}", stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def _soon(process: subprocess.Popen[bytes], there: Callable[[], bool]) -> bool:
    """Whether something comes to be while a program runs, which ends where it does not."""
    deadline = time.monotonic() + 8
    while not (found := there()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def local_port(school: School, person: Person) -> bool:
    with _open(person, *QUIET, "-L", f"127.0.0.1:1111:{HOST}:22") as process:
        return _soon(process, lambda: _greeted(person.run("nc", "-N", "127.0.0.1", "1111")))


def socks(school: School, person: Person) -> bool:
    proxied = ("nc", "-N", "-X", "5", "-x", "127.0.0.1:1112", HOST, "22")
    with _open(person, *QUIET, "-D", "127.0.0.1:1112") as process:
        return _soon(process, lambda: _greeted(person.run(*proxied)))


def qemus_monitor(school: School, person: Person) -> bool:
    """A Unix socket of the account's, by which a machine is commanded."""
    monitor = Layout.of(school.labctl.state / "pair/s01/engine").machine("one").monitor
    assert monitor.is_socket()
    with _open(person, *QUIET, "-L", f"{person.home}/here:{monitor}") as process:
        return _soon(process, lambda: _greeted(person.run("nc", "-N", "-U", f"{person.home}/here"), '{"QMP"'))


def remote_port(school: School, person: Person) -> bool:
    with _open(person, *QUIET, "-R", "0.0.0.0:1113:127.0.0.1:1") as process:
        return _soon(process, lambda: ":1113 " in school.server.host.run("ss", "-ltnH"))


def remote_socket(school: School, person: Person) -> bool:
    made = school.server.home / "socket"
    with _open(person, *QUIET, "-R", f"{made}:127.0.0.1:1") as process:
        return _soon(process, lambda: _there(made))


def agent(school: School, person: Person) -> bool:
    """The server's end of a forwarded agent: a socket of the process that serves the connection."""

    def sockets() -> bool:
        return any(_serves(path) for path in Path("/tmp").glob("ssh-*/agent.*"))

    argv = ("ssh-agent", "sh", "-c", 'ssh-add -q; exec "$@"', "sh", "ssh", "-A", "-oBatchMode=yes", f"{ACCOUNT}@{HOST}")
    with person.start(*argv, "connect one || sleep 20", stdin=subprocess.PIPE) as process:
        try:
            return _soon(process, sockets)
        finally:
            process.kill()
            until(lambda: not sockets())


def _serves(path: Path) -> bool:
    try:
        return " ".join(psutil.Process(int(path.suffix[1:])).cmdline()).startswith(f"sshd: {ACCOUNT}")
    except (psutil.Error, ValueError):
        return False


def x11(school: School, person: Person) -> bool:
    said = person.at_the_door("-Y", "--", "connect no")
    return "X11 forwarding request failed" not in said.error


POWERS = [
    shell,
    terminal,
    command,
    command_beside_a_machine,
    sftp,
    scp_in,
    scp_out,
    forward_to_the_servers_ssh,
    forward_to_a_neighbours_machine,
    forward_to_a_machine_without_login,
    local_port,
    socks,
    qemus_monitor,
    remote_port,
    remote_socket,
    agent,
    x11,
]


@pytest.mark.parametrize("power", POWERS)
def test_a_students_key_opens_nothing_else_of_the_server(school: School, power: Callable[..., bool]) -> None:
    assert power(school, school.teacher), "the attempt itself does not work"
    assert not power(school, school.ada)
    assert not power(school, school.zoe)


def test_a_machine_that_does_not_run_is_said(school: School) -> None:
    school.labctl.run("class", "down", school.folder, "--only", "s02", "--machine", "one")
    try:
        said = school.zoe.ssh("s02-one", "true")
        assert said.code == 255
        assert "one does not answer" in said.error
        assert school.ada.ssh("s01-one", "cat /etc/whose").out == "s01\n"
    finally:
        school.labctl.run("class", "up", school.folder, "--only", "s01,s02")


def test_who_leaves_the_roster_gets_in_no_more_and_a_newcomer_does(school: School) -> None:
    eve = Person.make(school.server, school.labctl.home / "eve")
    assert "Permission denied" in eve.at_the_door("--", "connect one").error
    school.roster(f"s01,Ada,{eve.key}")
    school.labctl.run("class", "up", school.folder, "--only", "s01")
    assert eve.at_the_door("--", "connect one").out.startswith("SSH-2.0-")
    for gone in (school.ada, school.zoe):
        assert "Permission denied" in gone.at_the_door("--", "connect one").error
    school.labctl.run("class", "authorized-keys", school.folder, "--remove")
    assert "Permission denied" in eve.at_the_door("--", "connect one").error
    assert school.server.keys.read_text() == f"{school.teacher.key}\n"
