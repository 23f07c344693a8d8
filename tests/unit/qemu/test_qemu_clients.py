"""The monitor's and the agent's client against ends that answer badly: a guest is not to be trusted."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import GuestError, ProviderError
from labctl.providers import agent as generic_agent
from labctl.providers.base import UnfinishedError
from labctl.providers.qemu import agent as agent_module
from labctl.providers.qemu import streams, waiting
from labctl.providers.qemu.agent import Agent, agent
from labctl.providers.qemu.jsonline import Channel, ChannelError, ChannelTimeoutError
from labctl.providers.qemu.qmp import Monitor

pytestmark = pytest.mark.unit

Answer = Callable[[dict[str, Any]], bytes]


@pytest.fixture(params=["socket", "pipes"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[[Answer, bytes], Path]]:
    """Start a server, on a unix socket or on named pipes, that answers each request with what a function says."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        path = Path(folder) / "s"

        def start(answer: Answer, greeting: bytes = b"") -> Path:
            listen = on_a_socket if request.param == "socket" else on_pipes
            threading.Thread(target=listen(path, ends), args=(answer, greeting), daemon=True).start()
            return path

        yield start


def on_a_socket(path: Path, ends: contextlib.ExitStack) -> Callable[[Answer, bytes], None]:
    listener = ends.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    listener.listen(1)

    def run(answer: Answer, greeting: bytes) -> None:
        with contextlib.suppress(OSError):  # the test has hung up
            caller, _ = listener.accept()
            with caller, caller.makefile("rb") as lines:
                caller.sendall(greeting)
                for line in lines:
                    caller.sendall(answer(json.loads(line.lstrip(b"\xff"))))

    return run


def on_pipes(path: Path, ends: contextlib.ExitStack) -> Callable[[Answer, bytes], None]:
    """As QEMU does it: each pipe is opened for both ways, so that its end is always there."""
    streams.make_pipes(path)
    into, out = (os.open(f"{path}.{end}", os.O_RDWR) for end in ("in", "out"))

    def run(answer: Answer, greeting: bytes) -> None:
        with os.fdopen(into, "rb", 0) as lines, os.fdopen(out, "wb", 0) as caller:
            caller.write(greeting)
            for line in io.BufferedReader(lines):
                if line == b"end\n":
                    return
                caller.write(answer(json.loads(line.lstrip(b"\xff"))))

    def end() -> None:
        with contextlib.suppress(OSError):
            os.write(os.open(f"{path}.in", os.O_WRONLY | os.O_NONBLOCK), b"end\n")

    ends.callback(end)
    return run


def said(value: object) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


def synchronised(then: Answer) -> Answer:
    """Answers the synchronisation as an agent does, and the rest as ``then`` says."""

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] == "guest-sync-delimited":
            return b"\xff" + said(request["arguments"]["id"])
        return then(request)

    return answer


@pytest.mark.parametrize(
    "line",
    [b"not json\n", b"[1]\n", b'"x"\n', b"[" * 100_000 + b"\n", b"9" * 10_000 + b"\n", b"\xff\xfe\n", b"\n"],
)
def test_what_is_no_object_is_an_error(serve: Callable[..., Path], line: bytes) -> None:
    channel = Channel(serve(lambda _: line), limit=1 << 20)
    channel.send({})
    with pytest.raises(ChannelError):
        channel.receive(5)
    channel.close()


def test_endless_answer_is_cut(serve: Callable[..., Path]) -> None:
    channel = Channel(serve(lambda _: b"x" * (4 << 20)), limit=1 << 20)
    channel.send({})
    with pytest.raises(ChannelError, match="longer than"):
        channel.receive(20)
    channel.close()


def test_silence_ends_in_time(serve: Callable[..., Path]) -> None:
    channel = Channel(serve(lambda _: b'{"half": '), limit=1 << 20)
    channel.send({})
    with pytest.raises(ChannelTimeoutError):
        channel.receive(0.1)
    channel.close()


