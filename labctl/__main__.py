"""The one boundary: starts the command line and turns every ending into words and an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from labctl.errors import ExitCode, LabctlError
from labctl.host.bugs import as_bug


def main() -> None:
    """Entry point of the ``labctl`` command."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and give its exit code; nothing escapes as a traceback."""
    interrupted = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread: somebody embeds us and handles signals itself
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, interrupt)
    try:
        code = _dispatch(argv)
        if interrupted.is_set():  # Typer turns an interrupt into an exit code that a guest's command may have too
            raise KeyboardInterrupt
        return code
    except LabctlError as error:
        _say(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        destroy = "labctl class destroy" if "class" in argv[:1] else "labctl destroy"
        remove = f", or `{destroy}` to remove what exists" if "up" in argv else ""
        print(f"labctl: interrupted; repeat the command to go on{remove}", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`labctl list | head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except Exception as error:  # the last resort: a bug becomes one line and a file to report
        found = as_bug(error)
        _say(found)
        return int(found.exit_code)


def _dispatch(argv: list[str]) -> int:
    from labctl.cli.app import narrowed  # here, so that an import error reaches the boundary too

    try:
        result = narrowed(argv)(args=argv, prog_name="labctl", standalone_mode=False)
    except Exception as error:  # Typer's usage errors print themselves; which module defines them differs by version
        show: Any = getattr(error, "show", None)
        if show is None:
            if type(error).__name__ == "Abort":
                raise KeyboardInterrupt from error
            raise
        show()
        return int(ExitCode.USAGE)
    return result if isinstance(result, int) else int(ExitCode.OK)


def _say(error: LabctlError) -> None:
    text = [f"labctl: {error.brief}"]
    text += [f"  {line}" for line in error.details.splitlines()]
    if error.hint:
        text.append(f"  hint: {error.hint}")
    if error.reference:
        text.append(f"  see: {error.reference}")
    print("\n".join(text), file=sys.stderr)


if __name__ == "__main__":
    main()
