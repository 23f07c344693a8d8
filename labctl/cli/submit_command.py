"""``labctl submit``, also as students say it at the door."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.access_commands import split_words
from labctl.cli.options import InstanceOption, JsonOption
from labctl.cli.output import say, say_json
from labctl.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from labctl.lifecycle.locate import Running

_LINE = 4096  # bytes that are read


def submit(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LAB] [FLAG]", help="The flag; read from standard input where it is not here."),
    ] = None,
    instance: InstanceOption = "default",
    as_json: JsonOption = False,
) -> int:
    """Hand in a flag: says whether it is one of this instance's, and notes it for `labctl score`.

    Leave the flag out and it is asked for, so that it stands in no history. Exit code 0: right. 1: wrong.
    """
    from labctl.lifecycle import locate

    lab, rest = split_words(words or [])
    if len(rest) > 1:
        raise UsageError("one flag at a time", hint="Quote it where it has blanks: labctl submit 'FLAG{…}'")
    running = locate.find(lab, instance=instance)
    return hand_in(running, rest[0] if rest else None, prompt=sys.stdin.isatty(), as_json=as_json)


def hand_in(lab: Running, flag: str | None, *, prompt: bool, as_json: bool = False) -> int:
    """Judge a flag, or the line of standard input where there is none, and say how it is. prompt: ask for that line."""
    from labctl.lifecycle import submitting

    if flag is None:
        if prompt:
            sys.stderr.write("Flag: ")
            sys.stderr.flush()
        flag = sys.stdin.buffer.readline(_LINE).decode("utf-8", errors="replace")
    done = submitting.submit(lab, flag)
    if as_json:
        right = bool(done.secret)
        say_json({"right": right, "secret": done.secret or None, "points": done.points, "before": done.before})
    elif done.secret:
        worth = "" if done.points is None else f", {done.points:g} point{'s' * (done.points != 1)}"
        say(f"Right: {done.secret}{worth}{', as before' * done.before}.")
    else:
        say("Wrong.")
    return int(ExitCode.OK if done.secret else ExitCode.ERROR)
