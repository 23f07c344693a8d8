"""The program for guests, run as a guest would run it, in a network namespace."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labctl import inside

PYTHON = "/usr/bin/python3"

NOBODY_WAITS = "kill -9 $(grep -lx labctl-verify /proc/[0-9]*/comm | cut -d/ -f3) 2>/dev/null || :"
"""Shell text that ends the program that waits in a copy of a template: from then on the guest's python3 starts one."""

FAST = (0.3, 0.5, None, [("lo", "00:00:00:00:00:00")])  # quick, patient, gateway, devices


class Guest:
    """A network namespace, and the process that stays in it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.pipes: list[str] = []

    @property
    def listens(self) -> bool:
        return bool(self.pipes)

    def run(self, *argv: str, stdin: str, code: int = 0) -> str:
        argv = ("ip", "netns", "exec", self.namespace, *argv)
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    def start(self, text: str) -> list[str]:
        return self.run(PYTHON, "-IS", "-", stdin=text).splitlines()

    def listen(self, seconds: float, token: str, doors: list[Any], *batch: Any) -> Any:
        """Open listeners. batch: how probes are sent, as ``probe`` takes it, else fast."""
        (line,) = self.start(inside.resident(seconds, token, doors, [], [], [], (*(batch or FAST), [], [])))
        said = json.loads(line)
        self.pipes = [f"/proc/{said['pid']}/fd/{number}" for number in said["pipes"]]
        return said["opened"]

    def ask(self, *task: Any, code: int = 0) -> str:
        return self.run(*inside.ASK, *self.pipes, stdin=f"{inside.marshalled(*task).hex()}\n", code=code)

    def ended(self) -> bool:
        """Whether the process that stayed is gone."""
        return not Path(self.pipes[0]).exists()

    def collect(self) -> Any:
        said = json.loads(self.ask("collect"))
        self.pipes = []
        return said

    def probe(self, specs: list[Any], *batch: Any) -> Any:
        """One call of ``probing.probe``: in the process that is there, else in a new one."""
        if not self.listens:
            self.listen(60, "t", [], *batch)
        return json.loads(self.ask("probe", None, specs))

    def probes(self, *specs: tuple[Any, ...], quick: float = 0.3, patient: float = 0.5) -> dict[int, list[Any]]:
        return {row[0]: row[1:] for row in self.probe(list(specs), quick, patient, *FAST[2:])["results"]}


class WaitingGuest(Guest):
    """A network namespace, and the process that waits in it for one verification after the other."""

    def __init__(self, namespace: str, folder: Path) -> None:
        super().__init__(namespace)
        self.desk = Desk(namespace, folder)
        self.served = False

    @property
    def listens(self) -> bool:
        return self.served

    def listen(self, seconds: float, token: str, doors: list[Any], *batch: Any) -> Any:
        self.served = True
        task = ("listen", seconds, token, doors, [], [], [], (*(batch or FAST), [], []))
        return json.loads(self.ask(*task))["opened"]

    def ask(self, *task: Any, code: int = 0) -> str:
        assert code == 0
        said = self.desk.ask(inside.marshalled(*task))
        assert said is not None
        return said.decode()

    def collect(self) -> Any:
        self.served = False
        return json.loads(self.ask("collect"))


class Desk:
    """A program that waits in a network namespace, asked as an agent asks it."""

    def __init__(self, namespace: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.door = folder / "desk" / "door"
        argv = ["ip", "netns", "exec", namespace, PYTHON, "-IS", "-"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(inside.standby(str(self.door)).encode())
        self.process.stdin.close()
        wait_for(self.door.exists, "the program that waits")

    def ask(self, question: bytes, *, timeout: float = 60) -> bytes | None:
        if not self.door.exists():
            return None
        word = secrets.token_hex(8)
        self.left(question, word)
        answer = Path(f"{self.door}.{word}")
        wait_for(answer.exists, "an answer", timeout)
        return answer.read_bytes()

    def left(self, question: bytes, word: str) -> None:
        """Leave a question and wait for no answer."""
        Path(f"{self.door}.question").write_bytes(question)
        with self.door.open("r+b", buffering=0) as door:
            door.write(f"{word}\n".encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def wait_for(there: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.02)
