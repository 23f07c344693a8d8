"""Vagrant boxes in lock files and bundles: pinned by the box file, taken only where labctl could have made them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from labctl.errors import ImageError, UsageError
from labctl.images import list_boxes, store
from labctl.lifecycle import bundle, converge, locate, pins
from labctl.lifecycle.locate import Draft
from labctl.lifecycle.unbundle import unbundle
from tests.support.forge import Forgery
from tests.support.store import put, put_box

pytestmark = pytest.mark.integration

LAB = """\
version: 1
name: boxed
networks: {lan: {subnet: 10.9.0.0/24}}
machines:
  web: {image: debian-12, networks: {lan: auto}}
"""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "boxed"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    raw = tmp_path / "raw"
    raw.write_bytes(b"root".ljust(1 << 20, b"\0"))
    put()
    put_box("debian-12", "virtualbox", raw)
    return folder


def draft(lab: Path) -> Draft:
    return locate.draft(lab, provider="virtualbox")


def test_a_box_is_pinned_by_its_file_and_knows_the_packages_of_its_image(lab: Path) -> None:
    (pin,) = pins.lock(draft(lab)).pins
    (box,) = list_boxes()
    assert (pin.image, pin.digest, pin.packages) == ("debian-12", box.sha256, ())
    assert pin.versions == {"sudo": "1.9.13"}
    assert [standing.state for standing in pins.check(draft(lab))] == ["locked"]


def test_a_box_comes_out_of_a_bundle_and_is_what_up_starts_from(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = bundle.bundle(draft(lab), tmp_path / "boxed.labz")
    (box,) = list_boxes()
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "room-cache"))
    out = unbundle(done.file, tmp_path / "room")
    assert out.added == ("debian-12",)
    choice = pins.choose(draft(tmp_path / "room"), only_locked=True)
    images = converge.boot_images(draft(tmp_path / "room").plan, "virtualbox", chosen=choice.images)
    assert (images["web"].digest, images["web"].user) == (box.sha256, "vagrant")
    assert images["web"].disk.name == "vagrant.box"
    # The same file, so that whoever bundles it again gets the same.
    assert images["web"].disk.read_bytes() == box.path.read_bytes()


def test_a_box_with_a_program_of_somebody_elses_is_refused(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = bundle.bundle(draft(lab), tmp_path / "boxed.labz")
    forgery = Forgery.of(done.file)
    old = forgery.table["images"][0]["files"][0]["sha256"]
    forgery.replace(f"images/{old}", _with_program(forgery.members[forgery.index(f"images/{old}")][1]))
    new = forgery.table["images"][0]["files"][0]["sha256"]
    lock = forgery.members[forgery.index("lab/lab.lock.yaml")][1]
    forgery.replace("lab/lab.lock.yaml", lock.replace(old.encode(), new.encode()))
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "room-cache"))
    with pytest.raises(ImageError, match="its Vagrantfile, which Vagrant would run on this host"):
        unbundle(forgery.write(tmp_path / "evil.labz"), tmp_path / "room")
    assert not (tmp_path / "room").exists()
    assert not store.Store().entries()


def test_what_vagrant_fetches_by_name_can_be_neither_locked_nor_bundled(lab: Path, tmp_path: Path) -> None:
    (lab / "lab.yaml").write_text(LAB.replace("image: debian-12", "image: debian/bookworm64"))
    done = pins.lock(draft(lab))
    assert (done.pins, done.unpinned) == ((), ("debian/bookworm64",))
    with pytest.raises(UsageError, match="nothing pins debian/bookworm64"):
        converge.up(draft(lab), only_locked=True)
    with pytest.raises(UsageError, match="which Vagrant fetches by name"):
        bundle.bundle(draft(lab), tmp_path / "boxed.labz")


def _with_program(box: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(box)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            content = file.read()
            if member.name == "Vagrantfile":
                content += b"\nsystem('touch /tmp/owned')\n"
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return out.getvalue()
