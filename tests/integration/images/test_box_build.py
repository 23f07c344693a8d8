"""Boxes made for real: what is in their disks, that they are made the same way twice, and that Vagrant takes them."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import ImageError
from labctl.events import Event
from labctl.images import BoxFile, Image, list_boxes, publish_box, resolve, resolve_box
from labctl.images.boxes import guest

pytestmark = [pytest.mark.integration, pytest.mark.engines]

ROOT = "8388608"  # where the root partition begins, bytes


@pytest.fixture(scope="session")
def boxes() -> dict[str, BoxFile]:
    """The boxes of debian-12 in the user's own cache."""
    return {provider: resolve_box("debian-12", (), provider) for provider in ("virtualbox", "libvirt")}


@pytest.fixture(scope="session")
def unpacked(boxes: dict[str, BoxFile], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with the files of each box."""
    folders = {}
    for provider, box in boxes.items():
        folders[provider] = tmp_path_factory.mktemp(provider)
        with tarfile.open(box.path) as tar:
            tar.extractall(folders[provider], filter="data")
    return folders


@pytest.fixture(scope="session")
def raw(unpacked: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk of a box as a raw file."""
    target = tmp_path_factory.mktemp("raw") / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", unpacked["libvirt"] / "box.img", target], check=True)
    return target


def _debugfs(disk: Path, command: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", command, f"{disk}?offset={ROOT}"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_both_boxes_hold_the_same_disk(unpacked: dict[str, Path]) -> None:
    disks = unpacked["virtualbox"] / "box-disk001.vmdk", unpacked["libvirt"] / "box.img"
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", disks[1]], check=True)
    subprocess.run(["qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", *disks], check=True, capture_output=True)


def test_the_root_file_system_is_sound_and_has_the_account(raw: Path) -> None:
    subprocess.run(["e2fsck", "-fn", f"{raw}?offset={ROOT}"], check=True, capture_output=True)
    assert _debugfs(raw, "cat /etc/passwd").endswith("\nvagrant:x:1000:1000::/home/vagrant:/bin/bash\n")
    assert _debugfs(raw, "cat /etc/shadow").endswith("\nvagrant:*:::::::\n")
    shadow = _debugfs(raw, "stat /etc/shadow")
    assert "Mode:  0640" in shadow
    assert "User:     0   Group:    42" in shadow
    assert _debugfs(raw, "cat /home/vagrant/.ssh/authorized_keys") == guest.KEY.read_text()
    assert "Mode:  0440" in _debugfs(raw, "stat /etc/sudoers.d/vagrant")
    assert "Mode:  04755" in _debugfs(raw, "stat /usr/bin/sudo")


def test_nothing_that_must_differ_between_machines_is_in_a_box(raw: Path) -> None:
    assert "ssh_host" not in _debugfs(raw, "ls /etc/ssh")
    assert _debugfs(raw, "cat /etc/machine-id") == ""


def test_images_of_the_qemu_provider_have_no_such_account(debian: Image, tmp_path: Path) -> None:
    for image in (debian, resolve("debian-12", guest.PACKAGES)):
        disk = tmp_path / "image.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image.disk, disk], check=True)
        done = subprocess.run(["debugfs", "-R", "cat /etc/passwd", disk], capture_output=True, text=True, check=True)
        assert "root:" in done.stdout
        assert "vagrant" not in done.stdout
        files = subprocess.run(["debugfs", "-R", "ls /home", disk], capture_output=True, text=True, check=True)
        assert "vagrant" not in files.stdout


def test_a_box_says_what_vagrant_must_know(unpacked: dict[str, Path], raw: Path) -> None:
    metadata = json.loads((unpacked["libvirt"] / "metadata.json").read_text())
    assert (metadata["provider"], metadata["format"]) == ("libvirt", "qcow2")
    assert raw.stat().st_size <= metadata["virtual_size"] * 10**9
    for folder in unpacked.values():
        subprocess.run(["ruby", "-c", folder / "Vagrantfile"], check=True, capture_output=True)


@pytest.fixture
def cache_with_boxes(boxes: dict[str, BoxFile], empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own with the boxes and the images they are made of."""
    store = boxes["virtualbox"].path.parent.parent
    for entry in store.glob("debian-12-*"):
        shutil.copytree(entry, empty_cache / "images" / entry.name, copy_function=_link)
    return empty_cache


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_a_damaged_box_is_noticed_and_made_again_with_the_same_bytes(
    provider: str, cache_with_boxes: Path, boxes: dict[str, BoxFile]
) -> None:
    whole = boxes[provider]
    damaged = cache_with_boxes / "images" / whole.path.parent.name / whole.path.name
    damaged.unlink()  # it is a second name of the user's own file
    damaged.write_bytes(b"half of it")
    assert [box.provider for box in list_boxes() if box.version == whole.version] == (
        ["libvirt"] if provider == "virtualbox" else ["virtualbox"]
    )
    heard: list[Event] = []
    again = resolve_box("debian-12", (), provider, heard.append)
    assert any(event.status == "warning" and "damaged" in event.message for event in heard)
    assert cache_with_boxes in again.path.parents
    assert again == replace(whole, path=again.path)
    assert resolve_box("debian-12", (), provider, heard.append) == again
    assert [event.status for event in heard].count("done") == 1


def test_an_image_that_is_not_built_from_packages_makes_no_box(debian: Image, empty_cache: Path) -> None:
    from labctl.images import import_file

    import_file("mine", debian.disk)
    with pytest.raises(ImageError, match="not built from packages"):
        resolve_box("mine", (), "libvirt")


def test_the_command_writes_a_folder_and_lists_what_it_made(boxes: dict[str, BoxFile], tmp_path: Path) -> None:
    def labctl(*arguments: str) -> str:
        command = [sys.executable, "-m", "labctl", "image", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    folder = tmp_path / "a folder"
    box = boxes["libvirt"]
    said = labctl("box", "debian-12", "--provider", "libvirt", "-o", str(folder))
    assert said.splitlines()[0].split() == [
        *(box.name, box.version, "libvirt"),
        *(str(box.size >> 20), "MiB", box.sha256[:12], str(box.path)),
    ]
    assert said.splitlines()[1] == f"vagrant box add '{folder}/metadata.json' --provider libvirt"
    assert sorted(path.suffix for path in folder.iterdir()) == [".box", ".json"]
    listed = json.loads(labctl("list", "--boxes", "--json"))
    assert {"virtualbox", "libvirt"} <= {one["provider"] for one in listed if one["name"] == box.name}
    assert box.sha256[:12] in labctl("list", "--boxes")


class Vagrant:
    """Vagrant with a home of its own and no way to ask anybody else for a box."""

    def __init__(self, home: Path) -> None:
        self.home = home
        program = shutil.which("vagrant")
        assert program, "Vagrant is not installed; make setup installs it (Debian: apt install vagrant)"
        self.program = program

    def __call__(self, *arguments: str) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VAGRANT_")}
        environment = {**kept, "VAGRANT_HOME": str(self.home), "VAGRANT_CHECKPOINT_DISABLE": "1"}
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.home.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def vagrant(tmp_path: Path) -> Vagrant:
    return Vagrant(tmp_path / "vagrant home")


def test_vagrant_takes_boxes_from_a_folder(boxes: dict[str, BoxFile], tmp_path: Path, vagrant: Vagrant) -> None:
    folder = tmp_path / "a folder"
    for box in boxes.values():
        catalogue = publish_box(box, folder)
    for provider in boxes:
        vagrant("box", "add", str(catalogue), "--provider", provider)
    listed = vagrant("box", "list")
    version = boxes["libvirt"].version
    assert [line.split("(")[0].strip() for line in listed.splitlines()] == ["labctl/debian-12"] * 2
    assert all(f"{provider}, {version})" in listed for provider in boxes)
    added = vagrant.home / "boxes/labctl-VAGRANTSLASH-debian-12" / version
    assert sorted(path.name for path in (added / "virtualbox").iterdir()) == [
        "Vagrantfile",
        "box-disk001.vmdk",
        "box.ovf",
        "metadata.json",
    ]


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which a plain web server shows it, on loopback."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_vagrant_takes_boxes_from_a_plain_web_server_and_checks_them(
    boxes: dict[str, BoxFile], web_server: tuple[Path, str], vagrant: Vagrant
) -> None:
    folder, address = web_server
    publish_box(boxes["libvirt"], folder, address)
    box = next(folder.glob("*.box"))
    whole = box.read_bytes()
    box.write_bytes(whole[:-1024])
    with pytest.raises(AssertionError, match="checksum"):
        vagrant("box", "add", f"{address}/metadata.json")
    box.write_bytes(whole)
    vagrant("box", "add", "--clean", f"{address}/metadata.json")
    assert "labctl/debian-12" in vagrant("box", "list")
