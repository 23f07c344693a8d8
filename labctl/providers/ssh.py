"""SSH to a guest: the one command line that labctl and its user take, and commands run over it."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from labctl.errors import GuestError
from labctl.host.runner import Runner
from labctl.providers.base import Endpoint, ExecResult

MAX_OUTPUT = 4 << 20  # bytes that are read of what a guest writes
_SSH_FAILED = 255  # the status of ssh itself, as against the command's


class NoConnectionError(GuestError):
    """ssh itself failed: nothing was run."""


def ssh_argv(
    endpoint: Endpoint, command: Sequence[str] = (), *, user: str | None = None, control: Path | None = None
) -> list[str]:
    """The ssh command line that reaches an endpoint: its host key pinned, the user's own SSH settings left out.

    A user's ssh_config might send the connection through a proxy or to another host. control: where the socket is by
    which commands to this guest share their connection; with it nobody is asked for anything. The words of ``command``
    are joined by ssh and read by a shell in the guest.
    """
    options = {
        "GlobalKnownHostsFile": "none",
        "IdentitiesOnly": "yes",
        "IdentityFile": setting(endpoint.identity),
        "LogLevel": "ERROR",
        "Port": str(endpoint.port),
        "ServerAliveInterval": "15",
        "StrictHostKeyChecking": "yes",
        "User": user or endpoint.user,
        "UserKnownHostsFile": setting(endpoint.known_hosts),
    }
    if control is not None:
        options |= {"BatchMode": "yes", "ConnectTimeout": "10"}
        if os.name == "posix":  # ssh of Windows cannot share connections
            options |= {"ControlMaster": "auto", "ControlPath": str(control), "ControlPersist": "60"}
    return ["ssh", "-F", "none", *(f"-o{key}={value}" for key, value in options.items()), "--", endpoint.host, *command]


def setting(path: Path) -> str:
    """A path as a value of ssh's settings: one word, in which ``%h`` is no host. See ssh_config(5), TOKENS."""
    return '"' + str(path).replace("%", "%%") + '"'


def run_as_root(
    endpoint: Endpoint, command: str, *, stdin: bytes, timeout: float, control: Path, runner: Runner
) -> ExecResult:
    """Run a shell command as root in a guest. timeout is in seconds.

    Raises NoConnectionError where ssh gets no connection, GuestError where the command does not end in time.
    """
    remote = command if endpoint.user == "root" else f"sudo -n /bin/sh -c {shlex.quote(command)}"
    with tempfile.TemporaryFile() as output:  # a guest may write without end, and memory is dearer than a file
        argv = ssh_argv(endpoint, [remote], control=control)
        result = runner.run(argv, stdin=stdin, timeout=timeout, check=False, stdout=output, changes=False)
        output.seek(0)
        said = output.read(MAX_OUTPUT + 1)
    if result.code is None:
        raise GuestError(f"a command did not end within {timeout:g} s")
    if result.code == _SSH_FAILED and not said:
        raise NoConnectionError("SSH gets no connection", details=result.last_words(2))
    return ExecResult(result.code, said, result.stderr[:MAX_OUTPUT])


def disconnect(control: Path, runner: Runner) -> None:
    """End a shared connection; no error where there is none."""
    runner.run(["ssh", "-F", "none", "-o", f"ControlPath={control}", "-O", "exit", "labctl"], check=False)
