"""The ``labctl`` command as tests drive it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.surroundings import Surroundings

LABCTL = (sys.executable, "-m", "labctl")


@dataclass(frozen=True)
class Labctl:
    """The ``labctl`` command with a state folder of its own. host: where it runs, this computer where None.

    variables: of the environment, beside the usual ones.
    """

    state: Path
    home: Path
    host: Surroundings | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LABCTL_STATE_DIR": str(self.state), "NO_COLOR": "1", **self.variables}

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        return self.spawn(*LABCTL, *map(str, arguments))

    def spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start any program where labctl runs."""
        return subprocess.Popen(
            [*(self.host.enter(self.home) if self.host else ()), *argv],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run it to its end, insist on its exit code, give its standard output."""
        return self._run(arguments, code)[0]

    def complaint(self, *arguments: str | Path, code: int = 1) -> str:
        """Run it where it must not succeed, insist on its exit code, give what it says on standard error."""
        return self._run(arguments, code)[1]

    def _run(self, arguments: Sequence[str | Path], code: int) -> tuple[str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=280)
        shown = f"labctl {' '.join(map(str, arguments))}\n{out.decode()[-3000:]}\n{err.decode()}"
        assert process.returncode == code, shown
        assert "Traceback" not in shown
        return out.decode(), err.decode()

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """Run it with ``--json`` and give what it printed, parsed."""
        return json.loads(self.run(*arguments, "--json", code=code))

    def destroy_all(self) -> None:
        """Destroy every instance in the state folder."""
        for found in self.json("list"):
            self.run("destroy", found["lab"], "--instance", found["instance"], "--yes")

    def processes(self) -> list[psutil.Process]:
        """Everything that runs with this state folder in its arguments."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words: Sequence[str] = process.info["cmdline"] or []
            if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(self.state) in word for word in words):
                found.append(process)
        return found
