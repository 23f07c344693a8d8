"""Files that the spec names: there, and inside the lab's folder. The only rules that look at the disk."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.errors import UsageError
from labctl.spec.files import lab_file
from labctl.spec.model import FileStep, ScriptStep
from labctl.spec.problems import Finding, Keys, quoted
from labctl.spec.rules.context import Context


def missing(context: Context) -> Iterator[Finding]:
    """Sources, scripts and checks that are not there, or whose links lead out of the lab's folder."""
    root = context.spec.root
    for keys, source in _sources(context):
        try:
            lab_file(root, source)
        except UsageError as error:
            yield Finding(keys, error.brief)
    checks = context.spec.checks
    if checks is not None:
        folder = (root / checks).resolve()
        if not folder.is_relative_to(root.resolve()):
            yield Finding(("checks",), f"{quoted(checks)} leads out of the lab's folder")
        elif not folder.is_dir():
            yield Finding(("checks",), f"there is no folder {quoted(checks)}", hint="Make it, or remove this line.")


def _sources(context: Context) -> Iterator[tuple[Keys, str]]:
    for machine in context.spec.machines.values():
        for index, step in enumerate(machine.provision):
            keys = ("machines", machine.name, "provision", index)
            if isinstance(step, FileStep) and step.source is not None:
                yield (*keys, "file", "source"), step.source
            elif isinstance(step, ScriptStep):
                mapping = isinstance(context.written(machine.name)["provision"][index]["script"], dict)
                yield (*keys, "script", *(("source",) if mapping else ())), step.source
