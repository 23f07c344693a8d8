"""The listeners that labctl opens in a guest for the time of a verification.

Like ``probe_program`` this is sent as text, with one call of ``main`` added, and imports built-in modules alone. The
two share no code: each is sent alone, and a cold guest takes long to compile what it does not use. Tasks, each of
which prints one line of JSON:

``("listen", seconds, token, [(family, protocol, address, port), …])``
    Open listeners in a process that stays behind, answers ``token`` and ends by itself. Prints
    ``{"opened": [[index, how], …]}``; ``how`` is ``open``, ``taken`` (somebody listens there already) or an error.
``("collect",)``
    Ask the listeners what reached them and end them. Prints ``{"arrived": [nonce, …]}``.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import select
import sys
import time

TYPE_CHECKING = False  # the real one is in typing, which a cold guest loads slowly
if TYPE_CHECKING:
    from typing import Any

    Sockets = dict[int, Any]  # by file descriptor

MARK = b"labctl-probe-"  # before the nonce in every payload
NONCE = 16  # hexadecimal digits
CONTROL = "\0labctl-verify"  # an abstract unix socket: it leaves no file behind


def main(task: tuple[Any, ...]) -> None:
    """Do one task and print its line."""
    role: Any = {"listen": listen, "collect": collect}[task[0]]
    sys.stdout.write(role(*task[1:]) + "\n")
    sys.stdout.flush()


def quoted(text: str) -> str:
    """A JSON string of the plain characters of a text."""
    return '"' + "".join(c if c.isalnum() or c in " .:-_%/[]()," else "?" for c in text[:120]) + '"'


def family_of(family: int) -> int:
    return socket.AF_INET6 if family == 6 else socket.AF_INET


def reason(code: int) -> str:
    return errno.errorcode.get(code, str(code))


def listen(seconds: float, token: str, wanted: list[Any]) -> str:
    """Open what is wanted and leave a process behind that serves it."""
    ask(b"stop")
    streams: Sockets = {}
    datagrams: Sockets = {}
    opened = []
    for index, (family, protocol, address, port) in enumerate(wanted):
        try:
            sock = open_listener(family, protocol, address, port)
        except OSError as error:
            how = "taken" if error.errno == errno.EADDRINUSE else reason(error.errno or 0)
        else:
            (streams if protocol == "tcp" else datagrams)[sock.fileno()] = sock
            how = "open"
        opened.append(f"[{index},{quoted(how)}]")
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(CONTROL)
    control.listen(4)
    if os.fork() == 0:
        try:
            detach()
            Service(streams, datagrams, control, token.encode()).run(time.monotonic() + seconds)
        finally:
            os._exit(0)
    return '{"opened":[' + ",".join(opened) + "]}"


def open_listener(family: int, protocol: str, address: str, port: int) -> socket.socket:
    sock = socket.socket(family_of(family), socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if protocol == "tcp":
            sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def detach() -> None:
    """Let go of the caller: whoever waits for the end of our output must not wait for the listeners."""
    os.setsid()
    os.nice(-10)  # answer others before this guest goes on with its own probes
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


class Service:
    """Answers on the listeners and notes the nonces that came."""

    def __init__(self, streams: Sockets, datagrams: Sockets, control: Any, token: bytes) -> None:
        self.streams, self.datagrams, self.control, self.token = streams, datagrams, control, token
        self.guests: dict[int, socket.socket] = {}  # connections that may still send their nonce
        self.seen: set[bytes] = set()
        self.poll = select.poll()
        for fd in [*streams, *datagrams, control.fileno()]:
            self.poll.register(fd, select.POLLIN)

    def run(self, end: float) -> None:
        while time.monotonic() < end:
            for fd, _ in self.poll.poll(500):
                try:
                    if fd == self.control.fileno():
                        if self.command():
                            return
                    elif fd in self.datagrams:
                        data, sender = self.datagrams[fd].recvfrom(512)
                        self.note(data)
                        self.datagrams[fd].sendto(self.token, sender)
                    elif fd in self.streams:
                        self.accept(fd)
                    else:
                        self.hear(fd)
                except OSError:
                    continue

    def accept(self, fd: int) -> None:
        handle, _ = self.streams[fd]._accept()
        guest = socket.socket(fileno=handle)
        guest.setblocking(False)
        if len(self.guests) > 256:  # slow or silent ones make room, oldest first
            self.drop(next(iter(self.guests)))
        self.guests[handle] = guest
        self.poll.register(handle, select.POLLIN)
        guest.send(self.token)

    def hear(self, fd: int) -> None:
        try:
            self.note(self.guests[fd].recv(512))
        finally:
            self.drop(fd)

    def drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        self.guests.pop(fd).close()

    def note(self, data: bytes) -> None:
        at = data.find(MARK)
        if at >= 0 and len(self.seen) < 20000:
            self.seen.add(data[at + len(MARK) : at + len(MARK) + NONCE])

    def command(self) -> bool:
        """Serve labctl's next call: say what came, and end."""
        handle, _ = self.control._accept()
        caller = socket.socket(fileno=handle)
        caller.settimeout(2)
        caller.recv(16)
        for sock in [*self.streams.values(), *self.datagrams.values(), self.control]:
            sock.close()
        caller.sendall(b" ".join(self.seen))
        caller.close()
        return True


def ask(command: bytes) -> bytes:
    """End the listeners of this guest, if there are any, and return the nonces that reached them, parted by blanks."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(3)
    heard = b""
    try:
        caller.connect(CONTROL)
        caller.sendall(command)
        while len(heard) < 1 << 20:
            more = caller.recv(65536)
            if not more:
                break
            heard += more
    except OSError:
        return heard
    finally:
        caller.close()
    return heard


def collect() -> str:
    """What reached the listeners of this guest."""
    nonces = [quoted(nonce.decode("ascii", "replace")) for nonce in ask(b"collect").split()]
    return '{"arrived":[' + ",".join(nonces) + "]}"
