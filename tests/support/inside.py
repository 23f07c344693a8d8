"""The program for guests, run as a guest would run it, in a network namespace."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from labctl.verify import inside

PYTHON = "/usr/bin/python3"

FAST = (0.3, 0.5, None, [("lo", "00:00:00:00:00:00")])  # quick, patient, gateway, devices


class Guest:
    """A network namespace, and the process that stays in it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.pipes: list[str] = []

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
        return self.run(*inside.ASK, *self.pipes, stdin=f"{task!r}\n", code=code)

    def collect(self) -> Any:
        said = json.loads(self.ask("collect"))
        self.pipes = []
        return said

    def probe(self, specs: list[Any], *batch: Any) -> Any:
        """One call of ``probing.probe``: in the process that is there, else in a new one."""
        if not self.pipes:
            self.listen(60, "t", [], *batch)
        return json.loads(self.ask("probe", None, specs))

    def probes(self, *specs: tuple[Any, ...], quick: float = 0.3, patient: float = 0.5) -> dict[int, list[Any]]:
        return {row[0]: row[1:] for row in self.probe(list(specs), quick, patient, *FAST[2:])["results"]}
