"""What the words of ``ssh`` and ``exec`` mean, and what a guest may put on the user's terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.cli.access_commands import printable, split_words

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
