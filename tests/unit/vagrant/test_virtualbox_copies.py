"""The note of copies that Vagrant was about to make: it is read back, and only names of such copies count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labctl.providers.vagrant.virtualbox_copies import Copy, read

pytestmark = pytest.mark.unit


def test_names_that_vagrant_makes_up_are_read(tmp_path: Path) -> None:
    note = tmp_path / "note"
    assert read(note) == ()
    lines = [["debian 12.1_1764000000000_7", "/boxes/one/master_id"], ["temp_clone_1764000000001_99999", None]]
    note.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '["temp_clone_17640000')
    assert read(note) == (
        Copy("debian 12.1_1764000000000_7", "/boxes/one/master_id"),
        Copy("temp_clone_1764000000001_99999", ""),
    )


@pytest.mark.parametrize(
    "line",
    [
        '["../../home_1764000000000_7", null]',
        '["..", null]',
        '["", null]',
        '["labctl.lab.default.one", null]',
        '["a\\nb_1764000000000_7", null]',
        '[["temp_clone_1764000000000_7"], null]',
        '{"name": "temp_clone_1764000000000_7"}',
        "7",
        "",
    ],
)
def test_nothing_else_is_taken_for_a_copy(tmp_path: Path, line: str) -> None:
    """A box chooses the first part of its copy's name, which also names a folder."""
    note = tmp_path / "note"
    note.write_text(f"{line}\n")
    assert read(note) == ()
