"""Checks a document against ``schemas/lab.schema.json`` and says what its author meant.

The schema is the contract and the jsonschema library is its judge: nothing is planned that it refuses. What it says of
a refusal names the branch of the schema that failed where an author needs the key that was misspelt, so the walker,
which knows the part of JSON Schema (draft 2020-12) that the schema uses, does the explaining and comes first. The tests
hold the two to the same verdicts, so ``validate``, which runs at every commit, does without the judge's slow import.

Two rules make the messages good. Branches of ``anyOf`` differ in their JSON type, so that the branch that was meant is
known. ``errorMessage`` and ``patternErrorMessage``, which editors show too, say what is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from labctl import resources
from labctl.spec.problems import Finding, Keys, listed, nearest, quoted
from labctl.spec.values import FORMATS, BadValueError

Schema = Mapping[str, Any]

# Other languages' words for true and false, which are text in YAML 1.2; and the right words in quotes.
_TRUTH_WORDS = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}

SCHEMA_FILE = "schemas/lab.schema.json"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "object": ("a mapping", lambda value: isinstance(value, dict)),
    "array": ("a list", lambda value: isinstance(value, list)),
    "string": ("text", lambda value: isinstance(value, str)),
    "integer": ("a whole number", lambda value: _is_number(value) and float(value).is_integer()),
    "number": ("a number", _is_number),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "null": ("nothing", lambda value: value is None),
}


@cache
def load() -> Schema:
    """The schema that ships with labctl."""
    schema: Schema = json.loads(resources.text(SCHEMA_FILE))
    return schema


def findings(document: Any, schema: Schema | None = None, *, formats: bool = True) -> Iterator[Finding]:
    """Everything in ``document`` (plain values) that the schema does not allow.

    formats: also check the values that ``format`` names.
    """
    root = schema if schema is not None else load()
    return _Walker(root, formats).walk(root, document, ())


def refusals(document: Any, schema: Schema | None = None) -> Iterator[Finding]:
    """What the jsonschema library refuses, in its own words: the last line where the walker has nothing to say."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema if schema is not None else load()).iter_errors(document):
        yield Finding(tuple(error.absolute_path), error.message)


class _Walker:
    def __init__(self, root: Schema, formats: bool) -> None:
        self._definitions: Mapping[str, Schema] = root.get("$defs", {})
        self._formats = formats

    def walk(self, schema: Schema, value: Any, keys: Keys) -> Iterator[Finding]:
        """What ``schema`` does not allow in ``value``, outermost first."""
        if "$ref" in schema:
            yield from self.walk(self._definitions[schema["$ref"].removeprefix("#/$defs/")], value, keys)
        if "anyOf" in schema:
            yield from self._branch(schema, value, keys)
        wrong = _wrong_kind(schema, value, keys)
        if wrong:
            yield wrong
        elif isinstance(value, dict):
            yield from self._mapping(schema, value, keys)
        elif isinstance(value, list):
            yield from self._list(schema, value, keys)
        elif isinstance(value, str):
            yield from self._text(schema, value, keys)
        elif _is_number(value):
            yield from _number(schema, value, keys)

    def _branch(self, schema: Schema, value: Any, keys: Keys) -> Iterator[Finding]:
        """``anyOf``: the branch whose type fits the value is the one that was meant."""
        branches = [self._resolved(branch) for branch in schema["anyOf"]]
        for branch in branches:
            if _fits(branch, value):
                yield from self.walk(branch, value, keys)
                return
        kinds = [kind for branch in branches for kind in _kinds(branch) if kind != "null"]
        yield _unexpected(schema, kinds, value, keys)

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema and "type" not in schema:
            schema = self._definitions[schema["$ref"].removeprefix("#/$defs/")]
        return schema

    def _mapping(self, schema: Schema, value: dict[str, Any], keys: Keys) -> Iterator[Finding]:
        properties: Mapping[str, Schema] = schema.get("properties", {})
        patterns: Mapping[str, Schema] = schema.get("patternProperties", {})
        others: Schema | bool = schema.get("additionalProperties", True)
        yield from _required(schema, value, keys)
        yield from _size(schema, value, keys)
        for key, item in value.items():
            below = (*keys, key)
            if "propertyNames" in schema:
                names = self.walk(schema["propertyNames"], key, below)
                yield from (Finding(n.keys, n.message, n.allowed, n.nearest, n.hint, on_key=True) for n in names)
            matching = [properties[key]] if key in properties else []
            matching += [pattern for text, pattern in patterns.items() if _pattern(text).search(key)]
            for known in matching:
                yield from self.walk(known, item, below)
            if matching or others is True:
                continue
            if others is False:
                yield _unknown_key(schema, properties, value, below)
            else:
                yield from self.walk(others, item, below)

    def _list(self, schema: Schema, value: list[Any], keys: Keys) -> Iterator[Finding]:
        yield from _size(schema, value, keys)
        if schema.get("uniqueItems"):
            yield from _repeated(value, keys)
        if "items" in schema:
            for index, item in enumerate(value):
                yield from self.walk(schema["items"], item, (*keys, index))

    def _text(self, schema: Schema, value: str, keys: Keys) -> Iterator[Finding]:
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            limit = f"at most {schema['maxLength']} characters" if value else "not empty"
            yield Finding(keys, f"this text is {'too long' if value else 'empty'}", limit)
        elif "pattern" in schema and not _pattern(schema["pattern"]).search(value):
            yield _misfit(schema, value, keys)
        elif self._formats and "format" in schema:
            try:
                FORMATS[schema["format"]](value)
            except BadValueError as error:
                yield Finding(keys, str(error), _allowed(schema), error.nearest)


