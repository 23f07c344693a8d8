"""A folder of boxes as a catalogue for Vagrant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from labctl.errors import ImageError
from labctl.images import api, list_boxes, list_images, resolve_box
from labctl.images.boxes import registry
from labctl.images.boxes.model import FILE, BoxFile, box_file
from labctl.images.store import Store, Stored

pytestmark = pytest.mark.unit


def _box(tmp_path: Path, provider: str = "virtualbox", version: str = "20261123.51859.1", content: str = "") -> BoxFile:
    path = tmp_path / f"{provider}-{version}"
    path.write_text(content or f"{provider} {version}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return BoxFile("debian-12", "labctl/debian-12", version, provider, path, sha256, path.stat().st_size)


def _catalogue(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "metadata.json").read_text()))


def test_a_folder_names_its_boxes_by_address_and_digest(tmp_path: Path) -> None:
    box, folder = _box(tmp_path), tmp_path / "a folder"
    assert registry.publish(box, folder, "Debian 12") == folder / "metadata.json"
    copy = folder / "labctl-debian-12-20261123.51859.1-virtualbox.box"
    assert copy.read_bytes() == box.path.read_bytes()
    assert _catalogue(folder) == {
        "name": "labctl/debian-12",
        "description": "Debian 12",
        "versions": [
            {
                "version": "20261123.51859.1",
                "providers": [
                    {
                        "name": "virtualbox",
                        "url": copy.as_uri(),
                        "checksum_type": "sha256",
                        "checksum": box.sha256,
                        "architecture": "amd64",
                        "default_architecture": True,
                    }
                ],
            }
        ],
    }
    assert sorted(path.name for path in folder.iterdir()) == [copy.name, "metadata.json"]


def test_versions_and_providers_stand_side_by_side_and_one_of_a_kind_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    for provider, version in (
        ("virtualbox", "20261123.9.1"),
        ("virtualbox", "20261123.51859.1"),
        ("libvirt", "20261123.51859.1"),
    ):
        registry.publish(_box(tmp_path, provider, version), folder, "", "https://boxes.example/lab/")
    again = _box(tmp_path, content="changed")
    registry.publish(again, folder, "", "https://boxes.example/lab/")
    versions = _catalogue(folder)["versions"]
    assert isinstance(versions, list)
    assert [entry["version"] for entry in versions] == ["20261123.9.1", "20261123.51859.1"]
    assert [provider["name"] for provider in versions[1]["providers"]] == ["libvirt", "virtualbox"]
    assert versions[1]["providers"][1]["checksum"] == again.sha256
    assert versions[1]["providers"][1]["url"] == (
        "https://boxes.example/lab/labctl-debian-12-20261123.51859.1-virtualbox.box"
    )


@pytest.mark.parametrize("there", ["no JSON", "[]", '{"name": "other/box", "versions": []}', '{"name": 1}'])
def test_a_file_that_is_not_this_box_s_catalogue_stays_as_it_is(tmp_path: Path, there: str) -> None:
    (tmp_path / "metadata.json").write_text(there)
    with pytest.raises(ImageError, match="is in the way"):
        registry.publish(_box(tmp_path), tmp_path, "")
    assert (tmp_path / "metadata.json").read_text() == there
    assert not list(tmp_path.glob("*.box"))


@pytest.mark.parametrize("url", ["boxes", "ftp://boxes.example/", "https://"])
def test_an_address_that_vagrant_could_not_fetch_from_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ImageError, match="no place to fetch from"):
        api.publish_box(_box(tmp_path), tmp_path / "boxes", url)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """A box in a cache that has nothing else."""
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))
    store = Store()
    details = {"box": "labctl/debian-12", "version": "1.2.3", "provider": "libvirt"}
    with store.draft("debian-12") as draft:
        (draft / FILE).write_bytes(b"box")
        return store.keep(draft, Stored(Path(), "debian-12", "k" * 64, "box", 1.0, "vagrant", details=details))


def test_a_cached_box_is_listed_as_a_box_and_not_as_an_image(stored: Stored) -> None:
    assert list_boxes() == (box_file(stored),)
    assert box_file(stored).sha256 == hashlib.sha256(b"box").hexdigest()
    assert box_file(stored).user == "vagrant"
    debian = next(status for status in list_images() if status.name == "debian-12")
    assert (debian.cached, debian.size, debian.digest) == (False, 0, "")


def test_a_damaged_box_is_not_listed(stored: Stored) -> None:
    (stored.folder / FILE).write_bytes(b"something else")
    assert list_boxes() == ()


def test_a_box_in_the_form_of_an_image_is_its_file(stored: Stored) -> None:
    image = box_file(stored).image()
    assert (image.name, image.disk.name, image.user) == ("debian-12", FILE, "vagrant")
    assert image.digest == box_file(stored).sha256
    assert image.kernel is None


@pytest.mark.parametrize(
    ("name", "provider", "said"),
    [
        ("debian-12", "qemu", "there are no boxes for qemu"),
        ("debain-12", "libvirt", "there is no image called debain-12"),
    ],
)
def test_what_no_box_can_be_made_for_is_named(
    name: str, provider: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path))
    with pytest.raises(ImageError) as caught:
        resolve_box(name, (), provider)
    assert said in str(caught.value).replace('"', "").replace("'", "")
