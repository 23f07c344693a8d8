"""What the words of ``ssh`` and ``exec`` mean, and what a guest may put on the user's terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.__main__ import run
from labctl.cli.access_commands import printable, split_words
from labctl.lifecycle import converge, locate

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def folder_with_a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dmz").mkdir()
    (tmp_path / "dmz/lab.yaml").write_text("")
    (tmp_path / "web").mkdir()  # a folder without a lab, called like a machine
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "lab", "rest"),
    [
        ([], ".", []),
        (["web"], ".", ["web"]),
        (["dmz", "web"], "dmz", ["web"]),
        (["dmz/lab.yaml", "web"], "dmz/lab.yaml", ["web"]),
        (["web", "--", "ls", "-l"], ".", ["web", "ls", "-l"]),
        (["web", "ls", "-l"], ".", ["web", "ls", "-l"]),
        (["dmz", "web", "--", "ls", "--", "x"], "dmz", ["web", "ls", "--", "x"]),
        (["gone", "web", "--", "ls"], "gone", ["web", "ls"]),
    ],
)
def test_words(words: list[str], lab: str, rest: list[str]) -> None:
    assert split_words(words) == (Path(lab), rest)


def test_control_characters_of_a_guest_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in printable("\x1b]0;owned\x07 \x1b[2J plain\ttext")
    assert printable("plain\ttext äöü") == "plain\ttext äöü"


def test_logs_of_a_machine_here_and_of_a_lab_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = "version: 1\nname: here\nnetworks: {n: {subnet: 10.9.0.0/24}}\n"
    lab += "machines: {a: {image: debian-12, networks: [n]}}\n"
    (tmp_path / "lab.yaml").write_text(lab)
    converge.up(locate.draft(Path(), provider="fake"))
    assert run(["logs", "b"]) == 2
    assert "here has no machine called 'b'" in capsys.readouterr().err
    assert run(["logs", "a"]) == 0
    (tmp_path / "lab.yaml").rename(tmp_path / "elsewhere.yaml")
    assert run(["logs", "here"]) == 0
    assert run(["logs", "a"]) == 2
    assert "a has no instance" in capsys.readouterr().err


@pytest.mark.parametrize(("seal", "enter"), [("false", "labctl ssh a"), ("true", "labctl exec a -- COMMAND")])
def test_up_names_a_way_into_a_machine_that_is_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seal: str, enter: str
) -> None:
    lab = f"version: 1\nname: here\nseal: {seal}\nnetworks: {{n: {{subnet: 10.9.0.0/24}}}}\n"
    (tmp_path / "lab.yaml").write_text(lab + "machines: {a: {image: debian-12, networks: [n]}}\n")
    assert run(["up", "--provider", "fake"]) == 0
    said = capsys.readouterr().err
    assert f" | {enter} | " in said
