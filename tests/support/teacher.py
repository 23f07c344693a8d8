"""The teacher's script of a lab with tasks: what it does is what a student is to do."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.command import Labctl


def score_before_and_after(labctl: Labctl, lab: Path) -> tuple[Any, Any]:
    """Run the script in a running lab: the score of the lab as it was, and then."""
    before = labctl.json("score", lab)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with replace(labctl, variables={**labctl.variables, "PATH": path}).spawn(str(lab / "teacher/solve.sh")) as script:
        said, complaint = script.communicate(timeout=280)
    assert script.returncode == 0, f"{said.decode()}\n{complaint.decode()}"
    return before, labctl.json("score", lab)
