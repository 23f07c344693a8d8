"""One lab of real guests for each kind of wire, up for as long as its leaks are planted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leaks.lab import Lab, bring_up
from tests.support.command import Labctl
from tests.support.surroundings import surroundings


@pytest.fixture(scope="module", params=["bridge", "hub"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab on a host of its own, from which no packet gets further than a second namespace."""
    home = tmp_path_factory.mktemp("leaks")
    with surroundings(home) as host:
        labctl = Labctl(home / "state", home, host)
        try:
            yield bring_up(labctl, f"on-{request.param}", request.param)
        finally:
            labctl.destroy_all()
    assert labctl.processes() == []
