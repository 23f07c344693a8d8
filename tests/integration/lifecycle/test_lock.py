"""A lab held to its lock file: with the fake engine, a real store, and a lock file beside a lab."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.errors import ImageError, LabctlError, UsageError
from labctl.events import Event
from labctl.host.folders import state_root
from labctl.images import store
from labctl.lifecycle import converge, locate, lockfile, pins
from labctl.lifecycle.locate import Draft
from labctl.providers import PROVIDERS
from labctl.providers.base import Job
from labctl.providers.fake.provider import FakeProvider
from tests.support.store import put, write_lab

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of the test's own, and the fake engine with images such as qemu's."""
    monkeypatch.setenv("LABCTL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setitem(PROVIDERS, "fake", dataclasses.replace(PROVIDERS["fake"], images="qemu"))  # type: ignore[arg-type]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    put(versions={"nginx": "1.22.1-9", "curl": "7.88.1-10"})
    put(packages=["curl", "nginx-light"], content=b"derived", versions={"nginx": "1.22.1-9", "curl": "7.88.1-10"})
    return write_lab(tmp_path / "tiny")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What the engine was told to do."""
    told: list[Job] = []
    do = FakeProvider.up

    def up(self: FakeProvider, job: Job) -> None:
        told.append(job)
        do(self, job)

    monkeypatch.setattr(FakeProvider, "up", up)
    return told


def draft(lab: Path) -> Draft:
    return locate.draft(lab, provider="fake")


def text_of(lab: Path) -> str:
    return (lab / "lab.lock.yaml").read_text(encoding="utf-8")


def test_lock_pins_plain_and_derived_images_once_each(lab: Path) -> None:
    done = pins.lock(draft(lab))
    assert [pin.title for pin in done.pins] == ["debian-12", "debian-12 with curl, nginx-light"]
    assert done.changed == ("debian-12", "debian-12 with curl, nginx-light")
    lock = lockfile.read(lab / "lab.lock.yaml")
    assert lock is not None and lock.providers["fake"] == done.pins
    assert done.pins[0].versions == {"nginx": "1.22.1-9", "curl": "7.88.1-10"}


def test_lock_says_the_same_each_time_and_keeps_other_providers(lab: Path) -> None:
    pins.lock(draft(lab))
    own = text_of(lab)
    other = own + '  libvirt:\n    - image: debian-12\n      digest: "' + "d" * 64 + '"\n'
    (lab / "lab.lock.yaml").write_text(other)
    assert pins.lock(draft(lab)).changed == ()
    assert text_of(lab) == other
    put(content=b"newer")
    put(packages=["curl", "nginx-light"], content=b"newer derived")
    assert pins.lock(draft(lab)).changed == ()
    assert text_of(lab) == other
    assert len(pins.lock(draft(lab), update=True).changed) == 2
    assert "d" * 64 in text_of(lab)
    assert text_of(lab) != other


def test_check_tells_how_each_image_stands_and_writes_nothing(lab: Path) -> None:
    with pytest.raises(UsageError, match="there is no lock file"):
        pins.check(draft(lab))
    pins.lock(draft(lab))
    before = text_of(lab)
    assert [s.state for s in pins.check(draft(lab))] == ["locked", "locked"]
    put(content=b"newer", versions={"nginx": "1.22.1-9", "curl": "8.0"})
    first, second = pins.check(draft(lab))
    assert first.state == "differs"
    assert "  curl 7.88.1-10 → 8.0" in first.lines()
    # what is derived from the newer image is another image, and was not built yet
    assert second.state == "locked"
    spec = (lab / "lab.yaml").read_text()
    (lab / "lab.yaml").write_text(spec.replace("nginx-light, curl", "nginx-light"))
    assert [s.state for s in pins.check(draft(lab))][1:] == ["missing", "unused"]
    assert text_of(lab) == before


def test_check_without_the_images_has_nothing_to_say_against_the_file(lab: Path, tmp_path: Path) -> None:
    pins.lock(draft(lab))
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    assert [s.state for s in pins.check(draft(lab))] == ["not here", "not here"]
    assert not (tmp_path / "cache/images").exists()


def test_up_locked_starts_from_the_pinned_images_though_there_are_newer_ones(lab: Path, jobs: list[Job]) -> None:
    pins.lock(draft(lab))
    pinned = {pin.title: pin.digest for pin in pins.lock(draft(lab)).pins}
    put(content=b"newer")
    put(packages=["curl", "nginx-light"], content=b"newer derived")
    converge.up(draft(lab), only_locked=True)
    assert {name: image.digest for name, image in jobs[0].images.items()} == {
        "plain": pinned["debian-12"],
        "twin": pinned["debian-12"],
        "web": pinned["debian-12 with curl, nginx-light"],
    }


def test_up_locked_without_a_lock_file_is_an_error_that_names_the_way_out(lab: Path) -> None:
    with pytest.raises(UsageError, match="there is no lock file") as caught:
        converge.up(draft(lab), only_locked=True)
    assert "labctl lock" in caught.value.hint


def test_up_locked_stops_before_anything_is_made_and_names_what_moved(lab: Path, jobs: list[Job]) -> None:
    pins.lock(draft(lab))
    old = pins.lock(draft(lab)).pins[0].digest
    for stored in store.Store().entries():
        for path in (*stored.folder.iterdir(),):
            path.unlink()
        stored.folder.rmdir()
    new = put(content=b"newer", versions={"nginx": "1.22.1-9", "curl": "8.0", "new": "1"})
    with pytest.raises(LabctlError, match=r"the images of tiny for fake are not those of lab\.lock\.yaml") as caught:
        converge.up(draft(lab), only_locked=True)
    lines = caught.value.details.splitlines()
    assert lines[:5] == [
        "debian-12",
        f"  expected digest {old}",
        f"  found    digest {new.digest}",
        "  curl 7.88.1-10 → 8.0",
        "  new absent → 1",
    ]
    assert lines[5] == "debian-12 with curl, nginx-light"
    assert lines[7] == "  found    not in the image store"
    assert "labctl lock --update" in caught.value.hint
    assert jobs == []
    assert not (state_root() / "tiny").exists()


def test_up_locked_refuses_an_image_that_the_file_does_not_have(lab: Path, jobs: list[Job]) -> None:
    pins.lock(draft(lab))
    spec = (lab / "lab.yaml").read_text()
    (lab / "lab.yaml").write_text(spec.replace("nginx-light, curl", "nginx-light"))
    with pytest.raises(LabctlError) as caught:
        converge.up(draft(lab), only_locked=True)
    assert caught.value.details == "debian-12 with nginx-light is not in the lock file"
    assert "labctl lock adds" in caught.value.hint
    assert jobs == []


def test_up_locked_refuses_a_damaged_image(lab: Path) -> None:
    pins.lock(draft(lab))
    for stored in store.Store().entries("debian-12"):
        (stored.folder / "disk.qcow2").write_bytes(b"not what it was")
    with pytest.raises(LabctlError) as caught:
        converge.up(draft(lab), only_locked=True)
    assert caught.value.details.count("not in the image store") == 2


def test_up_warns_of_another_image_and_goes_on_with_it(lab: Path, jobs: list[Job]) -> None:
    pins.lock(draft(lab))
    new = put(content=b"newer", versions={"curl": "8.0", "nginx": "1.22.1-9"})
    put(packages=["curl", "nginx-light"], content=b"newer derived")
    heard: list[Event] = []
    converge.up(draft(lab), listener=heard.append)
    warnings = [event.message for event in heard if event.status == "warning"]
    assert len(warnings) == 2
    assert "curl 7.88.1-10 → 8.0" in warnings[0]
    assert jobs[0].images["plain"].digest == new.digest


def test_up_is_silent_where_everything_is_as_locked(lab: Path) -> None:
    pins.lock(draft(lab))
    heard: list[Event] = []
    converge.up(draft(lab), listener=heard.append)
    assert not [event for event in heard if event.status == "warning"]


@pytest.fixture
def fetched(tmp_path: Path) -> tuple[Path, str]:
    """A lab whose image is a download, from a file on this host, and that file's digest."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"x".ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    sha256 = hashlib.sha256(raw.read_bytes()).hexdigest()
    state_root().mkdir(parents=True, exist_ok=True)
    (state_root() / "images.yaml").write_text(
        f'version: 1\nimages:\n  own: {{qemu: {{url: "{raw.as_uri()}", sha256: "{sha256}"}}}}\n'
    )
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / "lab.yaml").write_text(
        "version: 1\nname: fetched\nnetworks: {n: {subnet: 10.1.0.0/24}}\n"
        "machines: {m: {image: own, networks: {n: auto}}}\n"
    )
    return folder, sha256


