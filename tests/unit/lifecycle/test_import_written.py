"""The text of an imported lab: whatever values and comments hold, it is YAML that says what was meant."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from labctl.lifecycle.foreign.draft import Draft
from labctl.lifecycle.foreign.written import written
from labctl.spec import source
from labctl.spec.nodes import plain

pytestmark = pytest.mark.unit

HOSTILE = [
    "plain",
    "",
    " ",
    "yes",
    "null",
    "~",
    "010",
    "0o17",
    "0x1f",
    "1e3",
    "1:30",
    "2026-11-23",
    ".inf",
    "- item",
    "key: value",
    "a # comment",
    "{flow: 1}",
    "*alias",
    "&anchor",
    "!tag",
    "%directive",
    "---",
    "...",
    'it\'s "both"',
    "tab\there",
    "trailing ",
    "back\\slash",
    "line\nbreak",
    "\n",
    "\n\n",
    "text\n\n\n",
    "  indented\nless\n",
    "\tx\n",
    "end\r\nof\rline",
    "blank\n   \nline",
    "trailing \nblank",
    "#!/bin/sh\n# comment: no\n",
    "\x07bell",
    "\x85next",
    "sep\u2028arator\u2029",
    "\ufeffbom",
    "ünïcødé 🦊",
    "x" * 5000,
    "word " * 400,
    "---\n...\n",
]


def read_back(text: str, folder: Path) -> dict[str, object]:
    path = folder / "lab.yaml"
    path.write_bytes(text.encode())
    value = plain(source.read(path).root)
    assert isinstance(value, dict)
    return value


def lab(texts: list[str], notes: list[str]) -> Draft:
    draft = Draft("lab", "test")
    draft.notes.extend(notes)
    for index, text in enumerate(texts):
        machine = draft.machine(f"m{index}")
        machine.notes.extend(notes)
        machine.does({"shell": text})
        machine.does({"script": {"source": text, "args": [text, text]}})
    network = draft.network("n")
    network.notes.extend(notes)
    draft.groups["group"] = texts
    return draft


def assert_same(texts: list[str], notes: list[str], folder: Path) -> None:
    value = read_back(written(lab(texts, notes), notes), folder)
    machines = value["machines"]
    assert isinstance(machines, dict)
    assert list(machines) == [f"m{index}" for index in range(len(texts))]
    for text, machine in zip(texts, machines.values(), strict=True):
        assert machine["provision"] == [{"shell": text}, {"script": {"source": text, "args": [text, text]}}]
    assert value["x-groups"] == {"group": texts}
    assert list(value) == ["version", "name", "networks", "machines", "x-groups"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_text_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    assert_same([text, "after"], [text], tmp_path)


@pytest.mark.parametrize("seed", range(60))
def test_random_texts_come_back_as_they_were(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    alphabet = "ab \t\n\r#:-'\"\\|>{}[]&*!%@`0.1~\x85\u2028é🦊"
    texts = ["".join(chance.choices(alphabet, k=chance.randrange(40))) for _ in range(8)]
    assert_same(texts, texts, tmp_path)


def test_a_comment_is_lines_that_begin_with_a_hash(tmp_path: Path) -> None:
    draft = Draft("lab", "test")
    draft.note("one\nmachines: {evil: {}}\r\x85\u2028two " + "long " * 300)
    draft.machine("m").notes.append("x" * 1000)
    text = written(draft)
    assert "\n# - one\\nmachines: {evil: {}}\\r\\x85\\u2028two long" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert read_back(text, tmp_path)["machines"] == {"m": {"image": "debian-12"}}


def test_what_is_left_to_mend_comes_first() -> None:
    text = written(Draft("lab", "test"), ["machines: too few"])
    assert text.splitlines()[1:3] == ["# Still to mend:", "# - machines: too few"]
