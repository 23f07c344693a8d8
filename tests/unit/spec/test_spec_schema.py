"""The schema as a contract with authors and editors, and the walker that reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from labctl.spec import schema as module
from labctl.spec.load import schema_text
from labctl.spec.nodes import plain
from labctl.spec.problems import SpecError
from labctl.spec.source import read
from labctl.spec.values import FORMATS

pytestmark = pytest.mark.unit

SCHEMA = json.loads(schema_text())
REFEREE = jsonschema.Draft202012Validator(SCHEMA)
SPECS = Path(__file__).parents[2] / "golden" / "spec"

STRUCTURE = {
    "$ref",
    "anyOf",
    "oneOf",
    "type",
    "enum",
    "const",
    "properties",
    "patternProperties",
    "additionalProperties",
}
LIMITS = {"required", "propertyNames", "items", "uniqueItems", "pattern", "format", "minimum", "maximum"}
LIMITS |= {f"{side}{what}" for side in ("min", "max") for what in ("Properties", "Items", "Length")}
NOTES = {
    "title",
    "description",
    "examples",
    "default",
    "errorMessage",
    "patternErrorMessage",
    "$schema",
    "$id",
    "$defs",
}


def nodes(schema: Any = SCHEMA, where: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every subschema, with a pointer to it."""
    yield where, schema
    for group in ("properties", "patternProperties", "$defs"):
        for name, below in schema.get(group, {}).items():
            yield from nodes(below, f"{where}/{group}/{name}")
    for group in ("items", "propertyNames", "additionalProperties"):
        if isinstance(schema.get(group), dict):
            yield from nodes(schema[group], f"{where}/{group}")
    for index, below in enumerate(schema.get("anyOf", ())):
        yield from nodes(below, f"{where}/anyOf/{index}")


NODES = dict(nodes())
FIELDS = {where: node for where, node in NODES.items() if re.search(r"/(properties|\$defs)/[^/]+$", where)}


def documents() -> list[Any]:
    """Every golden lab, good or bad, that is YAML at all."""
    found = []
    for file in sorted(SPECS.glob("*/*.yaml")):
        try:
            found.append(pytest.param(plain(read(file).root), id=file.stem))
        except SpecError:
            continue
    return found


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_walker_knows_every_word_of_the_schema() -> None:
    used = {word for node in NODES.values() for word in node}
    assert used <= STRUCTURE | LIMITS | NOTES
    assert {node["format"] for node in NODES.values() if "format" in node} == set(FORMATS)
    assert {node["$ref"] for node in NODES.values() if "$ref" in node} <= {
        f"#/$defs/{name}" for name in SCHEMA["$defs"]
    }


@pytest.mark.parametrize("where", FIELDS)
def test_an_editor_can_explain_every_field(where: str) -> None:
    node = FIELDS[where]
    assert node.get("title") and node.get("description") and node.get("examples")
    assert node["description"].endswith(".")
    for example in node["examples"]:
        assert list(module.findings(example, {**node, "$defs": SCHEMA["$defs"]})) == []


def test_every_definition_is_used() -> None:
    text = json.dumps(SCHEMA)
    assert [name for name in SCHEMA["$defs"] if f'"#/$defs/{name}"' not in text] == []


def test_every_mapping_refuses_unknown_keys() -> None:
    for where, node in NODES.items():
        if "properties" in node:
            assert node["additionalProperties"] is False, where


def test_branches_differ_in_their_type() -> None:
    for where, node in NODES.items():
        kinds = [kind for branch in node.get("anyOf", ()) for kind in _kinds(branch)]
        assert len(kinds) == len(set(kinds)), where
        assert all(_kinds(branch) for branch in node.get("anyOf", ())), where


def _kinds(node: dict[str, Any]) -> list[str]:
    node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    return [node["type"]] if isinstance(node["type"], str) else node["type"]


