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
from labctl.plan.reach import blast_of
from labctl.spec.files import read_lab_file
from labctl.spec.model import FileStep, ScriptStep


def rendered(draft: Draft) -> Mapping[str, str]:
    """The provider's files for a lab: relative file name to text. Nothing is built or fetched for it."""
    return draft.backend.render(draft.plan, {})


def write(draft: Draft, folder: Path) -> tuple[Path, ...]:
    """Write a lab's rendered files into a folder, beside them the lab's own files that they name; give the paths.

    Raises UsageError for a name that would leave the folder, and where rendered and own files share a name.
    """
    files: dict[str, bytes] = {name: text.encode() for name, text in rendered(draft).items()}
    for source in _sources(draft.plan):
        if source in files:
            raise UsageError(f"the lab's file {source} has the name of a rendered one", hint="Rename it in the lab.")
        files[source] = read_lab_file(draft.spec.root, source)
    targets = {name: (folder / name).resolve() for name in files}
    for name, path in targets.items():
        if not path.is_relative_to(folder.resolve()):
            raise UsageError(f"refusing to write {name} outside {folder}")
    for name, path in targets.items():
        if path != (draft.spec.root / name).resolve():  # rendering into the lab's own folder leaves its files alone
            write_atomic(path, files[name])
    return tuple(targets.values())


def _sources(plan: LabPlan) -> list[str]:
    """The lab's files that provisioning steps name."""
    steps = [step for machine in plan.machines for step in machine.steps]
    return sorted({s.source for s in steps if isinstance(s, FileStep | ScriptStep) and s.source is not None})


def topology(plan: LabPlan, form: str, start: str | None = None) -> str:
    """The topology as ``mermaid``, ``dot`` or ``svg``; svg needs Graphviz. Raises HostError where it is missing.

    start: colour what the owner of this machine could reach. Raises UsageError where there is no such machine.
    """
    blast = blast_of(plan, start) if start is not None else None
    if form == "mermaid":
        return graph.mermaid(plan, blast)
    source = graph.dot(plan, blast)
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
