"""``labctl import``: other tools' descriptions of labs become a lab file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.output import remark, say
from labctl.errors import ExitCode, UsageError


def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A description, or the folder that holds one.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write DIR/lab.yaml.", show_default="standard output"),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--from", metavar="vagrant|kypo|containerlab", help="What it is.", show_default="recognised"),
    ] = None,
    run_vagrantfile: Annotated[
        bool, typer.Option("--run-vagrantfile", help="Run the Vagrantfile, which is a program, without asking.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> int:
    """Make a lab file out of a Vagrantfile, a topology of KYPO or CyberRangeCZ, or one of containerlab.

    Comments in it say what could not be carried over and what was decided. Exit code 1 where labctl cannot use it yet.

    A Vagrantfile is a program: the installed Vagrant runs it, where the host allows without a network, on a read-only
    file system. Import only one that you have read.
    """
    from labctl.lifecycle.foreign import recognise, translate

    if source.suffix == ".labz":
        raise UsageError(
            f"{source} is a lab of labctl's own, and import reads those of other tools",
            hint=f"labctl up {source} brings it up; labctl unbundle {source} only unpacks it.",
        )
    chosen = next((known for known in recognise.KINDS if known == kind), None)
    if kind is not None and chosen is None:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(recognise.KINDS)}", param_hint="--from")
    if output is None and force:
        raise typer.BadParameter("it needs -o DIR", param_hint="--force")

    def consent(file: Path) -> bool:
        if run_vagrantfile:
            remark(f"{file} is a program; running it.")
            return True
        return sys.stdin.isatty() and typer.confirm(f"{file} is a program. Run it?", err=True)

    made = translate.translate(source, chosen, consent=consent)
    if made.confinement is not None:
        remark(f"The code of {made.source} was run {made.confinement}.")
    if output is None:
        say(made.text.rstrip("\n"))
        if made.files:
            remark(f"It needs files beside it, which -o DIR copies: {', '.join(made.files)}")
    else:
        for path in translate.write(made, output, force=force):
            say(str(path))
        remark("Next: read its comments, then `labctl plan` and `labctl up`.")
    for problem in made.problems:
        remark(f"{problem.path}: {problem.message}")
    return int(ExitCode.ERROR if made.problems else ExitCode.OK)
