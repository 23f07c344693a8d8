"""From a path to a document: which file is meant, and whether it is text that may be read at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from labctl.spec.compose import Composer
from labctl.spec.nodes import Mark, Node, locate
from labctl.spec.problems import Finding, Problem, SpecError, dotted, quoted

FILE_NAME = "lab.yaml"
MAX_BYTES = 1 << 20

# Where YAML's parser and this module count a new line.
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A file that is well-formed YAML. ``lines`` are its lines without line breaks."""

    file: Path
    lines: tuple[str, ...]
    root: Node

    def place(self, finding: Finding, root: Node) -> Problem:
        """The finding with its place in the file.

        root: where the finding was made, ``self.root`` or what merging made of it; its values still know their places.
        """
        mark = locate(root, finding.keys, on_key=finding.on_key)
        return Problem(
            self.file,
            mark.line,
            mark.column,
            dotted(finding.keys),
            finding.message,
            allowed=finding.allowed,
            nearest=finding.nearest,
            hint=finding.hint,
            source_line=self.lines[mark.line - 1],
        )


def read(path: Path, what: str = "lab") -> Document:
    """Read a lab file or folder, or a file of another kind. Raises SpecError with every problem that YAML itself has.

    what: the kind of file, for messages.
    """
    file = _file(path)
    text = read_text(file)
    lines = split_lines(text)
    return Document(file, lines, Composer(file, lines, what).compose(text))


def split_lines(text: str) -> tuple[str, ...]:
    """The lines of a file as its problems count them, without line breaks."""
    return tuple(_LINE_BREAK.split(text))


def _file(path: Path) -> Path:
    """The file that a LAB argument means: itself, or the ``lab.yaml`` of a folder."""
    try:
        return path / FILE_NAME if path.is_dir() else path
    except OSError as error:
        _refuse(path, f"this cannot be read: {error.strerror}")


def read_text(file: Path, form: str = "YAML") -> str:
    """The text of a file of at most 1 MiB, without a byte order mark. Raises SpecError where it is no such thing."""
    data = _bytes(file)
    if b"\0" in data:
        _refuse(file, f"this is a binary file, not {form} text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(file, f"this is not UTF-8 text: byte {error.start + 1} cannot be read", hint="Save the file as UTF-8.")
    if bad := _NOT_TEXT.search(text):
        before = _LINE_BREAK.split(text[: bad.start()])
        mark = Mark(len(before), len(before[-1]) + 1)
        _refuse(file, f"the control character {quoted(bad.group())} is not allowed in {form}", mark)
    return text


def _bytes(file: Path) -> bytes:
    """The content, never more than the limit: a size is not believed before the bytes are read."""
    try:
        if not file.exists():
            if file.name == FILE_NAME and file.parent.is_dir():
                _refuse(file, f"there is no {FILE_NAME} in this folder", hint="`labctl init` writes a starter lab.")
            _refuse(file, "there is no such file or folder")
        if not file.is_file():
            _refuse(file, "this is not a regular file")
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        _refuse(file, f"this cannot be read: {error.strerror}")
    if len(data) > MAX_BYTES:
        _refuse(file, "the file is larger than 1 MiB", hint="A lab is a few kilobytes; keep large files beside it.")
    return data


def _refuse(file: Path, message: str, mark: Mark | None = None, *, hint: str = "") -> NoReturn:
    where = mark or Mark(0, 0)
    raise SpecError([Problem(file, where.line, where.column, "", message, hint=hint)])
