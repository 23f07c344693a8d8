"""The fixtures of a lab's own checks. They are there only for tests that lie in a lab's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labctl.errors import LabctlError
from labctl.lifecycle.locate import DEFAULT_INSTANCE
from labctl.plan.model import LabPlan
from labctl.pytest_plugin import lab_above
from labctl.pytest_plugin.lab import Lab, Labs
from labctl.verify.checks import is_points

if TYPE_CHECKING:
    from testinfra.host import Host

_LABS = pytest.StashKey[Labs]()


def pytest_configure(config: pytest.Config) -> None:
    """Say what marks there are, and have the place for running labs ready."""
    config.addinivalue_line("markers", "points(number): what this check is worth; labctl verify reports it.")
    config.addinivalue_line(
        "markers",
        "task(points=1): a student's task, open at first: labctl score counts it, labctl verify leaves it out.",
    )
    instance = config.getoption("lab_instance") or os.environ.get("LABCTL_INSTANCE") or DEFAULT_INSTANCE
    config.stash[_LABS] = Labs(instance, plug=config.getoption("lab_plug"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the connections to guests."""
    config.stash[_LABS].close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse points that are no number: they would be lost without a word."""
    for name, fewest in (("points", 1), ("task", 0)):
        mark = item.get_closest_marker(name)
        if mark is not None and (
            mark.kwargs or not fewest <= len(mark.args) <= 1 or not all(map(is_points, mark.args))
        ):
            pytest.fail(f"{name} takes one number that is not negative: @pytest.mark.{name}(5)", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the whole of an error of labctl's, not only its first line."""
    _ = item
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, LabctlError) and (error.details or error.hint):
        report.sections.append(("labctl", "\n".join(filter(None, (error.details, error.hint)))))
    return report


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Lab:
    """The running lab: ``name``, ``instance``, ``provider``, ``plan``, ``machines``, ``exec``, ``address``."""
    chosen = request.config.getoption("lab")
    file = Path(chosen).absolute() if chosen else lab_above(request.path.parent)
    if file is None:
        pytest.fail(f"{request.path} is in no lab: there is no lab.yaml above it", pytrace=False)
    found = request.config.stash[_LABS].get(file)
    if isinstance(found, LabctlError):
        pytest.fail("\n".join(filter(None, (found.brief, found.details, found.hint))), pytrace=False)
    return found


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Callable[[str], Host]:
    """``machine("web")``: a machine of the lab as a testinfra host; what it runs, it runs in the guest as root."""
    return lab.machine


@pytest.fixture(scope="module")
def plan(lab: Lab) -> LabPlan:
    """The plan that the lab was brought up from: every machine, address and flow."""
    return lab.plan


@pytest.fixture(scope="module")
def host() -> None:
    """Refused: testinfra's own fixture of this name would be the computer that runs the lab, not a machine in it."""
    pytest.fail('a lab\'s check has no `host`, which would be this computer: use machine("NAME")', pytrace=False)
