"""Arguments and options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LabArgument = Annotated[
    Path,
    typer.Argument(
        metavar="[LAB]",
        help="The lab: a folder with a lab.yaml, or the file itself.",
        show_default="the current folder",
    ),
]
InstanceOption = Annotated[str, typer.Option("--instance", "-i", metavar="NAME", help="Which running copy of the lab.")]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        "-p",
        metavar="NAME",
        help="The engine: qemu, virtualbox, libvirt, fake.",
        show_default="the spec's, else what this host can run",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done and do nothing.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