def test_a_download_is_pinned_by_its_url_and_digest_and_may_be_fetched_again(
    fetched: tuple[Path, str], tmp_path: Path, jobs: list[Job]
) -> None:
    lab, sha256 = fetched
    pin = pins.lock(draft(lab)).pins[0]
    assert (pin.url, pin.sha256) == ((tmp_path / "disk.raw").as_uri(), sha256)
    # Another host, another qemu-img, other bytes of the same disk.
    text = text_of(lab)
    (lab / "lab.lock.yaml").write_text(text.replace(pin.digest, "e" * 64))
    assert [s.state for s in pins.check(draft(lab))] == ["locked"]
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    assert [s.state for s in pins.check(draft(lab))] == ["not here"]
    converge.up(draft(lab), only_locked=True)
    assert jobs[0].images["m"].digest == pin.digest


def test_up_warns_once_of_an_image_that_was_made_just_now_and_is_another_one(
    fetched: tuple[Path, str], tmp_path: Path, jobs: list[Job]
) -> None:
    lab, sha256 = fetched
    spec = (lab / "lab.yaml").read_text()
    (lab / "lab.yaml").write_text(spec.replace("{m: {", "{m: {count: 3, "))
    pin = pins.lock(draft(lab)).pins[0]
    text = text_of(lab)
    (lab / "lab.lock.yaml").write_text(text.replace(pin.digest, "e" * 64).replace(sha256, "f" * 64))
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    heard: list[Event] = []
    converge.up(draft(lab), listener=heard.append)
    (warning,) = [event.message for event in heard if event.status == "warning"]
    assert f"expected sha256 {'f' * 64}" in warning
    assert f"found    sha256 {sha256}" in warning
    assert len(jobs[0].images) == 3


