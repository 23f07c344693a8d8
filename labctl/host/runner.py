"""The one place where programs are started: it logs, times out, masks secrets and can rehearse."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from labctl.errors import HostError, LabctlError


class CommandError(LabctlError):
    """A program ended with a status other than 0, or did not end in time."""

    def __init__(self, brief: str, *, result: Result, details: str = "", hint: str = "") -> None:
        super().__init__(brief, details=details, hint=hint)
        self.result = result


@dataclass(frozen=True, slots=True)
class Secret:
    """An argument that is passed on in full and printed as ``***``."""

    value: str

    def __str__(self) -> str:
        return "***"


Argument = str | Path | int | Secret


@dataclass(frozen=True, slots=True)
class Result:
    """What a program gave back. argv is printable (secrets masked); code is its status, None where it timed out."""

    argv: tuple[str, ...]
    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    def last_words(self, lines: int = 12) -> str:
        """The end of what it wrote to standard error, or to standard output where that is empty."""
        said = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return "\n".join(said.splitlines()[-lines:])


@dataclass(frozen=True, slots=True)
class Runner:
    """Starts programs. ``log`` is a file that gets one line per program; ``dry_run`` skips those that change things."""

    log: Path | None = None
    dry_run: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self,
        argv: Sequence[Argument],
        *,
        changes: bool = True,
        timeout: float | None = 60,
        stdin: bytes | None = None,
        check: bool = True,
        cwd: Path | None = None,
        hint: str = "",
        pass_fds: Sequence[int] = (),
        stdout: IO[bytes] | None = None,
    ) -> Result:
        """Run a program to its end.

        changes: False where it only reads, so that it also runs in a rehearsal. timeout is in seconds. stdout: a file
        that takes the output instead of ``Result.stdout``. Raises HostError where it cannot be started, CommandError
        where it fails and ``check`` is set; on a time-out the whole process group is killed.
        """
        shown = tuple(str(a) for a in argv)
        if self.dry_run and changes:
            self._note(shown, "dry-run", 0.0)
            return Result(shown, 0, b"", b"", 0.0)
        started = time.monotonic()
        process = self._popen(argv, stdin is not None, cwd, pass_fds, stdout if stdout is not None else subprocess.PIPE)
        code: int | None
        try:
            out, err = process.communicate(stdin, timeout=timeout)
            code = process.returncode
        except subprocess.TimeoutExpired:
            kill_group(process)
            out, err = process.communicate()
            code = None
        except BaseException:
            kill_group(process)
            process.communicate()
            raise
        result = Result(shown, code, out or b"", err or b"", time.monotonic() - started)
        self._note(shown, "timeout" if code is None else str(code), result.seconds)
        if check and code != 0:
            why = f"did not end within {timeout:g} s" if code is None and timeout else f"ended with status {code}"
            raise CommandError(
                f"{shown[0]} {why}", result=result, details=f"$ {shlex.join(shown)}\n{result.last_words()}", hint=hint
            )
        return result

    def spawn(
        self,
        argv: Sequence[Argument],
        *,
        output: Path,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program that outlives labctl: own session, no standard input, its output appended to ``output``."""
        try:
            opened = output.open("ab")
        except OSError as error:
            raise HostError(f"cannot write {output}: {error.strerror}") from error
        with opened as sink:
            process = self._popen(argv, False, cwd, pass_fds, sink, stderr=sink, stdin=subprocess.DEVNULL)
        self._note(tuple(str(a) for a in argv), f"pid {process.pid}", 0.0)
        return process

    def _popen(
        self,
        argv: Sequence[Argument],
        piped: bool,
        cwd: Path | None,
        pass_fds: Sequence[int],
        stdout: Any,
        stderr: Any = subprocess.PIPE,
        stdin: Any = None,
    ) -> subprocess.Popen[bytes]:
        real = [a.value if isinstance(a, Secret) else str(a) for a in argv]
        if stdin is None:
            stdin = subprocess.PIPE if piped else subprocess.DEVNULL
        own_group: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {}
        if pass_fds:
            own_group["pass_fds"] = tuple(pass_fds)
        try:
            return subprocess.Popen(
                real,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env={**os.environ, **self.environment},
                **own_group,
            )
        except FileNotFoundError as error:
            raise HostError(
                f"{real[0]} is not installed", hint="labctl doctor says what this host lacks and how to mend it."
            ) from error
        except OSError as error:
            raise HostError(f"{real[0]} cannot be started: {error.strerror}") from error

    def _note(self, shown: tuple[str, ...], outcome: str, seconds: float) -> None:
        if self.log is None:
            return
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} [{outcome}] {seconds:.2f}s {shlex.join(shown)}\n"
        # a full disk is reported by whoever writes something that matters
        with contextlib.suppress(OSError), _LOG_LOCK, self.log.open("a", encoding="utf-8") as log:
            log.write(line)


_LOG_LOCK = threading.Lock()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process started by a Runner together with what it started itself."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()


def attached(argv: Sequence[str]) -> int:
    """Run an interactive program on the user's own terminal and give its exit status."""
    try:
        return subprocess.run(list(argv), check=False).returncode
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed") from error
