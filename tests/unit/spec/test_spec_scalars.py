"""Plain text in YAML 1.2: the traps of YAML 1.1 stay text."""

from __future__ import annotations

import math

import pytest

from labctl.spec.scalars import CORE_TAG, Unusable, resolve, tagged

pytestmark = pytest.mark.unit


STAYS_TEXT = [
    *("yes", "no", "on", "off", "Yes", "NO", "y", "n", "tRue", "nULL", "inf", "nan", ".Inf."),
    *("1:30", "190:20:30", "2026-11-23", "2026-11-23 10:00", "10.0.0.1", "1.2.3", "tcp/80", "1_000", "٣"),
    *("0b1010", "+0x1F", "-0o7", "0o8", "0xG", "0x", "1e", ".", "-", "+", "<<", "=", "1 ", "1\n"),
]


@pytest.mark.parametrize("text", STAYS_TEXT)
def test_text_stays_text(text: str) -> None:
    assert resolve(text) == text
    assert isinstance(resolve(text), str)


CORE: list[tuple[object, tuple[str, ...]]] = [
    (None, ("", "~", "null", "Null", "NULL")),
    (True, ("true", "True", "TRUE")),
    (False, ("false", "False", "FALSE")),
    (10, ("10", "010", "+10", "0o12", "0xA", "0xa")),
    (0, ("0", "-0", "00")),
    (8, ("08",)),
    (-12, ("-12", "-012")),
    (1.5, ("1.5", "+1.5", "15e-1", "0.15E1")),
    (0.5, (".5",)),
    (1000.0, ("1e3", "1000.")),
    (math.inf, (".inf", ".Inf", "+.INF")),
    (-math.inf, ("-.inf",)),
]


@pytest.mark.parametrize(("text", "value"), [(text, value) for value, texts in CORE for text in texts])
def test_core_schema(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_not_a_number() -> None:
    value = resolve(".nan")
    assert isinstance(value, float) and math.isnan(value)


def test_numbers_have_a_length_limit() -> None:
    assert isinstance(resolve("9" * 41), Unusable)
    assert isinstance(resolve("0x" + "f" * 5000), Unusable)
    assert resolve("9" * 40) == int("9" * 40)


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [
        ("str", "12", "12"),
        ("str", "", ""),
        ("int", "12", 12),
        ("float", "1", 1.0),
        ("bool", "true", True),
        ("null", "", None),
    ],
)
def test_core_tags(tag: str, text: str, value: object) -> None:
    assert tagged(CORE_TAG + tag, text) == value
    assert type(tagged(CORE_TAG + tag, text)) is type(value)


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        *(("int", "two"), ("int", "true"), ("bool", "1"), ("bool", "yes"), ("null", "x"), ("float", "true")),
        *(("binary", "aGk="), ("timestamp", "2026-11-23"), ("python/name:os.system", ""), ("merge", "<<"), ("set", "")),
    ],
)
def test_other_tags_are_unusable(tag: str, text: str) -> None:
    assert isinstance(tagged(CORE_TAG + tag, text), Unusable)
    assert isinstance(tagged("!" + tag, text), Unusable)