def _wrong_kind(schema: Schema, value: Any, keys: Keys) -> Finding | None:
    """A value of a type, or outside a choice, that ``schema`` does not have."""
    if "const" in schema and not _same(value, schema["const"]):
        only = quoted(schema["const"])
        hint = "Leave the quotes out." if value == only else ""
        return Finding(keys, f"{_described(value)} is not {only}", only, hint=hint)
    if "enum" in schema and not any(_same(value, choice) for choice in schema["enum"]):
        choices = [str(choice) for choice in schema["enum"]]
        return Finding(
            keys, f"{_described(value)} is not one of the choices", listed(choices), nearest(str(value), choices)
        )
    if "type" in schema and not _fits(schema, value):
        return _unexpected(schema, [kind for kind in _kinds(schema) if kind != "null"], value, keys)
    return None


def _unexpected(schema: Schema, kinds: list[str], value: Any, keys: Keys) -> Finding:
    expected = " or ".join(dict.fromkeys(_TYPES[kind][0] for kind in kinds))
    meant, hint = "", ""
    if "string" in kinds and _is_number(value):
        if schema.get("title") == "Size":
            meant = f"{quoted(value)} MiB"
        elif schema.get("format") in ("ports", "service"):
            meant = f"tcp/{quoted(value)}"
        else:
            hint = "Text that looks like a number needs quotes."
    elif kinds == ["boolean"] and isinstance(value, str):
        meant = _TRUTH_WORDS.get(value.lower(), "")
    elif kinds == ["integer"] and isinstance(value, str) and value.isdecimal():
        hint = "Leave the quotes out."
    elif "array" in kinds and "string" not in kinds and isinstance(value, str):
        meant = f"[{value}]" if len(value) < 60 and value.isprintable() else ""
    allowed = _allowed(schema) or (_range(schema) if kinds == ["integer"] else "")
    return Finding(keys, f"expected {expected}, found {_described(value)}", allowed, meant, hint)


def _misfit(schema: Schema, value: str, keys: Keys) -> Finding:
    title: str = schema.get("title", "value")
    first = title.partition(" ")[0]
    noun = title if first[1:].lower() != first[1:] else title[0].lower() + title[1:]
    article = "an" if noun.startswith(("SSH", "a", "e", "i", "o")) else "a"
    # What most often keeps a name from being one: capitals, and other words' separators.
    simple = value.lower().replace("_", "-").replace(" ", "-").replace(".", "-")
    meant = simple if simple != value and _pattern(schema["pattern"]).search(simple) else ""
    return Finding(keys, f"{quoted(value)} is not {article} {noun}", _allowed(schema), meant)


def _unknown_key(schema: Schema, properties: Mapping[str, Schema], value: dict[str, Any], keys: Keys) -> Finding:
    key = str(keys[-1])
    free = [name for name in properties if name not in value]
    close = nearest(key, free) or nearest(key.lower().replace("-", "_"), free)
    allowed = [*properties, *(["x-…"] if "patternProperties" in schema else [])]
    return Finding(keys, f"unknown key {quoted(key)}", listed(allowed), close, on_key=True)


def _required(schema: Schema, value: dict[str, Any], keys: Keys) -> Iterator[Finding]:
    for name in schema.get("required", ()):
        if name not in value:
            yield Finding(keys, f"the key {quoted(name)} is missing")
    if "oneOf" in schema:
        choices = [name for branch in schema["oneOf"] for name in branch["required"]]
        there = [name for name in choices if name in value]
        if len(there) != 1:
            found = "both are there" if there else "none is there"
            yield Finding(keys, f"exactly one of {' and '.join(choices)} is needed; {found}")


def _size(schema: Schema, value: dict[str, Any] | list[Any], keys: Keys) -> Iterator[Finding]:
    kind = "Properties" if isinstance(value, dict) else "Items"
    least, most = schema.get(f"min{kind}", 0), schema.get(f"max{kind}", len(value))
    if least <= len(value) <= most:
        return
    allowed = _allowed(schema) or (f"at least {least}" if len(value) < least else f"at most {most}")
    judged = (
        f"{len(value)} {'entry is' if len(value) == 1 else 'entries are'} too {'few' if len(value) < least else 'many'}"
    )
    yield Finding(keys, judged if value else "this is empty", allowed)


def _repeated(value: list[Any], keys: Keys) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, item in enumerate(value):
        text = json.dumps(item, sort_keys=True)
        if text in seen:
            yield Finding((*keys, index), f"{_described(item)} is there twice")
        seen.add(text)


def _number(schema: Schema, value: float, keys: Keys) -> Iterator[Finding]:
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    if not least <= value <= most:
        yield Finding(keys, f"{value} is out of range", _range(schema))


def _range(schema: Schema) -> str:
    return f"{schema['minimum']} to {schema['maximum']}"


def _allowed(schema: Schema) -> str:
    return str(schema.get("errorMessage") or schema.get("patternErrorMessage") or "")


def _kinds(schema: Schema) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _fits(schema: Schema, value: Any) -> bool:
    return any(_TYPES[kind][1](value) for kind in _kinds(schema))


def _same(value: Any, choice: Any) -> bool:
    return isinstance(value, bool) == isinstance(choice, bool) and bool(value == choice)


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return quoted(value)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of the schema. JSON Schema's ``$`` is the very end of the text, Python's also before a last newline."""
    return re.compile(text.removesuffix("$") + r"\Z" if text.endswith("$") else text)
