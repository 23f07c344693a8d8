"""Text and pictures made from a plan: the provider's own files, and the topology."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labctl.errors import UsageError
from labctl.host.files import write_atomic
from labctl.host.runner import Runner
from labctl.lifecycle.locate import Draft
from labctl.plan import graph
from labctl.plan.model import LabPlan


def rendered(draft: Draft) -> Mapping[str, str]:
    """The provider's files for a lab: relative file name to text. Nothing is built or fetched for it."""
    return draft.backend.render(draft.plan, {})


def write(files: Mapping[str, str], folder: Path) -> tuple[Path, ...]:
    """Write rendered files into a folder and give their paths. Raises UsageError for a name that would leave it."""
    paths = []
    for name, text in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise UsageError(f"refusing to write {name} outside {folder}")
        write_atomic(path, text)
        paths.append(path)
    return tuple(paths)


def topology(plan: LabPlan, form: str) -> str:
    """The topology as ``mermaid``, ``dot`` or ``svg``; svg needs Graphviz. Raises HostError where it is missing."""
    if form == "mermaid":
        return graph.mermaid(plan)
    source = graph.dot(plan)
    if form == "dot":
        return source
    return (
        Runner()
        .run(
            ["dot", "-Tsvg"],
            stdin=source.encode(),
            changes=False,
            hint="apt install graphviz, or use --format mermaid.",
        )
        .text
    )
