"""Which commit a lab is at, by a real git, in folders that somebody else has made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labctl.lifecycle.revision import origin
from labctl.verify.model import Origin

pytestmark = pytest.mark.integration


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """labs/one/lab.yaml and its files, committed; and labs/two beside it."""
    for name in ("one", "two"):
        (tmp_path / "course/labs" / name / "files").mkdir(parents=True)
        (tmp_path / "course/labs" / name / "lab.yaml").write_text("version: 1\n")
        (tmp_path / "course/labs" / name / "files/größe.txt").write_text("hello\n")
        (tmp_path / "course/labs" / name / "link").symlink_to("files/größe.txt")
    (tmp_path / "course/.gitignore").write_text("*.log\n")
    git(tmp_path / "course", "init", "--quiet")
    git(tmp_path / "course", "add", ".")
    git(tmp_path / "course", "commit", "--quiet", "-m", "labs")
    return tmp_path / "course/labs/one/lab.yaml"


def test_the_commit_and_the_file_in_it(lab: Path) -> None:
    assert origin(lab) == Origin("labs/one/lab.yaml", git(lab.parent, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "relink", "stage", "swap"])
def test_any_change_in_the_lab_s_folder_is_told(lab: Path, change: str) -> None:
    folder = lab.parent
    if change == "add":
        (folder / "new.yaml").write_text("")
    elif change == "remove":
        (folder / "files/größe.txt").unlink()
    elif change == "relink":
        (folder / "link").unlink()
        (folder / "link").symlink_to("lab.yaml")
    elif change == "swap":
        lab.rename(folder.parent / "elsewhere.yaml")
        lab.symlink_to("../elsewhere.yaml")
    else:
        lab.write_text("version: 1 # changed\n")
    if change == "stage":
        git(folder, "add", ".")
    assert origin(lab).dirty


def test_changes_elsewhere_and_ignored_files_do_not_count(lab: Path) -> None:
    (lab.parent.parent / "two/lab.yaml").write_text("changed")
    (lab.parent / "notes.log").write_text("ignored")
    (lab.parent / "lab.yaml").touch()
    assert not origin(lab).dirty


def test_no_git_and_no_commit_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/lab.yaml").write_text("")
    assert origin(tmp_path / "bare/lab.yaml") == Origin("lab.yaml")
    git(tmp_path / "bare", "init", "--quiet")
    assert origin(tmp_path / "bare/lab.yaml") == Origin("lab.yaml")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert origin(lab) == Origin("lab.yaml")


def test_programs_named_in_the_settings_of_a_lab_s_own_repository_are_not_run(lab: Path, tmp_path: Path) -> None:
    program = tmp_path / "owned.sh"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/owned\ncat\n")
    program.chmod(0o755)
    for key in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "filter.x.process", "core.sshCommand"):
        git(lab.parent, "config", key, str(program))
    git(lab.parent, "config", "core.hooksPath", str(tmp_path))
    (lab.parent / ".gitattributes").write_text("* filter=x\n")
    lab.write_text("version: 1 # changed\n")
    assert origin(lab).dirty
    assert not (tmp_path / "owned").exists()
    git(lab.parent, "status")  # which is what would have run them
    assert (tmp_path / "owned").exists()
