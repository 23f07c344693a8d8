"""The lock file as text: the same bytes for the same images, read back as strictly as a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.images.pinning import Pin, differences
from labctl.lifecycle import lockfile
from labctl.lifecycle.lockfile import Lock
from labctl.providers import PROVIDERS
from labctl.spec.problems import SpecError

pytestmark = pytest.mark.unit

A, B = "a" * 64, "0123456789" * 6 + "1234"
PLAIN = Pin("debian-12", B, versions={"apt": "2.6.2", "zlib1g": "1:1.2", "null": "1.0"})
DERIVED = Pin("debian-12", A, ("curl", "nginx-light"))
FETCHED = Pin("kali", A, url="https://example.org/kali.qcow2", sha256=B)

TEXT = f"""\
# Written by `labctl lock`: the images that this lab starts from, pinned. Commit this file; do not edit it.
# `labctl up --locked` starts from these and from nothing else. `labctl lock --update` pins what there is now.
version: 1
providers:
  fake: []
  qemu:
    - image: debian-12
      digest: "{B}"
      versions:
        apt: "2.6.2"
        "null": "1.0"
        zlib1g: "1:1.2"
    - image: debian-12
      packages: [curl, nginx-light]
      digest: "{A}"
    - image: kali
      digest: "{A}"
      url: "https://example.org/kali.qcow2"
      sha256: "{B}"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "lab.lock.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> list[tuple[int, str]]:
    with pytest.raises(SpecError) as caught:
        lockfile.read(written(folder, text))
    return [(problem.line, problem.message) for problem in caught.value.problems]


def test_the_text_is_the_one_that_was_agreed_and_says_who_writes_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lab.lock.yaml").with_pins("qemu", (FETCHED, DERIVED, PLAIN)).with_pins("fake", ())
    assert lock.text() == TEXT


def test_what_is_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    lock = lockfile.read(written(tmp_path, TEXT))
    assert lock is not None
    assert lock.providers == {"fake": (), "qemu": (PLAIN, DERIVED, FETCHED)}
    assert lock.text() == TEXT
    assert lock.find("qemu", "debian-12", ("curl", "nginx-light")) == DERIVED
    assert lock.find("qemu", "debian-12", ("curl",)) is None
    assert lock.find("libvirt", "debian-12", ()) is None


def test_a_lab_without_a_lock_file_has_none(tmp_path: Path) -> None:
    assert lockfile.read(tmp_path / "lab.lock.yaml") is None
    assert lockfile.path_of(tmp_path / "lab.yaml") == tmp_path / "lab.lock.yaml"
    assert lockfile.path_of(tmp_path / "other.yml") == tmp_path / "other.lock.yaml"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("version: 1\n", "version: 2\n", 3, "2 is not a version of the lock file"),
        ("version: 1\n", "", 3, "the key version is missing"),
        ("  qemu:", "  qmeu:", 6, 'unknown provider "qmeu"'),
        (f'digest: "{B}"', f'digest: "{B[:-1]}"', 8, "is no digest"),
        (f'digest: "{B}"', f"digest: {B}", 8, "this number is too long"),
        (f'      digest: "{B}"\n', "", 7, "the key digest is missing"),
        ("image: kali", "image: ../kali", 16, '"../kali" is not right here'),
        ("      packages: [curl, nginx-light]\n", "", 13, "debian-12 is there twice"),
        ("[curl, nginx-light]", "[curl, -oProxy=x]", 14, "cannot be a package's name"),
        ("https://example.org/kali.qcow2", "ftp://example.org/kali", 18, "is no place to fetch from"),
        ("example.org/kali", "example.org/\\e[2J", 18, "is no place to fetch from"),
        (f'      sha256: "{B}"\n', "", 16, "url without sha256 pins nothing"),
        ('"2.6.2"', "2.6", 10, "is no package's version"),
        ("      url:", "      uri:", 18, 'unknown key "uri"'),
        ("image: kali", "image: kali\n      image: kali", 17, 'the key "image" is there twice'),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in TEXT
    found = problems(tmp_path, TEXT.replace(old, new, 1))
    assert any(said in message and at == line for at, message in found), found


def test_all_mistakes_are_told_at_once_with_what_is_allowed(tmp_path: Path) -> None:
    text = TEXT.replace("  qemu:", "  qmeu:").replace("image: kali", "image: KALI")
    with pytest.raises(SpecError) as caught:
        lockfile.read(written(tmp_path, text))
    assert "did you mean qemu?" in caught.value.details
    assert "hint: labctl writes this file" in caught.value.details
    assert f"allowed: {', '.join(PROVIDERS)}" in caught.value.details
    assert len(caught.value.problems) == 2


def test_differences_name_each_package_that_moved() -> None:
    old = Pin("x", A, versions={"apt": "2.6.1", "curl": "7", "same": "1"})
    new = Pin("x", B, versions={"apt": "2.6.2", "nginx": "1.22", "same": "1"})
    assert differences(old, new) == ("apt 2.6.1 → 2.6.2", "curl 7 → absent", "nginx absent → 1.22")
    assert differences(old, Pin("x", B)) == ()


def test_an_image_meets_a_pin_by_its_content_or_by_the_file_it_was_made_from() -> None:
    assert Pin("kali", A).meets(Pin("kali", A))
    assert Pin("kali", A, sha256=B).meets(Pin("kali", B, sha256=B))
    assert not Pin("kali", A).meets(Pin("kali", B))
    assert not Pin("kali", A, sha256="").meets(Pin("kali", B, sha256=""))
