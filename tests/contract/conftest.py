"""The contract suite is one module that several collect, each for its subjects: engines can be tried side by side."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contract.suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep of each module the tests of its own subjects."""
    others = [item for item in items if _is_anothers(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in set(others)]


def _is_anothers(item: pytest.Item) -> bool:
    wanted = getattr(getattr(item, "module", None), "SUBJECTS_HERE", None)
    call = getattr(item, "callspec", None)
    return wanted is not None and call is not None and call.params.get("lab") not in wanted
