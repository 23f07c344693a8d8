"""The monitor's and the agent's client against ends that answer badly: a guest is not to be trusted."""

from __future__ import annotations

import base64
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import GuestError, ProviderError
from labctl.providers import agent as generic_agent
from labctl.providers.qemu import agent as agent_module
from labctl.providers.qemu.agent import Agent, agent
from labctl.providers.qemu.jsonline import Channel, ChannelError, ChannelTimeoutError
from labctl.providers.qemu.qmp import Monitor

pytestmark = pytest.mark.unit

Answer = Callable[[dict[str, Any]], bytes]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer, bytes], Path]]:
    """Start a server on a unix socket that answers each request with what a function says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        listener = socket.socket(socket.AF_UNIX)

        def start(answer: Answer, greeting: bytes = b"") -> Path:
            listener.bind(str(path))
            listener.listen(1)
            threading.Thread(target=run, args=(answer, greeting), daemon=True).start()
            return path

        def run(answer: Answer, greeting: bytes) -> None:
            try:
                caller, _ = listener.accept()
                with caller, caller.makefile("rb") as lines:
                    caller.sendall(greeting)
                    for line in lines:
                        caller.sendall(answer(json.loads(line.lstrip(b"\xff"))))
            except OSError:
                return  # the test has hung up

        yield start
        listener.close()


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
    waiting: list[int] = []

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] != "guest-sync-delimited":
            return said("pong")
        waiting.append(request["arguments"]["id"])
        return b"" if len(waiting) < 3 else b"".join(b"\xff" + said(number) for number in waiting)

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


def test_agent_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="does not answer"):
        Agent(tmp_path / "none")
