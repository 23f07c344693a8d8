"""A program that runs another one, which nobody vouches for, and brings back one file that it wrote.

``labctl.lifecycle.foreign.evaluate`` starts it with ``python -I -S``, inside namespaces where the host has them. It
reads a JSON task from standard input: ``argv``, ``environment`` (a null takes a variable away), ``folder`` (its own,
empty), ``files`` (written below it first), ``result`` (a name below it), ``source`` (a folder that the program must
see), ``scratch`` (folders that the program may write to without a trace), ``seconds``, and ``private`` (whether this is
a mount namespace of its own). It prints ``{"code", "said", "result", "readonly"}`` as JSON: the exit status (null where
the time was up), the end of what was printed, the result's text or null, and whether the file system was read-only. It
imports nothing of labctl.

In a mount namespace every file system becomes read-only but for ``folder``, which becomes an empty one in memory, and
for the ``scratch`` folders, in whose places copies in memory stand; the folders where daemons of the host have their
sockets are empty; and no capability is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MS_BIND, _MS_REC = 0x1000, 0x4000
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _LAST_CAP = 1, 24, 38, 63
_SOCKETS = ("/run", "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - not used but hidden
_SAID = 1 << 16
_RESULT = 16 << 20
_ADDRESS_SPACE = 8 << 30


def _check(code: int) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Kernel:
    """The system calls that Python has no function for."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(self, source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
        """mount(2)."""
        texts = [os.fsencode(text) for text in (source, target, kind)]
        _check(self._libc.mount(*texts, ctypes.c_ulong(flags), options.encode()))

    def readonly(self, path: str) -> None:
        """Make everything that is mounted at a path and below it read-only."""
        attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
        arguments = (ctypes.c_long(_SYS_MOUNT_SETATTR), _AT_FDCWD, path.encode(), _AT_RECURSIVE)
        _check(self._libc.syscall(*arguments, attributes, ctypes.c_size_t(32)))

    def limits(self) -> None:
        """``_limits``; and no capabilities, nor any by running a program."""
        _limits()
        for capability in range(_LAST_CAP + 1):
            self._libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
        self._libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0)


def _hide(kernel: _Kernel, folder: Path, kept: Path) -> None:
    """Make a folder empty, but for what leads to ``kept``."""
    inside = folder / kept.relative_to(folder).parts[0] if folder in kept.parents else None
    handle = os.open(inside, os.O_PATH) if inside else -1
    kernel.mount("none", folder, "tmpfs", 0, "mode=755,size=16m")
    if inside:
        inside.mkdir()
        kernel.mount(f"/proc/self/fd/{handle}", inside, "", _MS_BIND | _MS_REC)
        os.close(handle)


def _scratch(kernel: _Kernel, folder: Path) -> None:
    """Put a copy of a small folder in its place, in memory."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    kernel.mount("none", folder, "tmpfs", 0, "mode=755,size=16m")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _confine(kernel: _Kernel, folder: Path, source: Path, scratch: list[Path]) -> None:
    for hidden in map(Path, _SOCKETS):
        if hidden.is_dir() and not hidden.is_symlink() and source != hidden:
            _hide(kernel, hidden, source)
    folder.mkdir(parents=True, exist_ok=True)
    kernel.readonly("/")
    kernel.mount("none", folder, "tmpfs", 0, "mode=700,size=256m")
    for copied in scratch:
        if copied.is_dir():
            _scratch(kernel, copied)


def _limits() -> None:
    """In the child, before the program: it ends with its parent, leaves no core file, and finds an end to memory."""
    import resource

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))


def _keep_end(stream: Any, kept: bytearray) -> None:
    """Read everything, keep the end: who prints without end fills no memory."""
    while chunk := stream.read1(_SAID):
        kept += chunk
        del kept[:-_SAID]


def _run(task: dict[str, Any], before: Callable[[], None]) -> dict[str, Any]:
    said = bytearray()
    posix = os.name == "posix"
    environment = {**os.environ, **task["environment"]}
    process = subprocess.Popen(
        task["argv"],
        env={name: value for name, value in environment.items() if value is not None},
        cwd=Path(task["folder"], "driver"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=posix,
        preexec_fn=before if posix else None,  # noqa: PLW1509 - no other thread has been started yet
    )
    reader = threading.Thread(target=_keep_end, args=(process.stdout, said), daemon=True)
    reader.start()
    code: int | None
    try:
        code = process.wait(task["seconds"])
    except subprocess.TimeoutExpired:
        code = None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if posix:
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind goes with it
        else:
            process.kill()
    process.wait()
    reader.join(1)
    return {"code": code, "said": bytes(said).decode(errors="replace")}


def _read(path: Path) -> str | None:
    """The result, never more than the limit; a link or a device is none."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_RESULT).decode(errors="replace")


def main() -> None:
    """Carry out the task on standard input."""
    task = json.load(sys.stdin)
    folder, readonly, before = Path(task["folder"]), False, _limits
    if task["private"]:
        kernel = _Kernel()
        before = kernel.limits
        with contextlib.suppress(OSError):
            _confine(kernel, folder, Path(task["source"]), [Path(text) for text in task["scratch"]])
            readonly = True
    for name, text in task["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    answer = _run(task, before)
    answer |= {"result": _read(folder / task["result"]), "readonly": readonly}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
