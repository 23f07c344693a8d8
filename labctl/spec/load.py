"""The way in: a path becomes a LabSpec, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from labctl import resources
from labctl.spec import rules, schema, source
from labctl.spec.build import build
from labctl.spec.compose import MAX_VALUES
from labctl.spec.model import LabSpec
from labctl.spec.nodes import Node, plain, with_defaults
from labctl.spec.problems import MAX_PROBLEMS, Finding, Problem, SpecError


def load(path: Path) -> LabSpec:
    """Read a lab file, or the ``lab.yaml`` of a folder.

    Raises SpecError with all problems of the first phase that found any: YAML, schema, rules.
    """
    return _load(path, judged=True)


def check(path: Path) -> tuple[Problem, ...]:
    """The problems of a lab file or folder, in the order of the file; empty where it is right."""
    try:
        _load(path, judged=False)
    except SpecError as error:
        return error.problems
    return ()


def _load(path: Path, *, judged: bool) -> LabSpec:
    document = source.read(path)
    written = plain(document.root)
    stop_at(document, schema.findings(written), document.root)
    if judged:
        stop_at(document, schema.refusals(written), document.root)
    stop_at(document, _too_many_defaults(written), document.root)
    full = with_defaults(document.root)
    data = plain(full)
    spec = build(data, document.file.absolute())
    stop_at(document, rules.findings(spec, data), full)
    return spec


def schema_text() -> str:
    """The JSON Schema of the spec language, as it ships."""
    return resources.text(schema.SCHEMA_FILE)


def stop_at(document: source.Document, findings: Iterable[Finding], root: Node) -> None:
    """Raise SpecError with what was found, placed in the document; nothing where nothing was. root: see ``place``."""
    problems: dict[tuple[int, int, str], Problem] = {}
    for problem in (document.place(finding, root) for finding in islice(findings, MAX_PROBLEMS)):
        # A mistake in defaults or behind an alias is one mistake, however many machines inherit it.
        problems.setdefault((problem.line, problem.column, problem.message), problem)
    if problems:
        raise SpecError(tuple(problems.values()))


def _too_many_defaults(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Defaults multiply like aliases, so they have the same limit."""
    total = _size(data.get("defaults")) * len(data["machines"])
    if total > MAX_VALUES:
        yield Finding(("defaults",), f"these defaults make {total} values", f"{MAX_VALUES} at most", on_key=True)


def _size(value: Any) -> int:
    """The number of values in a value, itself included."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, below))
