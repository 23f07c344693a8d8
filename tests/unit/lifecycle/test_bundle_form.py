"""The bytes of a bundle: they stay readable for as long as there are bundles."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from labctl.lifecycle import archive
from labctl.lifecycle.manifest import LabFile, Manifest, read

pytestmark = pytest.mark.unit

CONTENT = b"version: 1\n"
FILE = LabFile("lab.yaml", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_a_table_of_contents_is_read_back_as_it_was() -> None:
    table = Manifest("tiny", "qemu", (FILE,), ())
    assert read(table.to_bytes()) == table


@pytest.mark.parametrize(
    ("name", "size", "digest"),
    [
        ("manifest.json", 100, "e510805120e3"),
        ("lab/" + "x" * 200, 1, "e221923efa51"),
        ("images/" + "0" * 64, 9 << 30, "7aa3a12c61c1"),
    ],
)
def test_headers_are_the_ones_that_every_bundle_so_far_has(name: str, size: int, digest: str) -> None:
    assert hashlib.sha256(archive._header(name, size)).hexdigest()[:12] == digest


def test_other_programs_can_look_into_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_bytes(CONTENT)
    long = LabFile("x" * 150 + "/" + "y" * 100, len(CONTENT), FILE.sha256, executable=True)
    table = Manifest("tiny", "qemu", (FILE, long), ())
    archive.write(tmp_path / "x.labz", table, [tmp_path / "lab.yaml"] * 2)
    with tarfile.open(tmp_path / "x.labz") as tar:
        assert tar.getnames() == ["manifest.json", "lab/lab.yaml", f"lab/{long.path}"]
    with archive.reading(tmp_path / "x.labz") as reader:
        for blob in reader.contents.blobs():
            reader.content(blob, None)
        reader.end()
