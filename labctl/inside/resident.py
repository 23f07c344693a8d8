"""The process that stays in a guest for the time of a verification: it listens, and does the tasks that it is brought.

Tasks are tuples in the form of ``marshal``, as to read literals costs an emulated guest a hundred times as much; the
answer is a line of JSON, or "!" and what went wrong:

``("listen", seconds, token, [(family, protocol, address, port), …], [(device, mac), …], [(device, frame), …],
[(device, filter), …], batch)``
    Open listeners that end by themselves after that time, send the frames once all is open, and hear what comes.
    Frames and filters are hexadecimal. The batch is what ``probing.probe`` is called with when the time has come. Gives
    ``{"opened": [[index, how], …]}``, where ``how`` is what ``Service.open`` says.
``("probe", [id, …] or None, [spec, …])``
    ``probing.probe``, while others are answered: all probes that came at the start, or those with these ids. specs:
    what is another than it was at the start.
``("collect",)``
    What reached the listeners, as ``Service.summary`` says it. Then the verification is over.
"""

from __future__ import annotations

import _socket as socket
import _thread
import marshal
import os
import select
import sys
import time

from labctl.inside.listening import Service
from labctl.inside.words import names, quoted, transmit

TYPE_CHECKING = False  # the real one is in typing, which a cold guest loads slowly
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Task = tuple[str, tuple[Any, ...]]  # whom to answer, what to do

CONTROL = "\0labctl-verify"  # an abstract unix socket: it leaves no file behind
PATIENCE = 30  # seconds that somebody may take to read an answer, or to end its probes
NICER = 10  # others are answered before this guest goes on with its own probes; on Linux that is a thread's
PLACE = 97  # a file descriptor that no other process has, should one get the process ID of one that was killed


def reside(task: tuple[Any, ...], later: Callable[[], Callable[..., str]]) -> None:
    """Listen in a process that stays behind until its verification ends, and print where it can be asked.

    The task is that of ``listen``; later: gives ``probing.probe``. Prints what ``listen`` does, with ``"pid": pid,
    "pipes": [task, answer]`` in it, where the pipes are the process's file descriptors.
    """
    desk = Pipes()
    resident = Resident(desk, later)
    opened = resident.listen(*task)
    pid = os.fork()
    if pid == 0:
        try:
            detach()
            resident.stay()
        finally:
            os._exit(0)
    sys.stdout.write(f'{opened[:-1]},"pid":{pid},"pipes":[{desk.asked},{desk.heard}]}}\n')
    sys.stdout.flush()


def stand_by(door: str, later: Callable[[], Callable[..., str]]) -> None:
    """Serve one verification after the other, as ``Files`` bring their tasks, and never return."""
    with open("/proc/self/comm", "w") as comm:  # noqa: PTH123 - as in ``words.read``
        comm.write("labctl-verify")  # who ends all Python programs in a guest hardly means this one
    detach()
    resident = Resident(Files(door), later)
    while True:
        resident.serve()


