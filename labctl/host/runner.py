"""The one place where programs are started: it logs, times out, masks secrets and can rehearse."""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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
            out, err = _cut_off(process)
            code = None
        except BaseException:
            _cut_off(process)
            raise
        result = Result(shown, code, out or b"", err or b"", time.monotonic() - started)
        self._note(shown, "timeout" if code is None else str(code), result.seconds)
        if check and code != 0:
            why = f"did not end within {timeout:g} s" if code is None and timeout else f"ended with status {code}"
            raise CommandError(
                f"{shown[0]} {why}", result=result, details=f"$ {shlex.join(shown)}\n{result.last_words()}", hint=hint
            )
        return result

    def follow(
        self,
        argv: Sequence[Argument],
        said: Callable[[str], None],
        *,
        timeout: float,
        cwd: Path | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Run a long program to its end and hand each line of its standard output on as it comes.

        Does not raise where the program fails: ``Result.code`` says so, None where it did not end within ``timeout``
        seconds or was cancelled. Then it is first asked to end (SIGINT), as by Ctrl-C, and killed with all it started
        if it takes long. Raises HostError where it cannot be started.
        """
        started = time.monotonic()
        with tempfile.TemporaryFile() as errors:
            process = self._popen(argv, False, cwd, (), subprocess.PIPE, stderr=errors)
            lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
            reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
            reader.start()
            kept: list[str] = []
            try:
                ended = _hand_on(lines, said, kept, lambda: cancelled() or time.monotonic() - started > timeout)
            except BaseException:
                _end(process)
                raise
            if not ended:
                _end(process)
            code = process.wait() if ended else None
            reader.join()
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _KEPT_BYTES))
            shown = tuple(str(a) for a in argv)
            result = Result(shown, code, "\n".join(kept).encode(), errors.read(), time.monotonic() - started)
        self._note(result.argv, "given up" if code is None else str(code), result.seconds)
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


def _cut_off(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Kill a program with its group and give what it wrote.

    One that it started with a session of its own, as ssh does, may live on and hold its output open: that is let go.
    """
    kill_group(process)
    try:
        return process.communicate(timeout=_LET_GO_SECONDS)
    except subprocess.TimeoutExpired as error:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.wait()
        return error.output or b"", error.stderr or b""


_LOG_LOCK = threading.Lock()
_LET_GO_SECONDS = 1.0
_KEPT_LINES = 200  # of a long program's output, for its last words
_KEPT_BYTES = 64 << 10
_GRACE_SECONDS = 10.0


def _read_lines(output: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    with output:
        for line in output:
            lines.put(line.decode(errors="replace").rstrip("\r\n"))
    lines.put(None)


def _hand_on(
    lines: queue.SimpleQueue[str | None], said: Callable[[str], None], kept: list[str], given_up: Callable[[], bool]
) -> bool:
    """Hand lines on until there are no more (True) or the program is given up (False)."""
    while not given_up():
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=0.2)
            if line is None:
                return True
            kept.append(line)
            del kept[:-_KEPT_LINES]
            said(line)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end as Ctrl-C does, then kill it with all that it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        deadline = time.monotonic() + _GRACE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    kill_group(process)
    process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process started by a Runner together with what it started itself."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()


def mortal() -> tuple[str, ...]:
    """Words before a program that end it with a labctl that is killed, where the system has such a thing.

    Otherwise it would work on, and the next labctl would find it at work.
    """
    linux = sys.platform.startswith("linux") and shutil.which("setpriv") is not None
    return ("setpriv", "--pdeathsig", "SIGKILL", "--") if linux else ()


def attached(argv: Sequence[str]) -> int:
    """Run an interactive program on the user's own terminal and give its exit status."""
    try:
        return subprocess.run(list(argv), check=False).returncode
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed") from error
