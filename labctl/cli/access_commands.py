"""Commands that lead into a machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.options import InstanceOption, JsonOption
from labctl.cli.output import remark, say, say_json
from labctl.errors import UsageError

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[LAB] MACHINE [-- COMMAND…]", help="A machine of the lab, and what to run in it."),
]


def ssh(
    words: WordsArgument = None,
    instance: InstanceOption = "default",
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="Log in as this user.", show_default="the image's")
    ] = None,
) -> None:
    """Open a shell in a machine over SSH, or run a command there. Options come before the machine's name."""
    from labctl.lifecycle import access, locate
    from labctl.providers.ssh import ssh_argv

    lab, rest = split_words(words or [])
    running = locate.find(lab, instance=instance)
    machine = access.pick(running, rest[0] if rest else None)
    argv = ssh_argv(running.provider.endpoint(running.plan, machine), rest[1:], user=user)
    sys.stdout.flush()
    if os.name == "posix":
        os.execvp(argv[0], argv)  # noqa: S606 - the user's terminal now belongs to ssh
    from labctl.host.runner import attached

    raise typer.Exit(attached(argv))


def exec_(
    words: WordsArgument = None,
    instance: InstanceOption = "default",
    timeout: Annotated[float, typer.Option(help="Seconds until the command is given up.")] = 600,
    as_json: JsonOption = False,
) -> int:
    """Run a command as root in a machine and end with its exit code. Options come before the machine's name.

    Standard input is passed on where it is not a terminal.
    """
    from labctl.lifecycle import access, locate

    lab, rest = split_words(words or [])
    running = locate.find(lab, instance=instance)
    machine = access.pick(running, rest[0] if rest else None)
    if len(rest) < 2:
        raise UsageError("say what to run", hint=f"labctl exec {machine} -- ip addr")
    stdin = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    result = access.execute(running, machine, rest[1:], stdin=stdin, timeout=timeout)
    if as_json:
        say_json({"machine": machine, "code": result.code, "stdout": result.stdout, "stderr": result.stderr})
        return 0
    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)
    return result.code


def console(
    words: Annotated[list[str] | None, typer.Argument(metavar="[LAB] MACHINE", help="A machine of the lab.")] = None,
    instance: InstanceOption = "default",
) -> None:
    """Attach to a machine's serial console. Ctrl-] leaves it."""
    from labctl.host.terminal import attach
    from labctl.lifecycle import access, locate

    lab, rest = split_words(words or [])
    running = locate.find(lab, instance=instance)
    machine = access.pick(running, rest[0] if rest else None)
    remark(f"Console of {machine}; Ctrl-] leaves, Enter wakes it.")
    attach(access.console(running, machine))


def logs(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LAB] [MACHINE]", help="A machine of the lab; labctl's own log without one."),
    ] = None,
    instance: InstanceOption = "default",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines of each file.")] = 40,
) -> None:
    """Show the last lines of a machine's logs (console, provisioning, engine), or of what labctl ran."""
    from labctl.lifecycle import access, locate

    lab, rest = split_words(words or [])
    if len(rest) == len(words or []) == 1 and not Path("lab.yaml").is_file():
        lab, rest = Path(rest[0]), []  # no lab is here, so the word names one
    running = locate.find(lab, instance=instance)
    name = access.pick(running, rest[0]) if rest else None
    paths = access.logs(running, name)
    if not paths:
        remark("There are no logs yet." + ("" if rest else " A machine's own: labctl logs [LAB] MACHINE."))
    for path in paths:
        say(f"==> {path}")
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]:
            say(printable(line))


def printable(line: str) -> str:
    """A line of a guest's output without control characters: a guest must not steer the user's terminal."""
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in line)


def split_words(words: list[str]) -> tuple[Path, list[str]]:
    """``[LAB] MACHINE [--] COMMAND…`` as the lab and the rest.

    The first word is a lab where it names a lab file or its folder, or where a ``--`` leaves two words before it.
    """
    head = words[: words.index("--")] if "--" in words else words
    tail = words[words.index("--") + 1 :] if "--" in words else []
    first = Path(head[0]) if head else None
    names_lab = first is not None and (first.is_file() or (first / "lab.yaml").is_file())
    if names_lab or ("--" in words and len(head) == 2):
        return Path(head[0]), [*head[1:], *tail]
    return Path(), [*head, *tail]
