"""Names that labctl takes, out of names that others take."""

from __future__ import annotations

import json
import random
import re

import pytest

from labctl.lifecycle.foreign.names import Names, as_name
from labctl.spec import schema
from labctl.spec.rules.names import RESERVED

pytestmark = pytest.mark.unit

VALID = re.compile(schema.load()["$defs"]["name"]["pattern"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web", "web"),
        ("Web_Server 1", "web-server-1"),
        ("--a--b--", "a-b"),
        ("Übung №1", "ubung-no1"),
        ("1st", "machine-1st"),
        ("сервер", "machine"),
        ("", "machine"),
        ("\n: {}", "machine"),
        ("host.example.test", "host-example-test"),
        ("a" * 70, "a" * 63),
        ("a" * 62 + "-b", "a" * 62),
    ],
)
def test_a_name_is_made_valid(text: str, name: str) -> None:
    assert as_name(text, "machine") == name


def test_nobody_gets_a_name_that_is_taken_or_labctls_own() -> None:
    names = Names()
    assert [names.take("a", "machine") for _ in range(3)] == ["a", "a-2", "a-3"]
    assert names.take("A-2", "machine") == "a-2-2"
    assert names.take("host", "machine") == "host-2"
    assert names.take("windows-server-one", "machine", 15) == "windows-server"
    assert names.take("windows-server-two", "machine", 15) == "windows-serve-2"
    assert not names.free("windows-server-three", "machine", 15)


@pytest.mark.parametrize("seed", range(20))
def test_any_text_gives_a_valid_name_of_its_own(seed: int) -> None:
    chance = random.Random(seed)
    names, taken = Names(), set(RESERVED)
    for _ in range(100):
        limit = chance.choice([15, 63])
        text = "".join(
            chr(chance.choice([chance.randrange(32, 127), chance.randrange(0x3000)])) for _ in range(limit + 5)
        )
        name = names.take(text[: chance.randrange(limit + 5)], "machine", limit)
        assert VALID.match(name), json.dumps(text)
        assert len(name) <= limit
        assert name not in taken
        taken.add(name)
