"""What a class is handed: SSH settings, sheets for students, the schema of its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.class_options import ClassArgument, MachineOption, OnlyOption, chosen_of
from labctl.cli.options import JsonOption
from labctl.cli.output import say, say_json
from labctl.errors import UsageError


def ssh_config(
    target: ClassArgument = Path(),
    only: OnlyOption = None,
    machine: MachineOption = None,
    jump: Annotated[
        str | None,
        typer.Option(
            "--jump",
            metavar="[USER@]SERVER",
            help="For students' own computers: through this server, with their own keys, where `login` lets them in; "
            "it has the lines of `class authorized-keys`.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it here.", show_default="standard output"),
    ] = None,
) -> None:
    """Write an SSH configuration with a host for every machine: `ssh -F FILE s01-web`."""
    from labctl.host.files import write_atomic
    from labctl.lifecycle.classroom import ssh, verbs

    spec, chosen = chosen_of(target, only)
    verbs.check_machines(chosen, machine or ())
    text = ssh.config(spec, chosen, machine or (), jump)
    if output is None:
        say(text.rstrip("\n"))
    else:
        write_atomic(output, text, mode=0o600)


def handout(
    target: ClassArgument = Path(),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Write INSTANCE.html for each of them here.")
    ] = Path("handouts"),
    only: OnlyOption = None,
    jump: Annotated[
        str | None,
        typer.Option("--jump", metavar="[USER@]SERVER", help="The server through which students' own computers come."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE",
            help="For students who run the lab on their own computers, from this file of `labctl bundle --class`: "
            "also the token of each.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a sheet for every student or team, one page of HTML to print or to mail: machines, login, tasks, reset.

    The tasks are the lab's README.md.
    """
    from labctl.lifecycle.classroom import handout

    if jump is not None and bundle is not None:
        raise UsageError("--jump and --bundle do not go together", hint="One is for machines here, one for theirs.")
    spec, chosen = chosen_of(target, only)
    if bundle is not None:
        written = handout.write_for_laptops(spec, chosen, output, bundle.name)
    else:
        written = handout.write(spec, chosen, output, jump=jump)
    if as_json:
        say_json({"class": spec.name, "files": [str(path) for path in written]})
    elif written:
        say(f"{len(written)} sheet{'s' * (len(written) > 1)} in {output}.")
    else:
        say(f"{spec.name}: nobody is chosen who has an instance.")


def schema() -> None:
    """Print the JSON Schema of class files, for editors and for reading."""
    from labctl.spec.classfile import schema_text

    say(schema_text().rstrip("\n"))
