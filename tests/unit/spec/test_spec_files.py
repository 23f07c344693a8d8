"""Files of a lab are read from its folder and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.spec.files import MAX_FILE_BYTES, read_lab_file

pytestmark = pytest.mark.unit


def test_a_file_and_a_link_inside_the_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a")
    assert read_lab_file(tmp_path, "a") == read_lab_file(tmp_path, "link") == b"x"


@pytest.mark.parametrize("name", ["../secret", "out/secret", "missing", "folder"])
def test_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    lab = tmp_path / "lab"
    (lab / "folder").mkdir(parents=True)
    (lab / "out").symlink_to("..")
    (tmp_path / "secret").write_text("x")
    with pytest.raises(UsageError):
        read_lab_file(lab, name)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UsageError, match="larger than 64 MiB"):
        read_lab_file(tmp_path, "a")
