"""The one boundary: a bug of ours is a line, an exit code and a file to send, also where no file can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from labctl.__main__ import run
from labctl.errors import ExitCode
from labctl.lifecycle import inspect

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("oops")

    monkeypatch.setattr(inspect, "listing", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_bug_is_a_line_with_the_file_of_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == ExitCode.BUG
    (file,) = tmp_path.glob("labctl-bug-*/traceback.txt")
    error = capsys.readouterr().err
    assert error.startswith("labctl: this is a bug in labctl: ValueError: oops\n")
    assert str(file) in error
    assert "in broken" in file.read_text(encoding="utf-8")


def test_where_no_file_can_be_written_the_traceback_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert run(["list"]) == ExitCode.BUG
    error = capsys.readouterr().err
    assert "labctl: this is a bug in labctl: ValueError: oops\n" in error
    assert "in broken" in error
