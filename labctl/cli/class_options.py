"""Arguments and options that the commands of a class share, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from labctl.lifecycle.classroom.seats import Place
    from labctl.spec.classfile import ClassSpec

ClassArgument = Annotated[
    Path,
    typer.Argument(
        metavar="[CLASS]",
        help="The class: a folder with a class.yaml, or the file itself.",
        show_default="the current folder",
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="WHO",
        help="Only these: ids, teams, or places in the class such as 1-10; several with commas.",
        show_default="the whole class",
    ),
]
MachineOption = Annotated[
    list[str] | None,
    typer.Option("--machine", "-m", metavar="NAME", help="Only this machine of each; may be repeated."),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        max=64,
        help="Instances worked on at once.",
        show_default="as many as there are processors, 8 at most",
    ),
]
_MOST_JOBS = 8


def workers(asked: int | None) -> int:
    """Guests that start take a processor each; more at once only starve one another."""
    from labctl.host.room import processors

    return asked or min(_MOST_JOBS, processors())


def chosen_of(target: Path, only: Sequence[str] | None) -> tuple[ClassSpec, tuple[Place, ...]]:
    from labctl.lifecycle.classroom.seats import pick, places
    from labctl.spec.classfile import load

    spec = load(target)
    return spec, pick(spec, places(spec), only or ())
