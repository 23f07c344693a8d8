"""A class's lines in an authorized_keys file, between two marks; all other lines stay as they are.

Where they were put is noted with labctl's state, so that ``class up`` renews them there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from labctl.errors import HostError
from labctl.host.files import explained, private_folder, write_atomic, write_json
from labctl.host.folders import state_root


def usual() -> Path:
    """Where this account's SSH server looks for keys."""
    return Path.home() / ".ssh" / "authorized_keys"


def put(name: str, lines: Sequence[str], file: Path) -> None:
    """Let these be the lines of a class, at the place of those that it had, else at the end. Raises HostError."""
    file, before = file.absolute(), where(name)
    if before is not None and before != file:
        _write(before, name, [])
    private_folder(_note(name).parent)
    write_json(_note(name), {"authorized_keys": str(file)}, mode=0o600)  # first: what is not noted is never renewed
    _write(file, name, [_begin(name), *lines, _end(name)])


def remove(name: str, file: Path) -> None:
    """Take the lines of a class out. Raises HostError."""
    _write(file, name, [])
    if where(name) == file.absolute():
        _note(name).unlink(missing_ok=True)


def where(name: str) -> Path | None:
    """The file that has a class's lines, None where none was given any. Raises HostError."""
    try:
        return Path(json.loads(_note(name).read_text(encoding="utf-8"))["authorized_keys"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(
            f"{_note(name)} cannot be read", hint="Remove it; then: class authorized-keys --install"
        ) from error


def _note(name: str) -> Path:
    return state_root() / ".classes" / f"{name}.json"


def _write(file: Path, name: str, block: Sequence[str]) -> None:
    before = _read(file)
    bare = [line.rstrip("\r\n") for line in before]
    begins = [number for number, line in enumerate(bare) if line == _begin(name)]
    ends = [number for number, line in enumerate(bare) if line == _end(name)]
    match begins, ends:
        case [], []:
            first = after = len(before)
        case [first], [last] if first < last:
            after = last + 1
        case _:
            raise HostError(
                f"{file} has not one beginning and one end of the lines of {name}",
                hint=f"Nothing was changed. Take out what is from {_begin(name)!r} to {_end(name)!r} by hand.",
            )
    head = "".join(before[:first])
    if head and not head.endswith("\n") and block:
        head += "\n"
    text = "".join([head, *(f"{line}\n" for line in block), *before[after:]])
    if text == "".join(before):
        return
    try:
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise explained(file, error) from error
    write_atomic(file.resolve(), text.encode("utf-8", errors="surrogateescape"), mode=mode)


def _read(file: Path) -> list[str]:
    """Lines with their ends; whatever bytes are in them, writing them gives the same ones."""
    try:
        return file.read_bytes().decode("utf-8", errors="surrogateescape").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"{file} cannot be read: {error.strerror}") from error


def _begin(name: str) -> str:
    return f"# begin: students of the class {name}, written by labctl"


def _end(name: str) -> str:
    return f"# end: students of the class {name}"
