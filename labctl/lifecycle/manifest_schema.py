"""The schema of a bundle's table of contents: no value of one is looked at before the table has passed it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from labctl.state.checkpoints import NAME

FORMAT = "labctl-bundle"
VERSION = 3
"""The highest that is read."""

MAX_FILES = 20_000
"""Of a lab."""

_LARGEST = 1 << 41  # bytes of one file: 2 TiB, as the largest disk

_SHA256 = {"type": "string", "pattern": r"^[0-9a-f]{64}\Z"}
_SIZE = {"type": "integer", "minimum": 0, "maximum": _LARGEST}
_TEXT = {"type": "string", "maxLength": 1000}
_WORD = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9+.~:_-]{0,127}\Z"}
_LABEL = {"type": "string", "pattern": r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z"}
_PROOF = {"type": "string", "pattern": r"^[0-9a-f]{32}:[0-9a-f]{64}\Z"}
_LINE = {"type": "string", "pattern": r"^[\x20-\x7e]{0,200}\Z"}


def _record(*, optional: Mapping[str, Any] = MappingProxyType({}), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**properties, **optional},
        "required": sorted(properties),
        "additionalProperties": False,
    }


SCHEMA = _record(
    optional={"class": _LABEL},
    format={"const": FORMAT},
    version={"enum": [1, 2, VERSION]},
    labctl=_WORD,
    lab=_LABEL,
    provider=_WORD,
    files={
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_FILES,
        "items": _record(
            path={"type": "string", "maxLength": 1000}, size=_SIZE, sha256=_SHA256, executable={"type": "boolean"}
        ),
    },
    images={
        "type": "array",
        "maxItems": 1000,
        "items": _record(
            image=_TEXT,
            user=_TEXT,
            cmdline=_TEXT,
            packages={"type": "array", "items": _WORD, "maxItems": 1000},
            files={
                "type": "array",
                "minItems": 1,
                "maxItems": 8,
                "items": _record(name=_WORD, size=_SIZE, sha256=_SHA256),
            },
            left_out={"type": "object", "propertyNames": _WORD, "additionalProperties": _SHA256, "maxProperties": 8},
            versions={"type": "object", "propertyNames": _WORD, "additionalProperties": _WORD, "maxProperties": 20_000},
        ),
    },
    checkpoints={
        "type": "array",
        "maxItems": 1,
        "items": _record(
            optional={
                "proofs": {
                    "type": "object",
                    "propertyNames": _LABEL,
                    "additionalProperties": _PROOF,
                    "minProperties": 1,
                    "maxProperties": 100,
                }
            },
            id={"type": "string", "pattern": r"^[0-9a-f]{12}\Z"},
            name={"type": "string", "pattern": rf"^{NAME.pattern}\Z"},
            instance=_LABEL,
            created={"type": "integer", "minimum": 0, "maximum": 1 << 40},
            sealed={"type": "boolean"},
            machines={
                "type": "array",
                "minItems": 1,
                "maxItems": 1000,
                "items": _record(
                    name=_LABEL,
                    state={"enum": ["running", "stopped"]},
                    marked={"type": "boolean"},
                    disks={
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 64,
                        "items": _record(size=_SIZE, sha256=_SHA256),
                    },
                    needs={
                        "type": "object",
                        "propertyNames": _WORD,
                        "additionalProperties": _LINE,
                        "maxProperties": 16,
                    },
                ),
            },
        ),
    },
)