def test_a_download_whose_catalogue_entry_moved_is_refused_before_it_is_fetched(
    fetched: tuple[Path, str], tmp_path: Path
) -> None:
    lab, sha256 = fetched
    pins.lock(draft(lab))
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    own = state_root() / "images.yaml"
    own.write_text(own.read_text().replace(sha256, "0" * 64))
    with pytest.raises(LabctlError) as caught:
        converge.up(draft(lab), only_locked=True)
    assert f"expected sha256 {sha256} of file://" in caught.value.details
    assert not list((tmp_path / "cache").glob("images/own-*"))


# --- boxes that come from a URL ---


@pytest.fixture
def boxed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A lab whose image is a VirtualBox box behind a URL, and the box's file."""
    monkeypatch.setitem(PROVIDERS, "fake", dataclasses.replace(PROVIDERS["fake"], images="virtualbox"))
    file = tmp_path / "appliance.box"
    file.write_bytes(b"a box")
    catalogue_of(file)
    folder = tmp_path / "boxed"
    folder.mkdir()
    (folder / "lab.yaml").write_text(
        "version: 1\nname: boxed\nnetworks: {n: {subnet: 10.1.0.0/24}}\n"
        "machines: {m: {image: appliance, networks: {n: auto}}}\n"
    )
    return folder, file


def catalogue_of(file: Path, sha256: str = "") -> None:
    facts = f'url: "{file.as_uri()}", sha256: "{sha256 or digest(file)}"'
    state_root().mkdir(parents=True, exist_ok=True)
    (state_root() / "images.yaml").write_text(f"version: 1\nimages:\n  appliance: {{virtualbox: {{{facts}}}}}\n")


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_box_behind_a_url_is_fetched_once_pinned_and_fetched_again(
    boxed: tuple[Path, Path], tmp_path: Path, jobs: list[Job]
) -> None:
    lab, file = boxed
    pin = pins.lock(draft(lab)).pins[0]
    assert (pin.digest, pin.sha256, pin.url) == (digest(file), digest(file), file.as_uri())
    content = file.read_bytes()
    file.unlink()
    converge.up(draft(lab), only_locked=True)  # it is in the cache
    image = jobs[0].images["m"]
    assert (image.digest, image.disk.read_bytes(), image.user) == (pin.digest, content, "vagrant")
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    file.write_bytes(content)
    assert [s.state for s in pins.check(draft(lab))] == ["not here"]
    converge.up(locate.draft(lab, provider="fake", instance="second"), only_locked=True)
    assert [s.state for s in pins.check(draft(lab))] == ["locked"]


def test_a_box_with_another_digest_stops_before_anything_runs(
    boxed: tuple[Path, Path], tmp_path: Path, jobs: list[Job]
) -> None:
    lab, file = boxed
    pins.lock(draft(lab))
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    pinned = digest(file)
    file.write_bytes(b"another box")
    for only_locked in (True, False):
        with pytest.raises(ImageError, match="is not what was asked for"):
            converge.up(draft(lab), only_locked=only_locked)
    catalogue_of(file)  # somebody has simply replaced the digest there
    with pytest.raises(LabctlError) as caught:
        converge.up(draft(lab), only_locked=True)
    assert f"expected sha256 {pinned} of file://" in caught.value.details
    assert jobs == []
    assert not list((tmp_path / "cache").glob("images/appliance-*"))


def test_packages_cannot_be_put_into_a_box_from_elsewhere(boxed: tuple[Path, Path]) -> None:
    lab, _ = boxed
    spec = (lab / "lab.yaml").read_text()
    (lab / "lab.yaml").write_text(spec.replace("image: appliance", "image: appliance, provision: [{packages: [curl]}]"))
    with pytest.raises(ImageError, match="packages cannot be put into the box appliance"):
        converge.up(draft(lab))


def test_the_command_line_locks_checks_and_refuses(lab: Path, tmp_path: Path) -> None:
    def labctl(*argv: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "labctl", *argv],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    assert "there is no lock file" in labctl("up", "tiny", "--provider", "fake", "--locked", code=2)[1]
    out, _ = labctl("lock", "tiny", "--provider", "qemu")
    assert "pinned debian-12 with curl, nginx-light" in out
    assert "2 images for qemu, as before" in labctl("lock", "tiny", "--provider", "qemu")[0]
    assert '"fine": true' in labctl("lock", "tiny", "--provider", "qemu", "--check", "--json")[0]
    labctl("up", "tiny", "--provider", "qemu", "--locked", "--dry-run")
    put(content=b"newer")
    out, err = labctl("lock", "tiny", "--provider", "qemu", "--check", code=1)
    assert "differs" in out
    assert "expected digest" in err
    assert "Choose one" in labctl("lock", "tiny", "--check", "--update", code=2)[1]
