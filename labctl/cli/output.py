"""How results look: data on standard output, progress and remarks on standard error, colours only where wanted."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from labctl.errors import UsageError
from labctl.events import Event, Listener


def say(text: str = "") -> None:
    """A line of the result."""
    sys.stdout.write(f"{text}\n")


def remark(text: str) -> None:
    """A line beside the result, for people."""
    sys.stderr.write(f"{text}\n")


def say_json(value: Any) -> None:
    """A result for scripts; frozen records become objects."""
    say(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Path):
        return str(value)
    return str(value)


def agreed(question: str, yes: bool) -> bool:
    """Whether the user agrees to what cannot be undone. yes: they did so on the command line.

    Raises UsageError where there is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("this asks before it throws anything away, and there is nobody to ask", hint="Add --yes.")
    import typer

    if typer.confirm(question):
        return True
    say("Nothing was done.")
    return False


def size(value: int | None) -> str:
    """Bytes for people, never less than they are; ``-`` where nobody knows."""
    if value is None:
        return "-"
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if value >= 10 * unit:
            return f"{-(-value // unit)} {name}"
    return f"{-(-value // (1 << 10))} KiB"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns. Cells are plain text: nothing in them is taken for markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # piped output must not be folded to a screen that is not there
    console.print(grid)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows work on standard error.

    One line per finished step, and on a terminal a spinner per running one.
    """
    if quiet:
        yield lambda _event: None
        return
    shown: list[_Shown] = []

    def listen(event: Event) -> None:
        if not shown:  # rich takes a while to import: not for a command that has nothing to tell
            shown.append(_Shown())
        shown[0].tell(event)

    try:
        yield listen
    finally:
        for one in shown:
            one.end()


class _Shown:
    """Progress on the screen."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False)
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._live.start()

    def tell(self, event: Event) -> None:
        key = (event.subject, event.step)
        label = f"{event.subject or 'lab':<16} {event.step}"
        if event.status in ("started", "progress"):
            if key not in self._tasks:
                self._tasks[key] = self._live.add_task(label, total=None)
            if event.message:
                self._live.update(self._tasks[key], description=f"{label}  {event.message}")
            return
        if key in self._tasks:
            self._live.remove_task(self._tasks.pop(key))
        time = f"{event.seconds:6.1f} s" if event.seconds is not None else " " * 8
        mark = {"done": "✓", "skipped": "-", "failed": "✗", "warning": "!"}[event.status]
        line = f"{mark} {label:<36} {time}  {event.message}".rstrip()
        self._console.print(line, markup=False, soft_wrap=True)

    def end(self) -> None:
        self._live.stop()
