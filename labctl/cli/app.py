"""The ``labctl`` command: all commands in the order in which a lab is made and used."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from labctl import __version__
from labctl.cli import (
    access_commands,
    bundle_commands,
    cache_commands,
    checkpoint_commands,
    class_commands,
    host_commands,
    import_command,
    run_commands,
    score_commands,
    spec_commands,
    submit_command,
    verify_commands,
)
from labctl.cli.output import say


class _Grouped(TyperGroup):
    """Help with the commands under headings. Typer's own way to do that needs a fifth of a second for its imports."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = str(getattr(command, "rich_help_panel", None) or "Commands")
                groups.setdefault(panel, []).append((name, command.get_short_help_str(limit=90)))
        for panel, rows in groups.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    name="labctl",
    cls=_Grouped,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "One YAML file becomes a running, isolated, multi-VM security lab, and labctl proves the isolation.\n\n"
        "Start with `labctl init mylab`, then `labctl up mylab` and `labctl verify mylab`."
    ),
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 wrong usage or spec, 3 verify found a leak or a broken path, "
        "4 verify could not decide, 5 plan found changes (--detailed-exitcode), 6 another labctl is at work, "
        "130 interrupted."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"labctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of labctl as a whole."""
    _ = version


WRITE, RUN, ENTER, HOST = "Write a lab", "Run a lab", "Enter a lab", "This host"
_TREE = {"allow_interspersed_args": False, "ignore_unknown_options": False}

app.command("init", rich_help_panel=WRITE)(spec_commands.init)
app.command("import", rich_help_panel=WRITE)(import_command.import_)
app.command("validate", rich_help_panel=WRITE)(spec_commands.validate)
app.command("plan", rich_help_panel=WRITE)(spec_commands.plan)
app.command("graph", rich_help_panel=WRITE)(spec_commands.graph)
app.command("render", rich_help_panel=WRITE)(spec_commands.render)
app.command("schema", rich_help_panel=WRITE)(spec_commands.schema)
app.command("lock", rich_help_panel=WRITE)(bundle_commands.lock)
app.command("bundle", rich_help_panel=WRITE)(bundle_commands.bundle)
app.command("export", rich_help_panel=WRITE)(bundle_commands.export)
app.command("unbundle", rich_help_panel=WRITE)(bundle_commands.unbundle)

app.command("up", rich_help_panel=RUN)(run_commands.up)
app.command("verify", rich_help_panel=RUN)(verify_commands.verify)
app.command("score", rich_help_panel=RUN)(score_commands.score)
app.command("status", rich_help_panel=RUN)(run_commands.status)
app.command("list", rich_help_panel=RUN)(run_commands.list_)
app.command("down", rich_help_panel=RUN)(run_commands.down)
app.command("destroy", rich_help_panel=RUN)(run_commands.destroy)

app.command("reset", rich_help_panel=RUN)(checkpoint_commands.reset)
app.add_typer(checkpoint_commands.snapshot, name="snapshot", rich_help_panel=RUN)
app.command("seal", rich_help_panel=RUN)(checkpoint_commands.seal)
app.command("unseal", rich_help_panel=RUN)(checkpoint_commands.unseal)

app.add_typer(class_commands.class_, name="class", rich_help_panel=RUN)

app.command("ssh", rich_help_panel=ENTER, context_settings=_TREE)(access_commands.ssh)
app.command("secrets", rich_help_panel=ENTER)(score_commands.secrets)
app.command("submit", rich_help_panel=ENTER)(submit_command.submit)
app.command("exec", rich_help_panel=ENTER, context_settings=_TREE)(access_commands.exec_)
app.command("console", rich_help_panel=ENTER)(access_commands.console)
app.command("logs", rich_help_panel=ENTER)(access_commands.logs)

app.command("doctor", rich_help_panel=HOST)(host_commands.doctor)
app.add_typer(host_commands.image, name="image", rich_help_panel=HOST)
app.add_typer(cache_commands.cache, name="cache", rich_help_panel=HOST)


def narrowed(words: Sequence[str], whole: typer.Typer = app) -> typer.Typer:
    """The command that the first words of a command line name, without all others; ``whole`` where they name none.

    Typer makes every command with all its options at each start, which takes longer than most of them run.
    """
    word = words[0] if words else ""
    one = copy(whole)
    one.registered_commands = [command for command in whole.registered_commands if command.name == word]
    one.registered_groups = [copy(group) for group in whole.registered_groups if group.name == word]
    for group in one.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance = narrowed(words[1:], group.typer_instance)
    return one if one.registered_commands or one.registered_groups else whole
