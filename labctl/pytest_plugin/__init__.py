"""pytest's side of a lab's own checks: this module is loaded with every pytest on the computer, so it does nothing.

Only where a test lies in the folder of a lab (below a ``lab.yaml``), the fixtures are there and anything is imported.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_FIXTURES = "labctl.pytest_plugin.fixtures"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the lab is that tests are about."""
    from argparse import SUPPRESS

    group = parser.getgroup("labctl", "a lab's own checks")
    group.addoption("--lab", metavar="LAB", help="the lab (default: the lab.yaml above each test)")
    group.addoption(
        "--lab-instance",
        metavar="NAME",
        help="the running copy of the lab (default: LABCTL_INSTANCE, else 'default')",
    )
    group.addoption("--lab-plug", action="store_true", help="as `labctl verify --plug`")
    # For labctl verify and score alone: which checks they want, and where they hear how these go.
    group.addoption("--lab-tasks", choices=("alone", "none"), help=SUPPRESS)
    group.addoption("--lab-journal", metavar="FILE", help=SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    """Tell labctl how the checks go, where it asked."""
    journal = config.getoption("lab_journal")
    if journal:
        from labctl.pytest_plugin.recorder import Recorder

        config.pluginmanager.register(Recorder(Path(journal), config.rootpath, config.getoption("lab_tasks")))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> None:
    """Bring in the fixtures with the first test that lies in a lab."""
    plugins = parent.config.pluginmanager
    if file_path.suffix != ".py" or plugins.has_plugin(_FIXTURES):
        return
    if parent.config.getoption("lab") or lab_above(file_path.parent) is not None:
        from labctl.pytest_plugin import fixtures

        plugins.register(fixtures, _FIXTURES)


@cache
def lab_above(folder: Path) -> Path | None:
    """The nearest ``lab.yaml`` in a folder or above it."""
    file = folder / "lab.yaml"
    if file.is_file():
        return file
    return lab_above(folder.parent) if folder.parent != folder else None
