"""The process that stays in a guest for the time of a verification: it listens, and does the tasks that a pipe brings.

Tasks, each a literal on a line of its own; the answer is a line of JSON, or "!" and what went wrong:

``("probe", [id, …] or None, [spec, …])``
    ``probing.probe``, while others are answered: all probes that came at the start, or those with these ids. specs:
    what is another than it was at the start.
``("collect",)``
    What reached the listeners, as ``Service.summary`` says it. Then the process ends.
"""

from __future__ import annotations

import _socket as socket
import _thread
import os
import select
import sys
import time

from labctl.verify.inside.listening import Service
from labctl.verify.inside.words import names, quoted, transmit

TYPE_CHECKING = False  # the real one is in typing, which a cold guest loads slowly
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CONTROL = "\0labctl-verify"  # an abstract unix socket: it leaves no file behind
PATIENCE = 30  # seconds that somebody may take to read an answer, or to end its probes
NICER = 10  # others are answered before this guest goes on with its own probes; on Linux that is a thread's


def reside(task: tuple[Any, ...], later: Callable[[], Callable[..., str]]) -> None:
    """Open listeners in a process that stays behind and ends by itself, and print where it can be asked.

    The task is ``(seconds, token, [(family, protocol, address, port), …], [(device, mac), …], [(device, frame), …],
    [(device, filter), …], batch)``. The frames are sent once all is open; frames and filters are hexadecimal. The batch
    is what ``probing.probe`` is called with when the time has come; later: gives that function. Prints ``{"opened":
    [[index, how], …], "pid": pid, "pipes": [task, answer]}``, where ``how`` is what ``Service.open`` says and the pipes
    are the process's file descriptors.
    """
    seconds, token, wanted, devices, first, filters, batch = task
    dismiss()
    here = names(devices)
    service = Service(token.encode(), here)
    opened = [f"[{index},{quoted(service.open(*door))}]" for index, door in enumerate(wanted)]
    chosen = dict(filters)
    for device, name in here.items():
        service.listen_to(name, bytes.fromhex(chosen.get(device, "")))
    transmit(here, first)
    resident = Resident(service, batch)
    pid = os.fork()
    if pid == 0:
        try:
            detach()
            resident.stay(time.monotonic() + seconds, later)
        finally:
            os._exit(0)
    sys.stdout.write(f'{{"opened":[{",".join(opened)}],"pid":{pid},"pipes":[{resident.asked},{resident.heard}]}}\n')
    sys.stdout.flush()


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


class Resident:
    """Tasks come by one pipe and answers go by another; both ends of both stay open, so that callers come and go."""

    def __init__(self, service: Service, batch: tuple[Any, ...]) -> None:
        self.service, self.batch = service, batch
        self.tasks, self.asked = os.pipe()
        self.heard, self.answers = os.pipe()
        os.set_blocking(self.answers, False)
        self.control: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.bind(CONTROL)
        self.control.listen(4)
        self.text = b""
        self.probing = _thread.allocate_lock()  # held while this guest's settings are others than its own

    def stay(self, end: float, later: Callable[[], Callable[..., str]]) -> None:
        """Serve until a time, or until it is dismissed or has said all."""
        self.probe = later()
        self.service.run(end, {self.tasks: self.task, self.control.fileno(): self.dismissed})
        self.probing.acquire(True, PATIENCE)

    def task(self) -> bool:
        """Read more of a task, and do it when it is whole. Returns whether it was the last."""
        self.text += os.read(self.tasks, 1 << 16)
        if not self.text.endswith(b"\n"):
            return False
        (kind, *words), self.text = eval(self.text, {}), b""  # noqa: S307 - only root here writes it, who may run anything
        if kind == "collect":
            line = self.service.summary()
            self.service.close()
            self.say(line)
            return True
        if self.probing.acquire(False):
            _thread.start_new_thread(self.probed, tuple(words))
        else:
            self.say("!it probes already")
        return False

    def probed(self, ids: list[int] | None, others: list[Any]) -> None:
        """Probe, in a thread: at each change between two processes an emulated CPU forgets where its code is."""
        os.nice(NICER)
        try:
            quick, patient, gateway, devices, specs, frames = self.batch
            now = {spec[0]: spec for spec in [*specs, *others]}
            chosen = [now[number] for number in (now if ids is None else ids)]
            line = self.probe(quick, patient, gateway, devices, chosen, frames)
        except Exception as error:  # a caller waits for a line, whatever went wrong in this thread
            line = f"!{type(error).__name__}: {error}".replace("\n", " ")
        finally:
            self.probing.release()
        self.say(line)

    def say(self, line: str) -> None:
        """Write an answer for a caller that reads it; one that does not is given up."""
        room = select.poll()
        room.register(self.answers, select.POLLOUT)
        text = line.encode("ascii", "replace") + b"\n"
        while text and room.poll(1000 * PATIENCE):
            text = text[os.write(self.answers, text) :]

    def dismissed(self) -> bool:
        """Somebody new wants to listen: make room, and put back what a probe has changed before it is told."""
        caller, _ = self.control._accept()
        self.service.close()
        self.control.close()
        if self.probing.acquire(True, PATIENCE):
            self.probing.release()
        os.close(caller)
        return True
