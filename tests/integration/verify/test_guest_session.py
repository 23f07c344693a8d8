"""Commands in guests through testinfra. The guest is this computer: its provider's own way is a shell here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from labctl.errors import GuestError, ProviderError
from labctl.host.runner import Runner
from labctl.plan.model import LabPlan
from labctl.providers.base import Capabilities, Endpoint, ExecResult, Job, Observed, Provider, UnfinishedError
from labctl.verify.guests import GuestSession
from tests.support import plans

pytestmark = pytest.mark.integration

PLAN = plans.lab([plans.network("red")], [plans.machine("a", plans.interface("a", "eth0", "red"))])


class Local(Provider):
    """Runs commands on this computer. ``way`` is its SSH endpoint or None; ``answers`` says whether the agent does."""

    name = "local"
    way: Endpoint | None = None
    answers = True
    silence: GuestError = GuestError("the agent is silent")
    asked = 0
    executed = 0

    @classmethod
    def capabilities(cls) -> Capabilities:
        raise NotImplementedError

    def up(self, job: Job) -> None:
        raise NotImplementedError

    def down(self, plan: LabPlan, machines: Sequence[str]) -> None:
        raise NotImplementedError

    def destroy(self) -> None:
        raise NotImplementedError

    def observe(self, plan: LabPlan) -> Observed:
        return Observed(())

    def endpoint(self, plan: LabPlan, machine: str) -> Endpoint:
        if self.way is None:
            raise ProviderError("sealed")
        return self.way

    def ask(
        self, plan: LabPlan, machine: str, door: str, question: bytes, *, takes: float = 0, timeout: float
    ) -> bytes | None:
        self.asked += 1
        if not self.answers:
            raise self.silence
        return None if door == "/nowhere" else b"answer"

    def execute(
        self, plan: LabPlan, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
    ) -> ExecResult:
        self.executed += 1
        if not self.answers:
            raise self.silence
        result = Runner().run(argv, stdin=stdin, timeout=timeout, check=False)
        return ExecResult(result.code if result.code is not None else 124, result.stdout, result.stderr)


def test_input_output_and_status(tmp_path: Path) -> None:
    with GuestSession(Local(tmp_path), PLAN) as session:
        result = session.run("a", ["sh", "-c", "cat; echo 'it is $bad' >&2; exit 7"], stdin=b"\x00\xff in")
    assert (result.code, result.stdout, result.stderr) == (7, b"\x00\xff in", b"it is $bad\n")


def test_arguments_reach_the_program_as_they_are(tmp_path: Path) -> None:
    hostile = ["a b", "$(id)", "'", '"', "`x`", "%s", "\n"]
    with GuestSession(Local(tmp_path), PLAN) as session:
        assert session.run("a", ["printf", "<%s>", *hostile]).stdout == "".join(f"<{w}>" for w in hostile).encode()


def test_the_host_is_a_testinfra_host(tmp_path: Path) -> None:
    with GuestSession(Local(tmp_path), PLAN) as session:
        host = session.host("a")
        assert host.file("/etc/passwd").contains("root")
        assert host.run("echo %s", "a b").stdout == "a b\n"
        assert session.host("a") is host


def test_ssh_is_the_second_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ssh shows how it is called; labs on virtual machines use the real one."""
    (tmp_path / "ssh").write_text('#!/bin/sh\nfor last; do :; done\ncat\necho "ran: $last"\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    provider = Local(tmp_path)
    provider.answers = False
    provider.way = Endpoint("127.0.0.1", 1, "root", tmp_path / "key", tmp_path / "known_hosts")
    with GuestSession(provider, PLAN) as session:
        assert session.run("a", ["echo", "a b"], stdin=b"in\n").stdout == b"in\nran: echo 'a b'\n"
    provider.way = Endpoint("127.0.0.1", 1, "vagrant", tmp_path / "key", tmp_path / "known_hosts")
    with GuestSession(provider, PLAN) as session:
        assert session.run("a", ["id"]).stdout == b"ran: sudo -n /bin/sh -c id\n"


def test_a_silent_guest_is_waited_for_once(tmp_path: Path) -> None:
    """Whom a question does not reach, a program does not reach either: the next way is SSH."""
    provider = Local(tmp_path)
    with GuestSession(provider, PLAN) as session:
        assert session.ask("a", "/door", b"question") == b"answer"
        assert session.ask("a", "/nowhere", b"question") is None
        assert session.run("a", ["echo"]).code == 0
        provider.answers = False
        assert session.ask("a", "/door", b"question") is None
        for _ in range(2):
            with pytest.raises(GuestError, match="the agent is silent; by SSH: sealed"):
                session.run("a", ["echo"])
        assert (provider.asked, provider.executed) == (3, 2), "the second command asks the agent again"
        provider.silence = UnfinishedError("no answer in time")
        with pytest.raises(UnfinishedError):
            session.ask("a", "/door", b"question")


def test_machines_on_the_same_port_do_not_share_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a management network every machine's port is 22: what one says must not count for another."""
    (tmp_path / "ssh").write_text('#!/bin/sh\necho "$*"\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    provider = Local(tmp_path)
    provider.answers = False
    provider.way = Endpoint("10.0.0.2", 22, "root", tmp_path / "key", tmp_path / "known_hosts")
    with GuestSession(provider, PLAN) as session:
        words = [session.run(name, ["true"]).stdout.decode().split() for name in ("a", "b", "a")]
    controls = [next(word for word in said if word.startswith("-oControlPath=")) for said in words]
    assert controls[0] == controls[2] != controls[1]


def test_a_guest_that_no_way_reaches(tmp_path: Path) -> None:
    provider = Local(tmp_path)
    provider.answers = False
    with GuestSession(provider, PLAN) as session, pytest.raises(GuestError, match="a does not answer") as caught:
        session.run("a", ["true"])
    assert caught.value.brief == "a does not answer: the agent is silent; by SSH: sealed"
    provider.way = Endpoint("127.0.0.1", 1, "root", tmp_path / "key", tmp_path / "known_hosts")
    with GuestSession(provider, PLAN) as session, pytest.raises(GuestError) as caught:
        session.run("a", ["true"])
    assert "refused" in caught.value.details


def test_a_program_that_does_not_end_is_not_started_once_more(tmp_path: Path) -> None:
    provider = Local(tmp_path)
    provider.answers, provider.silence = False, UnfinishedError("a: python3 did not end within 60 s in the guest")
    provider.way = Endpoint("127.0.0.1", 1, "root", tmp_path / "key", tmp_path / "known_hosts")
    with GuestSession(provider, PLAN) as session, pytest.raises(UnfinishedError, match="did not end within 60 s"):
        session.run("a", ["python3"])


def test_its_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with GuestSession(Local(tmp_path), PLAN) as session:
        folder = session._sockets
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