def dismiss() -> None:
    """End the process of a verification that was killed."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(PATIENCE)
    try:
        caller.connect(CONTROL)
        caller.recv(1)  # it closes its listeners, ends its probes, and closes this
    except OSError:
        return
    finally:
        caller.close()


def detach() -> None:
    """Let go of the caller: whoever waits for the end of our output must not wait for the listeners."""
    os.setsid()
    os.nice(-NICER)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


class Pipes:
    """Tasks come by one pipe, each a line of hexadecimal digits, and answers go by another.

    Both ends of both stay open, so that callers come and go.
    """

    def __init__(self) -> None:
        self.tasks, self.asked = os.pipe()
        self.heard, self.answers = os.pipe()
        os.set_blocking(self.answers, False)
        self.text = b""

    def task(self) -> Task | None:
        """Read more of a task, and give it when it is whole."""
        self.text += os.read(self.tasks, 1 << 16)
        if not self.text.endswith(b"\n"):
            return None
        task, self.text = marshal.loads(bytes.fromhex(self.text.decode())), b""  # noqa: S302 - from root, as all of this
        return "", task

    def say(self, _whom: str, line: str) -> None:
        """Write an answer for a caller that reads it; one that does not is given up."""
        room = select.poll()
        room.register(self.answers, select.POLLOUT)
        text = line.encode("ascii", "replace") + b"\n"
        while text and room.poll(1000 * PATIENCE):
            text = text[os.write(self.answers, text) :]


class Files:
    """Tasks and answers are files beside a door, so that a guest's agent can hand them over without any program.

    The door is a pipe, by way of ``/proc``: it is gone with this process. Whoever has left a task in ``DOOR.question``
    writes a word of its own into it, and the answer is ``DOOR.WORD``, which is there when it is whole, until the next
    task.
    """

    def __init__(self, door: str) -> None:
        self.door = door
        self.said: list[str] = []
        tasks, _ = os.pipe()  # both ends stay open, so that callers come and go
        self.tasks = os.dup2(tasks, PLACE)
        os.close(tasks)
        os.mkdir(door.rpartition("/")[0], 0o700)  # noqa: PTH102 - pathlib is slow to load
        os.symlink(f"/proc/{os.getpid()}/fd/{PLACE}", door)  # noqa: PTH211 - as above

    def task(self) -> Task:
        """Take the task that somebody has left."""
        whom = os.read(self.tasks, 1 << 12).decode().split()[-1]  # those before it have been killed
        while self.said:
            try:
                os.unlink(self.said.pop())  # noqa: PTH108 - pathlib and contextlib are slow to load
            except OSError:
                continue  # somebody else has removed it
        with open(f"{self.door}.question", "rb") as file:  # noqa: PTH123 - as in ``words.read``
            return whom, marshal.loads(file.read())  # noqa: S302 - from root, as above

    def say(self, whom: str, line: str) -> None:
        """Leave an answer."""
        answer = f"{self.door}.{whom}"
        with open(f"{answer}.part", "w", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - as above
            file.write(line + "\n")
        os.rename(f"{answer}.part", answer)  # noqa: PTH104 - as above
        self.said.append(answer)


class Resident:
    """One verification at a time. desk: where tasks come from. later: gives ``probing.probe``."""

    def __init__(self, desk: Pipes | Files, later: Callable[[], Callable[..., str]]) -> None:
        self.desk, self.later = desk, later
        self.probing = _thread.allocate_lock()  # held while this guest's settings are others than its own
        self.next: Task | None = None  # what ended the verification before its own end

    def serve(self) -> None:
        """Wait for a verification, and see it through."""
        whom, (kind, *words) = self.next or self.desk.task() or ("", ("",))
        self.next = None
        if kind != "listen":
            self.desk.say(whom, "!nobody listens")
            return
        try:
            opened = self.listen(*words)
        except Exception as error:  # a caller waits for a line
            self.desk.say(whom, failure(error))
            return
        self.desk.say(whom, opened)
        self.stay()

    def listen(
        self,
        seconds: float,
        token: str,
        wanted: list[tuple[int, str, str, int]],
        devices: list[tuple[str, str]],
        first: list[tuple[str, str]],
        filters: list[tuple[str, str]],
        batch: tuple[Any, ...],
    ) -> str:
        """Open listeners, in the place of another verification's."""
        dismiss()
        here = names(devices)
        self.batch, self.end = batch, time.monotonic() + seconds
        self.service = Service(token.encode(), here)
        self.control: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.bind(CONTROL)
        self.control.listen(4)
        opened = [f"[{index},{quoted(self.service.open(*door))}]" for index, door in enumerate(wanted)]
        chosen = dict(filters)
        for device, name in here.items():
            self.service.listen_to(name, bytes.fromhex(chosen.get(device, "")))
        transmit(here, first)
        return f'{{"opened":[{",".join(opened)}]}}'

    def stay(self) -> None:
        """Serve until the time is over, or until this verification is dismissed or has said all."""
        self.probe = self.later()
        self.service.run(self.end, {self.desk.tasks: self.task, self.control.fileno(): self.dismissed})
        self.close()

    def task(self) -> bool:
        """Take a task, where it is whole, and do it. Returns whether it was the last."""
        task = self.desk.task()
        if task is None:
            return False
        whom, (kind, *words) = task
        if kind == "collect":
            line = self.service.summary()
            self.close()
            self.desk.say(whom, line)
        elif kind == "listen":
            self.next = task
        elif self.probing.acquire(False):
            _thread.start_new_thread(self.probed, (whom, *words))
        else:
            self.desk.say(whom, "!it probes already")
        return kind in ("collect", "listen")

    def probed(self, whom: str, ids: list[int] | None, others: list[Any]) -> None:
        """Probe, in a thread: at each change between two processes an emulated CPU forgets where its code is."""
        os.nice(NICER)
        try:
            quick, patient, gateway, devices, specs, frames = self.batch
            now = {spec[0]: spec for spec in [*specs, *others]}
            chosen = [now[number] for number in (now if ids is None else ids)]
            line = self.probe(quick, patient, gateway, devices, chosen, frames)
        except Exception as error:  # a caller waits for a line, whatever went wrong in this thread
            line = failure(error)
        finally:
            self.probing.release()
        self.desk.say(whom, line)

    def dismissed(self) -> bool:
        """Somebody new wants to listen: make room before it is told."""
        caller, _ = self.control._accept()
        self.close()
        os.close(caller)
        return True

    def close(self) -> None:
        """End all listeners, and the probes too, which put back what they have changed."""
        self.service.close()
        self.control.close()
        if self.probing.acquire(True, PATIENCE):
            self.probing.release()


def failure(error: Exception) -> str:
    return f"!{type(error).__name__}: {error}".replace("\n", " ")
