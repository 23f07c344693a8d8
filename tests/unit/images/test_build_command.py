"""The command that makes a root file system, and what this host lacks for it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from labctl.errors import HostError, ImageError
from labctl.images import bootstrap, host_tools, resolve
from labctl.images.downloads import Downloads

pytestmark = pytest.mark.unit

STAGING = Path("/cache/a folder/staging")


def _argv(base: Path | None) -> list[str]:
    job = bootstrap.RootJob("d", "bookworm", ("curl", "libstdc++6"), base)
    return bootstrap.argv(job, Path("/cache/out.tar"), STAGING, ("deb URI bookworm main",), ('Acquire::Retries "3"',))


def test_a_base_image_is_installed_from_nothing() -> None:
    argv = _argv(None)
    assert "--variant=minbase" in argv
    assert "--include=curl,libstdc++6" in argv
    assert argv[-3:] == ["bookworm", "/cache/out.tar", "deb URI bookworm main"]
    assert '--aptopt=Acquire::Retries "3"' in argv


def test_a_derived_image_starts_from_its_base() -> None:
    argv = _argv(Path("/cache/a folder/rootfs.tar"))
    assert "--variant=custom" in argv
    assert not any(word.startswith("--include") for word in argv)
    assert "--setup-hook=tar-in '/cache/a folder/rootfs.tar' /" in argv
    install = next(word for word in argv if "apt-get" in word)
    assert shlex.split(install)[-3:] == ["--", "curl", "libstdc++6"]


def test_folders_with_spaces_stay_one_word_in_hooks() -> None:
    hooks = [word for word in _argv(None) if "sync-in" in word]
    assert [shlex.split(hook.partition("=")[2])[1] for hook in hooks] == [f"{STAGING}/debs", f"{STAGING}/lists"]


def test_the_key_of_an_image_covers_what_labctl_puts_in(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bootstrap.tool_digest()
    assert before == bootstrap.tool_digest()
    monkeypatch.setattr(bootstrap, "CMDLINE", "other")
    assert bootstrap.tool_digest() != before


@pytest.mark.parametrize("package", ["", "-o", "a b", "nginx;id", "../x", "Nginx", "x" * 200])
def test_a_package_name_that_is_none_is_refused_before_anything_is_built(package: str) -> None:
    with pytest.raises(ImageError, match="cannot be a package's name"):
        resolve("debian-12", [package])


def test_an_image_for_another_provider_is_refused() -> None:
    with pytest.raises(ImageError, match="incus"):
        resolve("debian-12", provider="incus")


def test_a_host_without_the_tools_hears_all_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_tools, "_SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as caught:
        host_tools.require()
    assert "sudo apt install mmdebstrap" in caught.value.hint
    assert "sudo apt install e2fsprogs" in caught.value.hint
    assert "lz4" not in caught.value.hint


def test_a_user_without_ids_of_its_own_hears_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_tools, "_is_root", lambda: False)
    monkeypatch.setattr(host_tools.os, "getuid", lambda: 4242)
    lacks = [lack for lack in host_tools.missing() if "/etc/subuid" in lack.what]
    assert "usermod --add-subuids" in lacks[0].remedy


def test_ids_are_read_as_newuidmap_reads_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_tools.os, "getuid", lambda: 4242)
    file = tmp_path / "subuid"
    file.write_text("other:100000:65536\n4242:165536:1000\nbroken\n")
    assert not host_tools._has_ids(file)
    file.write_text("4242:165536:65536\n")
    assert host_tools._has_ids(file)


def test_downloads_are_lent_kept_and_pruned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    downloads, staging = Downloads(tmp_path / "packages"), tmp_path / "staging"
    downloads.lend("bookworm", staging)
    (staging / "debs/a_1.deb").write_bytes(b"a" * 10)
    (staging / "debs/lock").write_bytes(b"")
    (staging / "debs/partial").mkdir()
    (staging / "lists/x_Packages").write_bytes(b"x")
    downloads.keep("bookworm", staging)

    again = tmp_path / "again"
    downloads.lend("bookworm", again)
    assert sorted(path.name for path in again.rglob("*") if path.is_file()) == ["a_1.deb", "x_Packages"]
    other = tmp_path / "other"
    downloads.lend("trixie", other)
    assert not list((other / "lists").iterdir())

    monkeypatch.setattr("labctl.images.downloads._LIMIT", 15)
    (again / "debs/b_1.deb").write_bytes(b"b" * 10)
    downloads.keep("bookworm", again)
    assert [path.name for path in (tmp_path / "packages/debs").iterdir()] == ["b_1.deb"]
