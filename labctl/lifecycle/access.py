"""Ways into a machine: SSH, a command, the serial console, the logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labctl.errors import UsageError
from labctl.lifecycle.locate import Running
from labctl.providers.base import ExecResult
from labctl.spec.problems import choices


def pick(lab: Running, machine: str | None) -> str:
    """The machine meant; without a name the only one there is. Raises UsageError."""
    names = [m.name for m in lab.plan.machines]
    if machine is None and len(names) == 1:
        return names[0]
    if machine not in names:
        what = f"{lab.plan.lab} has no machine called {machine!r}" if machine else "say which machine"
        raise UsageError(what, hint=choices("Machines", names, machine or ""))
    return machine


def execute(lab: Running, machine: str, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 600) -> ExecResult:
    """Run a program as root in a guest. Raises GuestError where the guest does not answer."""
    return lab.provider.execute(lab.plan, machine, argv, stdin=stdin, timeout=timeout)


def console(lab: Running, machine: str) -> Path:
    """The unix socket of a machine's serial console. Raises UsageError where the engine has none."""
    path = lab.provider.console(lab.plan, machine)
    if path is None:
        raise UsageError(
            f"{machine} has no serial console on {lab.record.provider}", hint="labctl logs shows what it wrote."
        )
    return path


def logs(lab: Running, machine: str | None) -> tuple[Path, ...]:
    """Log files of a machine, or of labctl's own work on the instance where no machine is named; existing ones only."""
    paths = lab.provider.logs(lab.plan, machine) if machine else (lab.folder.commands_log,)
    return tuple(path for path in paths if path.exists())
