"""Labs of real guests, one for each kind of wire, up for as long as leaks are planted in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.leaks.lab import Lab, bring_up
from tests.support import images
from tests.support.command import Labctl
from tests.support.surroundings import surroundings


@pytest.fixture(scope="module")
def lab_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Lab]]:
    """Gives the lab on a kind of wires, brought up when it is asked for first.

    They are on a host of their own, from which no packet gets further than a second namespace.
    """
    images.debian()  # packages come from a mirror, which only this computer has
    home = tmp_path_factory.mktemp("leaks")
    with surroundings(home) as host:
        labctl = Labctl(home / "state", home, host)
        try:
            yield cache(lambda wires: bring_up(labctl, f"on-{wires}", wires))
        finally:
            labctl.destroy_all()
    assert labctl.processes() == []


@pytest.fixture
def lab(lab_on: Callable[[str], Lab], wires: str) -> Lab:
    """The lab on the wires that a test names."""
    return lab_on(wires)