def test_a_pattern_holds_to_the_end_of_the_text() -> None:
    for where, node in NODES.items():
        assert node.get("pattern", "^$").startswith("^") and node.get("pattern", "^$").endswith("$"), where
    assert list(module.findings("web\n", {"type": "string", "pattern": "^[a-z]+$", "title": "Name"}))


def test_every_field_is_used_by_a_valid_example() -> None:
    seen: set[str] = set()
    for file in (SPECS / "valid").glob("*.yaml"):
        _visit(SCHEMA, plain(read(file).root), "#", seen)
    unused = [where for where in NODES if re.search(r"/properties/[^/]+$", where) and where not in seen]
    assert unused == []


def _visit(schema: dict[str, Any], value: Any, where: str, seen: set[str]) -> None:
    """Notes every subschema that some value passes through."""
    seen.add(where)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        _visit(SCHEMA["$defs"][name], value, f"#/$defs/{name}", seen)
    for index, branch in enumerate(schema.get("anyOf", ())):
        kinds = {"string": str, "array": list, "object": dict, "null": type(None)}
        if isinstance(value, tuple(kinds[kind] for kind in _kinds(branch))):
            _visit(branch, value, f"{where}/anyOf/{index}", seen)
    if isinstance(value, list) and "items" in schema:
        for item in value:
            _visit(schema["items"], item, f"{where}/items", seen)
    for key, item in value.items() if isinstance(value, dict) else ():
        if key in schema.get("properties", {}):
            _visit(schema["properties"][key], item, f"{where}/properties/{key}", seen)
        elif isinstance(schema.get("additionalProperties"), dict):
            _visit(schema["additionalProperties"], item, f"{where}/additionalProperties", seen)


@pytest.mark.parametrize("document", documents())
def test_the_walker_agrees_with_the_referee_on_every_golden_lab(document: Any) -> None:
    assert _ours(document) == REFEREE.is_valid(document)


WRONG: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    2.0,
    10**30,
    "",
    "A b",
    "x" * 300,
    [],
    [None],
    ["a", "a"],
    {},
    {"a": 1},
    {"x-a": 1},
)


def test_the_walker_agrees_with_the_referee_on_every_way_to_spoil_a_lab() -> None:
    """Each value of the fullest lab replaced by each wrong one, each key taken away or added."""
    document = plain(read(SPECS / "valid" / "everything.yaml").root)
    assert _ours(document) and REFEREE.is_valid(document)
    # A seventh of them, which falls on every field and every wrong value in turn.
    verdicts = [(_ours(spoilt), spoilt) for spoilt in islice(_spoilt(document), 0, None, 7)]
    assert sum(not ours for ours, _ in verdicts) > 300
    assert [spoilt for ours, spoilt in verdicts if ours != REFEREE.is_valid(spoilt)] == []


def _ours(document: Any) -> bool:
    return next(module.findings(document, formats=False), None) is None


def _spoilt(document: Any) -> Iterator[Any]:
    for keys in _paths(document):
        for wrong in WRONG:
            yield _with(document, keys, lambda parent, key, wrong=wrong: {**parent, key: wrong})
        yield _with(document, keys, lambda parent, key: {k: v for k, v in parent.items() if k != key})
        if isinstance(keys[-1], str):
            yield _with(document, keys, lambda parent, key: {**parent, "unknown": parent[key]})


def _paths(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in below:
        yield (*keys, key)
        yield from _paths(item, (*keys, key))


def _with(value: Any, keys: tuple[Any, ...], change: Callable[[dict[Any, Any], Any], dict[Any, Any]]) -> Any:
    """The document with the last key's parent, a list taken as a mapping of its indices, changed."""
    parent = value if isinstance(value, dict) else dict(enumerate(value))
    if len(keys) == 1:
        changed = change(parent, keys[0])
    else:
        changed = {**parent, keys[0]: _with(parent[keys[0]], keys[1:], change)}
    return changed if isinstance(value, dict) else list(changed.values())


def test_the_library_has_the_last_word() -> None:
    (refused,) = module.refusals({"a": 1}, {"not": {"required": ["a"]}})
    assert "should not be valid" in refused.message
