"""Disk images from files and URLs, made with the real qemu-img and served on loopback."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import ImageError
from labctl.images import import_file, list_images, pull, remove, resolve, verify
from labctl.images.leftovers import PREFIX

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("empty_cache")]

CONTENT = bytes(510) + b"\x55\xaa" + b"labctl test disk".ljust(512, b".") + bytes(1 << 20)


def _qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


def _content(disk: Path) -> bytes:
    raw = disk.with_suffix(".raw")
    _qemu_img("convert", "-f", "qcow2", "-O", "raw", disk, raw)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("raw", []),
        ("qcow2", []),
        ("qcow2", ["-c"]),
        ("qcow2", ["-o", "compat=0.10"]),
        ("vmdk", []),
        ("vmdk", ["-o", "subformat=streamOptimized"]),
    ],
)
def test_every_format_arrives_with_its_content(raw: Path, tmp_path: Path, form: str, options: list[str]) -> None:
    source = tmp_path / "source"
    _qemu_img("convert", "-f", "raw", "-O", form, *options, raw, source)
    image = import_file("mine", source, user="admin")
    assert _content(image.disk)[: len(CONTENT)] == CONTENT
    assert (image.kernel, image.initrd, image.cmdline, image.user) == (None, None, "", "admin")
    assert resolve("mine") == image
    listed = {status.name: status for status in list_images()}["mine"]
    assert (listed.source, listed.cached, listed.digest) == ("import", True, image.digest)


def test_a_qcow2_that_leads_elsewhere_is_refused(raw: Path, tmp_path: Path, empty_cache: Path) -> None:
    overlay, data = tmp_path / "overlay", tmp_path / "data"
    _qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", raw, overlay)
    _qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'outside'},data_file_raw=on", data, "1M")
    for source, said in ((overlay, "backing file"), (data, "external data file")):
        with pytest.raises(ImageError, match=said):
            import_file("mine", source)
    assert not list(empty_cache.glob("images/mine*"))


def test_a_vmdk_of_several_files_is_refused(raw: Path, tmp_path: Path) -> None:
    source = tmp_path / "flat.vmdk"
    _qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", raw, source)
    with pytest.raises(ImageError, match="several files"):
        import_file("mine", source)


def test_a_damaged_qcow2_is_refused_and_leaves_nothing(tmp_path: Path, empty_cache: Path) -> None:
    source = tmp_path / "broken"
    _qemu_img("create", "-f", "qcow2", source, "16M")
    content = bytearray(source.read_bytes())
    content[20:24] = (99).to_bytes(4, "big")  # the size of a cluster, as a power of two
    source.write_bytes(content)
    with pytest.raises(ImageError, match="cannot be read as qcow2"):
        import_file("mine", source)
    assert not list(empty_cache.glob(f"images/{PREFIX}*"))


def test_names_of_the_catalogue_are_taken(raw: Path) -> None:
    with pytest.raises(ImageError, match="already has an image called router"):
        import_file("router", raw)
    with pytest.raises(ImageError, match="cannot be an image's name"):
        import_file("../mine", raw)


def test_packages_cannot_go_into_an_imported_disk(raw: Path) -> None:
    import_file("mine", raw)
    with pytest.raises(ImageError, match="was not built from packages"):
        resolve("mine", ["curl"])


def test_a_damaged_import_is_noticed_and_asked_for_again(raw: Path) -> None:
    image = import_file("mine", raw)
    assert verify("mine") == ()
    with image.disk.open("r+b") as file:
        file.truncate(1000)
    assert "has 1000 bytes" in verify("mine")[0]
    with pytest.raises(ImageError, match="was damaged"):
        resolve("mine")
    assert import_file("mine", raw).digest == image.digest


def test_remove(raw: Path, empty_cache: Path) -> None:
    image = import_file("mine", raw)
    assert remove("mine") == (image.disk.parent,)
    assert not image.disk.exists()
    with pytest.raises(ImageError, match="no image called mine"):
        remove("mine")


class Server(ThreadingHTTPServer):
    """Serves ``content`` at /disk, less of it than announced at /short, and redirects."""

    content = b""
    asked: list[str]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers: dict[str, Callable[[], None]] = {
            "/disk": lambda: self._send(self.server.content),
            "/short": lambda: self._send(self.server.content[:1000], len(self.server.content)),
            "/moved": lambda: self._redirect("/disk"),
            "/local": lambda: self._redirect("file:///etc/passwd"),
        }
        answers.get(self.path, lambda: self.send_error(404))()

    def _send(self, content: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def _redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Be quiet."""


@pytest.fixture
def server(raw: Path, tmp_path: Path) -> Iterator[Server]:
    source = tmp_path / "served.qcow2"
    _qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, source)
    with Server(("127.0.0.1", 0), _Handler) as running:
        running.content, running.asked = source.read_bytes(), []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("path", ["/disk", "/moved"])
def test_pull_with_the_right_digest(server: Server, path: str) -> None:
    image = pull("pulled", server.url(path), _sha256(server.content))
    assert _content(image.disk)[: len(CONTENT)] == CONTENT
    assert pull("pulled", server.url(path), _sha256(server.content)) == image
    assert resolve("pulled") == image
    assert server.asked.count("/disk") == 1


def test_pull_from_a_file(server: Server, tmp_path: Path) -> None:
    image = pull("pulled", (tmp_path / "served.qcow2").as_uri(), _sha256(server.content))
    assert _content(image.disk)[: len(CONTENT)] == CONTENT


@pytest.mark.parametrize(
    ("path", "sha256", "said"),
    [
        ("/disk", "0" * 64, "is not what was asked for"),
        ("/disk", "abc", "is no SHA-256 digest"),
        ("/disk", None, "needs the digest"),
        ("/short", "0" * 64, "cannot be fetched|broke off"),
        ("/missing", "0" * 64, "cannot be fetched"),
        ("/local", "0" * 64, "cannot be fetched"),
    ],
)
def test_nothing_of_a_wrong_download_is_used(
    server: Server, empty_cache: Path, path: str, sha256: str | None, said: str
) -> None:
    with pytest.raises(ImageError, match=said):
        pull("pulled", server.url(path), sha256)
    assert not list(empty_cache.glob("images/pulled*"))
    assert not list(empty_cache.glob(f"images/{PREFIX}*"))


def test_a_host_that_does_not_answer(server: Server) -> None:
    url = server.url("/disk")
    server.shutdown()
    server.server_close()
    with pytest.raises(ImageError, match="cannot be fetched"):
        pull("pulled", url, "0" * 64)


def test_a_download_of_the_catalogue_is_fetched_when_it_is_needed(server: Server, tmp_path: Path) -> None:
    from labctl.images import catalogue

    catalogue.own_file().parent.mkdir(parents=True, exist_ok=True)
    catalogue.own_file().write_text(
        "version: 1\nimages:\n"
        f'  listed: {{user: debian, qemu: {{url: "{server.url("/disk")}", sha256: {_sha256(server.content)}}}}}\n'
    )
    image = resolve("listed")
    assert image.user == "debian"
    image.disk.unlink()
    assert resolve("listed").digest == image.digest
    assert server.asked == ["/disk", "/disk"]
