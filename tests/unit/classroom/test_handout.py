"""Sheets for students: what is on them, and that nothing in a name or a README becomes more than text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.lifecycle.classroom import handout, verbs
from tests.support.classes import LAB, Room

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVyZ2VudGx5LW5lZWRzLWEta2V5LWZvci1sYWJz ada@desk"
VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """A page as a browser reads it: its elements with their attributes, its text, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def sheets(room: Room, readme: str = "# Two\n\nDo *this*.\n", **options: str) -> dict[str, Page]:
    room.up()
    (room.folder / "lab" / "README.md").write_text(readme, encoding="utf-8")
    written = handout.write(room.spec, room.chosen(), room.folder / "out", **options)
    return {path.stem: Page(path.read_text(encoding="utf-8")) for path in written}


def test_everybody_with_an_instance_gets_a_sheet(room: Room) -> None:
    room.write("description: Mondays, room 2.14\n", roster="[{id: s01, name: Ada Lovelace}, s02]")
    found = sheets(room)
    assert sorted(found) == ["s01", "s02"]
    assert "Ada Lovelace" in found["s01"].text
    assert "Mondays, room 2.14" in found["s01"].text
    assert "labctl class reset --only s01" in found["s01"].text
    assert "lan 10.9.0." in found["s01"].text
    assert ("em", {}) in found["s01"].elements


def test_a_sheet_says_how_to_log_in_with_a_key_of_ones_own_where_login_lets_in(room: Room) -> None:
    room.write("login: {machines: [a]}\n", roster=f"[{{id: s01, key: {KEY}}}, s02]")
    assert "ssh -p 22 student@127.0.0.1" in sheets(room)["s01"].text
    found = sheets(room, jump="labs@lab.example.org")
    words = 'ssh -o ProxyCommand="ssh labs@lab.example.org connect a" student@monday.s01.a'
    assert words in found["s01"].text
    assert "student@" not in found["s02"].text
    rows = [element for element, attributes in found["s01"].elements if attributes.get("scope") == "row"]
    assert len(rows) == 1


def test_a_sheet_says_how_to_hand_in_a_flag_where_there_are_flags_and_a_door(room: Room) -> None:
    keyed = {"roster": f"[{{id: s01, key: {KEY}}}, s02]"}
    room.write("login: {machines: [a]}\n", **keyed)
    assert "Flags" not in sheets(room, jump="labs@lab:2222")["s01"].text
    secrets = "secrets: {flag: {kind: flag}, port: {kind: port}}\n"
    room.write("login: {machines: [a]}\n", **keyed, lab=secrets + LAB.replace("a: {", "a: {secrets: [flag], "))
    found = sheets(room, jump="labs@lab:2222")
    assert "ssh -p 2222 labs@lab submit" in found["s01"].text
    assert "Flags" not in found["s02"].text
    assert "Flags" not in sheets(room)["s01"].text


def test_a_sheet_for_a_students_own_computer_says_how_to_begin_there(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_PROVIDER", "fake")
    secrets = "secrets: {flag: {kind: flag}}\n"
    room.write(lab=secrets + LAB.replace("a: {", "a: {secrets: [flag], "))
    paths = handout.write_for_laptops(room.spec, room.chosen(), room.folder / "out", "the class.labz")
    found = {path.stem: Page(path.read_text()).text for path in paths}
    assert sorted(found) == ["s01", "s02", "s03"]  # nobody needs an instance here
    for words in ("labctl up 'the class.labz'", "labctl ssh two a", "labctl submit two", "labctl reset two"):
        assert words in found["s01"]
    tokens = [re.findall(r"(?:[a-z2-7]{4}-){5}[a-z2-7]{4}", text) for text in found.values()]
    assert [len(one) for one in tokens] == [1, 1, 1]
    assert len({one[0] for one in tokens}) == 3
    assert "class reset" not in found["s01"]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}


def test_a_lab_without_secrets_needs_no_token(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_PROVIDER", "fake")
    (path, *_) = handout.write_for_laptops(room.spec, room.chosen(), room.folder / "out", "monday.labz")
    text = Page(path.read_text()).text
    assert "labctl up monday.labz" in text
    assert "token" not in text


def test_a_machine_that_does_not_run_is_said(room: Room) -> None:
    room.write("login: {machines: [a]}\n", roster=f"[{{id: s01, key: {KEY}}}]")
    room.up()
    verbs.down(room.chosen(), jobs=1)
    (path,) = handout.write(room.spec, room.chosen(), room.folder / "out")
    assert "It does not run now" in path.read_text()


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://outside.example/x.png)",
    "[x](javascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x]: javascript:alert(1)\n\n[x]",
    '[x](http://a.example/ "\\"onmouseover=alert(1) x=\\"")',
    "<iframe src=//outside.example></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "```</code></pre><script>alert(1)</script>\n```",
    "\u202egnp.exe",
    "{{ 7 * 7 }}{% for x in [1] %}{% endfor %}",
]
HARMLESS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "h3", "p", "bdi"),
    *(
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "small",
        "div",
        "code",
        "pre",
        "em",
        "strong",
        "a",
        "ul",
        "li",
        "br",
    ),
}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_readme_brings_no_program_no_picture_and_no_other_page_in(room: Room, text: str) -> None:
    page = sheets(room, f"# T\n\n{text}\n")["s01"]
    assert {tag for tag, _ in page.elements} <= HARMLESS
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "action")]
        assert not (attributes.get("href") or "").lower().startswith(("javascript", "data", "vbscript", "file"))
    assert "\u202e" not in page.text
    assert "49" not in page.text


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "&lt;b&gt;"]
)
def test_names_and_descriptions_are_text(room: Room, text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    lab = LAB.replace("a: {", f"a: {{description: {quoted}, ")
    room.write(f"description: {quoted}\n", roster=f"[{{id: s01, name: {quoted}}}]", lab=lab)
    page = sheets(room)["s01"]
    assert {tag for tag, _ in page.elements} <= HARMLESS
    assert page.text.count(text) == 4  # the title, the heading, the description, the machine


def test_a_sheet_loads_nothing(room: Room) -> None:
    policies = [a["content"] for _, a in sheets(room)["s01"].elements if a.get("http-equiv")]
    assert len(policies) == 1
    assert (policies[0] or "").startswith("default-src 'none'; style-src 'sha256-")


def test_a_lab_without_a_readme_has_sheets_without_tasks(room: Room) -> None:
    room.up()
    (path, *_) = handout.write(room.spec, room.chosen(), room.folder / "out")
    assert "Tasks" not in path.read_text()


def test_a_readme_that_leads_out_of_the_lab_is_not_read(room: Room, tmp_path: Path) -> None:
    room.up()
    (tmp_path / "secret").write_text("secret")
    (room.folder / "lab" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="leads out of the lab's folder"):
        handout.write(room.spec, room.chosen(), room.folder / "out")
