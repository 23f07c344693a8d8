"""What the README says of a class, line by line in a shell, on machines that are notes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.spec.classfile import load

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVyZ2VudGx5LW5lZWRzLWEta2V5LWZvci1sYWJz"
UNPROVEN = 4  # of verify: nothing answers in notes


@pytest.fixture
def text(repository: Path) -> str:
    """The section on classes."""
    whole = (repository / "README.md").read_text(encoding="utf-8")
    return whole.partition("**A class.**")[2].partition("**A class at home.**")[0]


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def commands(block: str) -> list[str]:
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def run(folder: Path, lines: list[str]) -> list[tuple[str, int]]:
    """Each line with its exit code, one after the other in one shell."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "labctl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m labctl "$@"\n')
    (programs / "labctl").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LABCTL_PROVIDER": "fake",
        "LABCTL_STATE_DIR": str(folder / "state"),
    }
    script = "".join(f"{line}\necho ::$?\n" for line in lines)
    done = subprocess.run(["sh"], input=script, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    codes = [int(line[2:]) for line in done.stdout.splitlines() if line.startswith("::")]
    assert len(codes) == len(lines), done.stderr
    return list(zip(lines, codes, strict=True))


def test_an_empty_folder_becomes_thirty_students_in_ten_lines(text: str, tmp_path: Path) -> None:
    lines = commands(blocks(text, "console")[0])
    assert len(lines) == 10
    for line, code in run(tmp_path, lines):
        assert code in ((0, UNPROVEN) if "verify" in line else (0,)), line
    spec = load(tmp_path / "monday")
    assert len(spec.seats) == 30
    assert len(list((tmp_path / "monday/handouts").iterdir())) == 30
    assert len(list((tmp_path / "state/lab").iterdir())) == 30


def test_hours_and_the_door_are_what_labctl_understands(text: str, tmp_path: Path) -> None:
    lines = commands(blocks(text, "console")[0])[:3]
    run(tmp_path, lines)
    folder = tmp_path / "monday"
    (login,) = re.findall(r"`(login: .*?)` in class\.yaml", text)
    with (folder / "class.yaml").open("a") as file:
        file.write("".join(blocks(text, "yaml")) + login + "\n")
    (folder / "students.csv").write_text(f"id,name,key\ns01,Ada,{KEY}\n")
    spec = load(folder)
    assert spec.hours is not None and spec.limits.idle == 7200
    (timer,) = re.findall(r"labctl class tidy .*", text)
    done = run(tmp_path, ["cd monday", "labctl class up --anyway", *commands(blocks(text, "console")[1]), timer])
    assert [code for _, code in done[:4]] == [0, 0, 0, 0]
    assert "restrict,command=" in (tmp_path / ".ssh/authorized_keys").read_text()
    assert "Host s01-attacker\n" in (folder / "ssh_config").read_text()
    assert done[4][1] == 2, "there is no /srv/monday here, and all else of that line is right"
