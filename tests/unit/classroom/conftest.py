"""A class of notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.classes import Room


@pytest.fixture
def room(tmp_path: Path) -> Room:
    found = Room(tmp_path)
    found.write()
    return found
