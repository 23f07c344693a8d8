"""What holds for every test."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support import score

REPOSITORY = Path(__file__).resolve().parent.parent

_WEIGHT = {folder: rank for rank, folder in enumerate(("leaks", "virtualbox", "e2e", "contract", "integration"))}


@pytest.fixture
def repository() -> Path:
    """The top folder of the checkout."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _unit_tests_start_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("unit") is None:
        return

    def refuse(*args: Any, **_kwargs: Any) -> NoReturn:
        pytest.fail(f"a unit test starts a program: {args[0] if args else '?'}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture(autouse=True)
def _no_state_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests keep their instances apart from the user's; images are shared, since they are named by their content."""
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    monkeypatch.delenv("LABCTL_PROVIDER", raising=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first, so that no worker is left with one when the others are done."""
    items.sort(key=lambda item: _WEIGHT.get(item.path.relative_to(REPOSITORY / "tests").parts[0], len(_WEIGHT)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how well leaks were found, where any were planted."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    if words := score.line(report for report in reports if isinstance(report, pytest.TestReport)):
        terminalreporter.section("isolation")
        terminalreporter.line(words)
