"""QEMU processes without a machine: they only move frames between network back ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError, ProviderError
from labctl.host.processes import ProcessId, marked
from labctl.host.runner import Runner
from labctl.providers.qemu.argv import BINARY
from labctl.providers.qemu.options import option
from labctl.providers.qemu.qmp import Monitor

_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Bare:
    """Such a process. mark: its ``-name``, by which it is found again. socket: where its monitor listens."""

    mark: str
    socket: Path
    log: Path

    def start(self, arguments: Sequence[str], runner: Runner, *, fds: Sequence[int] = ()) -> None:
        """Start it and wait until it serves; ``arguments`` are its back ends. Raises HostError."""
        argv = (
            *(BINARY, "-name", self.mark, "-machine", "none", "-no-user-config", "-nodefaults", "-display", "none"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-pidfile", str(self.log.with_suffix(".pid"))),  # also says in the list of processes whose this is
            *("-chardev", option("socket", id="qmp", path=self.socket, server="on", wait="off")),
            *("-mon", option(chardev="qmp", mode="control")),
            *arguments,
        )
        process = runner.spawn(argv, output=self.log, pass_fds=fds)
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                Monitor(self.socket).close()
            except ProviderError:
                time.sleep(0.01)
            else:
                return
        process.kill()
        process.wait()
        words = self.log.read_text(errors="replace")[-1000:]
        raise HostError(f"the process of {self.log.stem} did not start", details=words)

    def stop(self) -> None:
        """End it; no error where it does not run."""
        for process, _ in self.processes():
            process.stop(grace=2)

    def processes(self) -> Iterator[tuple[ProcessId, tuple[str, ...]]]:
        """The living process, or several after a crash at the wrong moment, with their arguments."""
        for process, argv in marked(self.mark):
            if "-name" in argv[:-1] and argv[argv.index("-name") + 1] == self.mark:
                yield process, argv
