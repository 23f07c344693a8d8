"""Files and a script as a guest is given them: real shells, Perl and tar, in a mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from labctl.plan.guest import GuestFile
from labctl.providers.base import ExecResult
from labctl.providers.qemu import guest, pack

pytestmark = pytest.mark.integration

_PROGRAMS = ("sh", "chown", "mkdir", "rm", "sleep", "tar")


class Here:
    """A guest's agent, but what it runs runs here, where /run is empty each time."""

    def __init__(self, variables: Mapping[str, str], big: Path) -> None:
        self._variables, self._big = variables, big
        self.programs: list[str] = []

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> ExecResult:
        self.programs.append(argv[-1])
        moved = f"[ ! -e {self._big} ] || cp {self._big} {guest._PACK}"
        script = f'mount -t tmpfs none /run; {moved}; exec "$0" "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "env", *(f"{k}={v}" for k, v in self._variables.items()), *argv],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return ExecResult(done.returncode, done.stdout, done.stderr)

    def write(self, path: str, content: bytes) -> None:
        assert path == guest._PACK
        self._big.write_bytes(content)


@pytest.fixture(params=["perl", "tar"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Here:
    """A guest with Perl, and one without."""
    if request.param == "perl":
        return Here({}, tmp_path / "big")
    place = tmp_path / "programs"
    place.mkdir()
    for program in _PROGRAMS:
        (place / program).symlink_to(shutil.which(program) or pytest.fail(f"no {program}"))
    return Here({"PATH": str(place)}, tmp_path / "big")


def deliver(here: Any, files: Sequence[GuestFile], script: str) -> ExecResult:
    return guest._deliver(here, tuple(files), script, timeout=60)


def test_files_are_there_with_their_modes_when_the_script_runs(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "etc" / "a folder 'of' $ome"
    link, aim = tmp_path / "etc" / "link", tmp_path / "aim"
    link.parent.mkdir()
    aim.write_text("not touched")
    link.symlink_to(aim)
    files = [
        GuestFile(str(folder / "line\nbreak – ü"), b"\0binary\r\n", "0600"),
        GuestFile(str(folder / "empty"), b"", "0444"),
        GuestFile(str(folder / "run me"), b"#!/bin/sh\n", "4755"),
        GuestFile(str(link), b"instead of a link", "0644"),
        GuestFile(str(folder / "owned"), b"", "0644", "1234:nogroup"),
    ]
    done = deliver(here, files, f"read -r line || :; echo said; [ -x '{tmp_path}/etc/link' ] || exit 7")
    assert (done.code, done.stdout, done.stderr) == (7, b"said\n", b"")
    for file in files:
        assert Path(file.path).read_bytes() == file.content
        assert Path(file.path).stat().st_mode & 0o7777 == int(file.mode, 8), file.path
    assert aim.read_text() == "not touched"
    assert (folder / "owned").stat().st_uid == 1234
    assert folder.stat().st_mode & 0o7777 == 0o755
    assert len(here.programs) == (1 if "PATH" not in here._variables else 2)


def test_a_big_file_comes_another_way(here: Here, tmp_path: Path) -> None:
    content = os.urandom(guest._STDIN_LIMIT + 1)
    done = deliver(here, [GuestFile(str(tmp_path / "big file"), content)], "exit 0")
    assert done.code == 0, done
    assert (tmp_path / "big file").read_bytes() == content


def test_a_folder_in_a_files_place_and_an_unknown_owner_end_it(here: Here, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").touch()
    for file in (
        GuestFile(str(tmp_path / "folder"), b""),
        GuestFile(str(tmp_path / "file"), b"", owner="nobody-has-this-name"),
    ):
        done = deliver(here, [file], "echo ran")
        assert done.code != 0
        assert b"ran" not in done.stdout


def test_a_script_that_says_what_a_guest_without_perl_would_runs_once(tmp_path: Path) -> None:
    here = Here({}, tmp_path / "big")
    done = deliver(here, [], f"echo run >>{tmp_path}/runs; echo before; echo '{pack.NO_PERL}'; exit 1")
    assert done.code == 1
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_pack_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    cut = pack.framed([GuestFile(str(tmp_path / "file"), b"content")])[:-1]
    done = subprocess.run(["sh", "-ec", pack.WITH_PERL], input=cut, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"cut short" in done.stderr
    assert not (tmp_path / "file").exists()