def test_monitor_skips_events_and_gives_refusals_words(serve: Callable[..., Path]) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] == "bad":
            return b'{"error": {"class": "GenericError", "desc": "so not"}}\n'
        return b'{"event": "RESUME"}\n' + said(request.get("arguments"))

    session = Monitor(serve(answer, b'{"QMP": {}}\n'))
    assert session.execute("x", some_name=1) == {"some-name": 1}
    with pytest.raises(ProviderError) as caught:
        session.execute("bad")
    assert caught.value.details == "so not"
    session.close()


def test_monitor_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="does not answer"):
        Monitor(tmp_path / "none")


def test_synchronisation_skips_what_a_former_session_left(serve: Callable[..., Path]) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        number = request["arguments"]["id"]
        return b'{"return": "stale"}\n{"half": \xff' + said(number + 1) + b"\xff" + said(number)

    with agent(serve(answer), timeout=5):
        pass


def test_repeated_synchronisation_leaves_no_answer_behind(
    serve: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that boots for long finds several requests waiting and answers them all at once."""
    monkeypatch.setattr(agent_module, "_REPEAT", 0.3)
    asked: list[int] = []

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] != "guest-sync-delimited":
            return said("pong")
        asked.append(request["arguments"]["id"])
        return b"" if len(asked) < 3 else b"".join(b"\xff" + said(number) for number in asked)

    with agent(serve(answer), timeout=20) as session:
        assert session.call("guest-ping") == "pong"


def test_agent_that_never_answers_is_given_up_when_its_process_ends(serve: Callable[..., Path]) -> None:
    asked = iter([True, False])
    with (
        pytest.raises(GuestError, match="does not answer"),
        agent(serve(lambda _: b""), timeout=60, alive=lambda: next(asked)),
    ):
        pass


@pytest.mark.parametrize("answer", [{"pid": "1"}, [], None, {"exited": 1}])
def test_nonsense_from_an_agent_is_a_guest_error(serve: Callable[..., Path], answer: object) -> None:
    with agent(serve(synchronised(lambda _: said(answer))), timeout=5) as session, pytest.raises(GuestError):
        session.execute(["true"])


def test_bad_base64_from_an_agent_is_a_guest_error(serve: Callable[..., Path]) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        return (
            said({"pid": 7})
            if request["execute"] == "guest-exec"
            else said({"exited": True, "exitcode": 0, "out-data": "%%%"})
        )

    with agent(serve(synchronised(answer)), timeout=5) as session, pytest.raises(GuestError, match="no sense"):
        session.execute(["true"])


def test_execute_waits_and_decodes(serve: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generic_agent, "_POLL_FIRST", 0.001)
    requests: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> bytes:
        requests.append(request)
        if request["execute"] == "guest-exec":
            return said({"pid": 7})
        if len(requests) < 4:
            return said({"exited": False})
        return said({"exited": True, "signal": 9, "err-data": base64.b64encode(b"oh").decode()})

    with agent(serve(synchronised(answer)), timeout=5) as session:
        result = session.execute(["sh", "-c", "x"], stdin=b"in")
    assert (result.code, result.stdout, result.stderr) == (137, b"", b"oh")
    sent = requests[0]["arguments"]
    assert sent == {
        "path": "sh",
        "arg": ["-c", "x"],
        "capture-output": True,
        "input-data": base64.b64encode(b"in").decode(),
    }


def test_execute_that_takes_too_long_is_given_up(serve: Callable[..., Path]) -> None:
    answers = synchronised(lambda r: said({"pid": 7} if r["execute"] == "guest-exec" else {"exited": False}))
    with agent(serve(answers), timeout=5) as session, pytest.raises(GuestError, match="did not end within"):
        session.execute(["sleep", "9"], timeout=0.1)


def test_files_are_written_in_pieces(serve: Callable[..., Path]) -> None:
    pieces: list[bytes] = []

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] == "guest-file-write":
            pieces.append(base64.b64decode(request["arguments"]["buf-b64"]))
        return said(1)

    content = bytes(500_000)
    with agent(serve(synchronised(answer)), timeout=5) as session:
        session.write("/x", content)
    assert b"".join(pieces) == content and len(pieces) > 1


def test_a_way_to_an_agent_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GuestError, match="not there"):
        Agent(tmp_path / "none")
    monkeypatch.setattr(streams, "_CONNECT_SECONDS", 0.1)
    streams.make_pipes(tmp_path / "nobody")
    with pytest.raises(GuestError, match="not there"):
        Agent(tmp_path / "nobody")
    (tmp_path / "nobody.out").unlink()
    with pytest.raises(GuestError, match="not there"):
        Agent(tmp_path / "nobody")


class Ends:
    """The ends of a pair of pipes that QEMU holds."""

    def __init__(self, path: Path) -> None:
        streams.make_pipes(path)
        self.path = path
        self.into, self.out = (os.open(f"{path}.{end}", os.O_RDWR | os.O_NONBLOCK) for end in ("in", "out"))

    def close(self) -> None:
        os.close(self.into)
        os.close(self.out)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path / "s")
    yield made
    with contextlib.suppress(OSError):
        made.close()


def test_pipes_are_for_this_user_alone(ends: Ends) -> None:
    assert {Path(f"{ends.path}.{end}").stat().st_mode & 0o777 for end in ("in", "out")} == {0o600}


def test_one_at_a_time_speaks_on_pipes(ends: Ends) -> None:
    first = streams.opened(ends.path, 1)
    with pytest.raises(streams.StreamError, match="another labctl"):
        streams.opened(ends.path, 0.1)
    threading.Timer(0.2, first.close).start()
    streams.opened(ends.path, 30).close()


def test_who_is_interrupted_does_not_wait_for_another_one_to_end(ends: Ends) -> None:
    first, asked = streams.opened(ends.path, 1), 0

    def alive() -> bool:
        nonlocal asked
        asked += 1
        return asked < 2

    with pytest.raises(streams.StreamTimeoutError, match="another labctl"):
        streams.opened(ends.path, 300, alive)
    assert asked == 2
    first.close()


def test_what_does_not_fit_into_a_pipe_is_written_as_it_is_read(ends: Ends) -> None:
    sent = os.urandom(300_000)
    stream, read = streams.opened(ends.path, 1), bytearray()

    def reader() -> None:
        while len(read) < len(sent):
            with contextlib.suppress(BlockingIOError):
                read.extend(os.read(ends.into, 1000))

    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    stream.write(sent, 60)
    thread.join(60)
    assert bytes(read) == sent
    stream.close()


def test_a_pipe_that_nobody_reads_from_is_given_up(ends: Ends) -> None:
    stream = streams.opened(ends.path, 1)
    with pytest.raises(streams.StreamTimeoutError):
        stream.write(bytes(1 << 20), 0.1)
    with pytest.raises(streams.StreamTimeoutError):
        stream.read(0.1)
    with pytest.raises(streams.StreamError, match="open files"):
        stream.write(b"x", 1, fd=0)
    stream.close()


def test_the_end_of_qemu_is_the_end_of_its_pipes(ends: Ends) -> None:
    stream = streams.opened(ends.path, 1)
    ends.close()
    with pytest.raises(streams.StreamError, match="hung up"):
        stream.read(5)
    with pytest.raises(streams.StreamError, match="broke"):
        stream.write(b"x", 5)
    stream.close()
    streams.remove(ends.path)
    assert [path.name for path in ends.path.parent.iterdir()] == ["s.lock"]


def test_a_copy_that_is_told_more_than_a_pipe_holds_is_not_told_by_those_who_wait(serve: Callable[..., Path]) -> None:
    """Half of it would come through, and the agent cannot say how much."""
    asked: list[str] = []

    def answer(request: dict[str, Any]) -> bytes:
        asked.append(request["execute"])
        return said({})

    with agent(serve(synchronised(answer)), timeout=5) as session:
        assert waiting.tell(session, 1.5, b"seed", b"x" * waiting.MESSAGE_LIMIT, timeout=1) is None
    assert asked == []


def test_a_guest_that_never_stops_talking_is_not_listened_to(serve: Callable[..., Path]) -> None:
    much = base64.b64encode(b"x" * (16 << 10)).decode()
    answer = synchronised(lambda r: said(7 if r["execute"] == "guest-file-open" else {"buf-b64": much, "count": 1}))
    with agent(serve(answer), timeout=5) as session, pytest.raises(GuestError, match="says more"):
        waiting._heard(session, 7, timeout=60)


class Desk:
    """An agent's side of a guest in which a program waits. late: how often its answer is not there yet."""

    def __init__(self, answer: bytes | None, *, late: int = 0, end: int = -1) -> None:
        self.answer, self.late, self.end = answer, late, end
        self.files: dict[str, bytes] = {}
        self.open: dict[int, str] = {}

    def __call__(self, request: dict[str, Any]) -> bytes:
        given = request.get("arguments", {})
        if request["execute"] == "guest-file-open":
            return self._opened(given["path"], given["mode"])
        path = self.open.get(given["handle"], "")
        if request["execute"] == "guest-file-write":
            self.files[path] = self.files.get(path, b"") + base64.b64decode(given["buf-b64"])
        elif request["execute"] == "guest-file-read":
            assert self.answer is not None
            return said({"buf-b64": base64.b64encode(self.answer).decode(), "count": 1, "eof": self.end != 0})
        return said({})

    def _opened(self, path: str, mode: str) -> bytes:
        if path == "/door":
            there = self.answer is not None
        elif mode == "r":
            assert path == "/door." + self.files["/door"].decode().strip()
            self.late -= 1
            there = self.late < 0
        else:
            there = True
        if not there:
            return json.dumps({"error": {"class": "GenericError", "desc": "No such file"}}).encode() + b"\n"
        self.open[len(self.open)] = path
        return said(len(self.open) - 1)


def test_a_question_is_a_file_and_so_is_its_answer(serve: Callable[..., Path]) -> None:
    desk = Desk(b"yes\n", late=2)
    with agent(serve(synchronised(desk)), timeout=5) as session:
        assert session.ask("/door", b"is it?", timeout=30) == b"yes\n"
    assert desk.files["/door.question"] == b"is it?"
    assert desk.late == -1


def test_nobody_is_asked_where_nobody_waits(serve: Callable[..., Path]) -> None:
    desk = Desk(None)
    with agent(serve(synchronised(desk)), timeout=5) as session:
        assert session.ask("/door", b"is it?", timeout=30) is None
    assert not desk.files


def test_a_question_without_an_answer_ends_with_its_time(serve: Callable[..., Path]) -> None:
    desk = Desk(b"late", late=1000)
    with (
        agent(serve(synchronised(desk)), timeout=5) as session,
        pytest.raises(UnfinishedError, match=r"no answer within 0\.3 s"),
    ):
        session.ask("/door", b"is it?", timeout=0.3)


def test_who_is_gone_is_not_waited_for(serve: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.providers.agent._STILL_THERE_SECONDS", 0.1)
    desk = Desk(b"never", late=1000)

    def answer(request: dict[str, Any]) -> bytes:
        if desk.late == 995:
            desk.answer = None  # killed
        return desk(request)

    with agent(serve(synchronised(answer)), timeout=5) as session, pytest.raises(UnfinishedError, match="is gone"):
        session.ask("/door", b"is it?", timeout=60)


def test_an_answer_without_an_end_is_not_read(serve: Callable[..., Path]) -> None:
    desk = Desk(b"x" * (192 << 10), end=0)
    with agent(serve(synchronised(desk)), timeout=5) as session, pytest.raises(GuestError, match="longer than"):
        session.ask("/door", b"is it?", timeout=60)


def test_a_job_is_at_its_end_when_qemu_says_so_of_this_one(serve: Callable[..., Path]) -> None:
    """Also before the answer to the command that began it."""

    def event(job: str, status: str) -> bytes:
        data = {"id": job, "status": status}
        return json.dumps({"event": "JOB_STATUS_CHANGE", "data": data}).encode() + b"\n"

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] != "snapshot-save":
            return said({})
        return event("quick", "concluded") + said({}) + event("other", "concluded") + event("slow", "running")

    session = Monitor(serve(answer, b'{"QMP": {}}\n'))
    session.execute("snapshot-save")
    assert session.concluded("quick", 0)
    assert not session.concluded("slow", 0.2)
    assert session.concluded("other", 5)
    session.close()
