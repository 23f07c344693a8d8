"""Commands about what is asked and what will be: nothing here starts a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.options import InstanceOption, JsonOption, LabArgument, ProviderOption
from labctl.cli.output import remark, say, say_json, table
from labctl.errors import ExitCode


def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the new lab; it is made where it is missing.")] = Path(),
    template: Annotated[
        str, typer.Option("--template", "-t", metavar="NAME", help="The lab to start from.")
    ] = "quickstart",
    name: Annotated[str | None, typer.Option(help="The new lab's name.", show_default="the folder's name")] = None,
    show: Annotated[bool, typer.Option("--list", help="List the templates and stop.")] = False,
) -> None:
    """Make a new lab from one of those that ship with labctl."""
    from labctl.lifecycle import starter

    if show:
        table(("TEMPLATE", "DESCRIPTION"), [(key, text) for key, text in starter.templates().items()])
        return
    lab = starter.init(folder, template, name=name)
    say(f"Made {lab}")
    remark(f"Next: read it, then `labctl up {folder}` and `labctl verify {folder}`.")


def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Lab files or folders.", show_default="the current folder")
    ] = [Path()],  # noqa: B006 - typer reads the default, nobody changes it
    as_json: JsonOption = False,
) -> int:
    """Check lab files and print every problem with file, line and column.

    Exit code 0 where all are right, 2 where one is not. Works as a pre-commit hook.
    """
    from labctl.spec.load import check

    found = {file: check(file) for file in files}
    problems = [problem for group in found.values() for problem in group]
    if as_json:
        say_json({"valid": not problems, "problems": [problem.to_json() for problem in problems]})
    else:
        for file, group in found.items():
            say("\n\n".join(problem.render() for problem in group) if group else f"{file}: ok")
        if problems:
            remark(
                f"{len(problems)} problem{'s' * (len(problems) > 1)} found; `labctl schema` prints what a lab may hold."
            )
    return int(ExitCode.USAGE if problems else ExitCode.OK)


def plan(
    lab: LabArgument = Path(),
    instance: InstanceOption = "default",
    provider: ProviderOption = None,
    as_json: JsonOption = False,
    detailed: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 5 where `up` would change something.")
    ] = False,
) -> int:
    """Show what `up` would change, machine by machine; with --json the complete plan.

    The complete plan has every address, MAC, name, route, firewall rule, disk and expected flow.
    """
    from labctl.cli.plan_view import show_plan
    from labctl.lifecycle import converge, locate
    from labctl.plan.show import to_json

    draft = locate.draft(lab, instance=instance, provider=provider)
    diff = converge.difference(draft)
    if as_json:
        say_json(
            {
                **to_json(draft.plan),
                "changes": [{"machine": c.machine, "action": c.action, "fields": c.fields} for c in diff.changes],
            }
        )
    else:
        show_plan(draft.plan, diff)
    return int(ExitCode.CHANGES if detailed and not diff.empty else ExitCode.OK)


def graph(
    lab: LabArgument = Path(),
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="mermaid|dot|svg", help="svg needs Graphviz.")
    ] = "mermaid",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default="standard output")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MACHINE", help="Colour what the owner of this machine could reach.")
    ] = None,
) -> None:
    """Draw the topology: networks, machines, and the flows that the policy lets across."""
    from labctl.host.files import write_atomic
    from labctl.lifecycle import drawing
    from labctl.plan.build import build
    from labctl.spec.load import load

    if output is not None and output.suffix in (".svg", ".dot", ".mmd"):
        form = {".svg": "svg", ".dot": "dot", ".mmd": "mermaid"}[output.suffix]
    if form not in ("mermaid", "dot", "svg"):
        raise typer.BadParameter(f"{form!r} is none of mermaid, dot, svg", param_hint="--format")
    from labctl.lifecycle.locate import spec_file

    text = drawing.topology(build(load(spec_file(lab))), form, start)
    if output is None:
        say(text)
    else:
        write_atomic(output, text)


def render(
    lab: LabArgument = Path(),
    provider: ProviderOption = None,
    instance: InstanceOption = "default",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write the files here.", show_default="standard output"),
    ] = None,
) -> None:
    """Write the provider's own files for a lab, such as a Vagrantfile, to read, to commit or to run without labctl."""
    from labctl.lifecycle import drawing, locate

    draft = locate.draft(lab, instance=instance, provider=provider)
    if output is not None:
        for path in drawing.write(draft, output):
            say(str(path))
        return
    files = drawing.rendered(draft)
    if len(files) == 1:
        say(next(iter(files.values())).rstrip("\n"))
    else:
        for name, text in files.items():
            say(f"# ---- {name}\n{text}")


def schema() -> None:
    """Print the JSON Schema of lab files, for editors and for reading."""
    from labctl.spec.load import schema_text

    say(schema_text().rstrip("\n"))
