"""Processes that outlive labctl, found again by pid and start time so that a reused pid is never mistaken for ours."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for good: its pid and when it started (seconds since the epoch, as psutil reports it)."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a living process, or None."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def alive(self) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        return self._process() is not None

    def argv(self) -> tuple[str, ...]:
        """Its arguments; none where it is gone."""
        process = self._process()
        with contextlib.suppress(psutil.Error):
            return tuple(process.cmdline()) if process is not None else ()
        return ()

    def stop(self, *, grace: float = 5.0) -> None:
        """Ask it to end, wait ``grace`` seconds, then kill it. No error where it is gone."""
        process = self._process()
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            if not self._ended(process, grace):
                process.kill()
                self._ended(process, _KILL_SECONDS)

    def _ended(self, process: psutil.Process, seconds: float) -> bool:
        """Wait until it has ended, for so long.

        Who started it may take seconds to notice, as the first process of a container does; so psutil's own wait, which
        is over when nothing is left of a process, is for those that we started.
        """
        deadline = time.monotonic() + seconds
        while self._process() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        with contextlib.suppress(psutil.Error):
            process.wait(0)
        return True

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > 1.0 or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.Error:
            return None
        return process


def boot_id() -> str:
    """What names this run of the host's kernel: answers found by trying hold until it changes."""
    note = Path("/proc/sys/kernel/random/boot_id")
    # elsewhere the time of the boot, coarse, because it follows the clock when that is set
    return note.read_text().strip() if note.exists() else str(round(psutil.boot_time() / 60))


def marked(mark: str) -> Iterator[tuple[ProcessId, tuple[str, ...]]]:
    """Living processes of any user we can see with ``mark`` in one of their arguments, with their arguments."""
    for process in psutil.process_iter(["pid", "create_time", "cmdline", "status"]):
        argv = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(mark in argument for argument in argv):
            yield ProcessId(process.info["pid"], process.info["create_time"]), tuple(argv)
