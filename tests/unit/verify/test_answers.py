"""Guests' answers are untrusted: size, shape and ownership."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labctl.verify import answers
from labctl.verify.answers import Answer, BadAnswer, Opened
from labctl.verify.wires import Overheard

pytestmark = pytest.mark.unit

GOOD = [7, "silence", "", 0, ""]


def said(*rows: Any, links: Any = None) -> bytes:
    return json.dumps({"results": list(rows), "links": {} if links is None else links}).encode()


def test_a_good_answer() -> None:
    batch = answers.batch(
        said(GOOD, [8, "answered", "echo reply", 12, ""], links={"eth0": "up", "mgmt": "down"}), [7, 8]
    )
    assert batch.answers == {7: Answer("silence", "", 0, ""), 8: Answer("answered", "echo reply", 12, "")}
    assert batch.linked == {"eth0"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{",
        b"[" * 200_000,
        b'{"results":' * 100_000,
        b'{"results": [], "links": {}}' + b" " * answers.MAX_BYTES,
        b'{"results": {}, "links": {}}',
        b'{"results": []}',
        b'{"results": [], "links": []}',
        b'{"results": [[' + b"9" * 10_000 + b', "silence", "", 0, ""]], "links": {}}',
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_answers_of_the_wrong_form(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        answers.batch(raw, [7])


@pytest.mark.parametrize(
    "row",
    [
        [9, "silence", "", 0, ""],
        [True, "silence", "", 0, ""],
        ["7", "silence", "", 0, ""],
        [7.0, "silence", "", 0, ""],
        [7, "PASS", "", 0, ""],
        [7, ["silence"], "", 0, ""],
        [7, "silence", "", "0", ""],
        [7, "silence", {}, 0, ""],
        [7, "silence", "", 0],
        [7, "silence", "", 0, "", ""],
        {"id": 7},
        7,
        None,
    ],
    ids=str,
)
def test_results_of_the_wrong_shape_or_owner(row: Any) -> None:
    with pytest.raises(BadAnswer):
        answers.batch(said(row), [7, 1])


def test_nobody_answers_twice() -> None:
    with pytest.raises(BadAnswer, match="not its own"):
        answers.batch(said(GOOD, GOOD), [7])


def test_texts_are_short_and_printable() -> None:
    batch = answers.batch(said([7, "silence", "\x1b[31mred\n" + "x" * 5000, -5, "\x00"]), [7])
    assert batch.answers[7].details == "?[31mred?" + "x" * (answers.MAX_TEXT - 9)
    assert batch.answers[7].proof == "?"
    assert batch.answers[7].milliseconds == 0


def test_listeners() -> None:
    doors = b'"opened": [[0, "open"], [1, "taken"]]'
    assert answers.opened(b"{%s}" % doors, 2) == Opened({0: "open", 1: "taken"}, ())
    said = answers.opened(b'{%s, "pid": 77, "pipes": [5, 6]}' % doors, 2)
    assert said.pipes == ("/proc/77/fd/5", "/proc/77/fd/6")
    for raw in (b'{"opened": [[2, "open"]]}', b'{"opened": [[-1, "open"]]}', b'{"opened": [[0, 1]]}', b"{}", b"7"):
        with pytest.raises(BadAnswer):
            answers.opened(raw, 2)


@pytest.mark.parametrize("where", ['"pid": "1/../2"', '"pid": -7', '"pid": 1.5', '"pid": null'])
@pytest.mark.parametrize("pipes", ["[5, 6]", '["5", 6]', "[5]", "[-1, 6]", "7"])
def test_a_guest_names_no_other_path(where: str, pipes: str) -> None:
    assert answers.opened(f'{{"opened": [], {where}, "pipes": {pipes}}}'.encode(), 2).pipes == ()
    if pipes != "[5, 6]":
        assert answers.opened(f'{{"opened": [], "pid": 7, "pipes": {pipes}}}'.encode(), 2).pipes == ()


def test_arrivals_are_texts() -> None:
    assert answers.collected(b'{"arrived": ["aa", 7, ["bb"], {}], "wires": []}') == ({"aa"}, Overheard())
    with pytest.raises(BadAnswer):
        answers.collected(b'{"arrived": "aa", "wires": []}')


def test_what_was_heard_on_the_wires() -> None:
    mac = "52:54:00:00:00:01"
    said = [
        ["in", "eth0", "aa"],
        ["out", "eth1", "bb"],
        ["from", "eth0", mac, "86dd"],
        ["claim", "eth0", "10.1.0.1", mac],
        ["claim", "eth0", "FE80::1", mac],
    ]
    _, heard = answers.collected(json.dumps({"arrived": [], "wires": said}).encode())
    assert heard == Overheard(
        frozenset({("eth0", "aa")}),
        frozenset({("eth1", "bb")}),
        frozenset({("eth0", mac, 0x86DD)}),
        frozenset({("eth0", "10.1.0.1", mac), ("eth0", "fe80::1", mac)}),
    )


@pytest.mark.parametrize(
    "row",
    [
        ["in", "eth0"],
        ["up", "eth0", "aa"],
        ["from", "eth0", "52:54", "0800"],
        ["from", "eth0", "52:54:00:00:00:01", "8"],
        ["claim", "eth0", "10.1.0.256", "52:54:00:00:00:01"],
        ["claim", "eth0", "10.1.0.2", "<b>"],
        "in eth0 aa",
    ],
)
def test_what_was_heard_has_one_shape(row: object) -> None:
    with pytest.raises(BadAnswer):
        answers.collected(json.dumps({"arrived": [], "wires": [row]}).encode())
