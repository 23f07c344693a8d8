"""Students at the door: the lines that let them in over SSH, and what such a line runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.class_options import ClassArgument
from labctl.cli.output import say
from labctl.errors import UsageError


def authorized_keys(
    target: ClassArgument = Path(),
    install: Annotated[
        bool, typer.Option("--install", help="Put the lines into the file; `class up` keeps them right from then on.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the class's lines out of the file.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="The file.", show_default="this account's ~/.ssh/authorized_keys"),
    ] = None,
) -> None:
    """Print the lines by which this host's SSH server lets students in: to the machines of their own instance.

    Students come as the account that runs labctl, each with the key that the roster has. A key leads where `login` says
    and opens nothing else here: no shell, no file, no port. `class ssh-config --jump` writes the students' side.
    """
    from labctl.lifecycle.classroom import door, keys_file
    from labctl.spec.classfile import load

    if install and remove:
        raise UsageError("--install and --remove do not go together")
    spec = load(target)
    where = file or keys_file.where(spec.name) or keys_file.usual()
    if remove:
        keys_file.remove(spec.name, where)
        say(f"{spec.name}: no lines in {where}.")
        return
    lines = door.lines(spec)
    if install:
        keys_file.put(spec.name, lines, where)
        say(f"{spec.name}: {len(lines)} key{'s' * (len(lines) != 1)} in {where}.")
    else:
        for line in lines:
            say(line)


def enter(
    name: Annotated[str, typer.Argument(metavar="CLASS", help="The class's name.")],
    lab: Annotated[str, typer.Argument(metavar="LAB", help="The lab's name.")],
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="The one that the key is for.")],
) -> int:
    """What the SSH server runs for a student's key; `class authorized-keys` writes the lines that say so.

    The student says, as the command for ssh to run, `connect MACHINE`, or `submit FLAG` as for `labctl submit`.
    """
    from labctl.cli.submit_command import hand_in
    from labctl.lifecycle.classroom import door

    wanted = door.asked(name, lab, instance, os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    if not wanted.machine:
        return hand_in(wanted.lab, wanted.flag, prompt=True)
    door.hand_over(door.connect(wanted.lab, wanted.machine))
