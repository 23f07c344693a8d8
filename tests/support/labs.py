"""Specs and plans from the text of a lab, without a file of their own in the tree."""

from __future__ import annotations

import tempfile
from pathlib import Path
from textwrap import dedent
from typing import Any

from labctl.plan.build import build
from labctl.plan.model import Flow, LabPlan
from labctl.spec.load import load
from labctl.spec.model import LabSpec
from labctl.spec.problems import SpecError

_HEAD = "version: 1\nname: {name}\ndefaults: {{image: debian-12}}\n"


def spec_of(text: str, name: str = "t") -> LabSpec:
    """The spec of a lab whose head (version, name, default image) is written already."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lab.yaml"
        file.write_text(_HEAD.format(name=name) + dedent(text), encoding="utf-8")
        try:
            return load(file)
        except SpecError as error:
            raise AssertionError("\n".join(str(problem) for problem in error.problems)) from None


def plan_of(text: str, **options: Any) -> LabPlan:
    """The plan of such a text."""
    return build(spec_of(text), **options)


def flow(plan: LabPlan, source: str, target: str, protocol: str, port: int = 0, family: int = 4, **more: str) -> Flow:
    """The one flow between two machines with these properties; ``more`` narrows by device or address."""
    found = [
        f
        for f in plan.flows
        if (f.source, f.target, f.protocol, f.port, f.family) == (source, target, protocol, port, family)
        and f.source_device != plan.management.device
        and all(getattr(f, key) == value for key, value in more.items())
    ]
    assert len(found) == 1, found
    return found[0]
