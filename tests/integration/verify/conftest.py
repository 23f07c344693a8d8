"""Fixtures of network namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.netlab import Netlab, lab_plan, needs_namespaces, unique


@pytest.fixture
def netlab() -> Iterator[Netlab]:
    """A running lab of four machines, three networks and a host."""
    needs_namespaces()
    lab = Netlab(lab_plan(), unique())
    try:
        lab.build()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def namespace() -> Iterator[str]:
    """The name of a network namespace with a loopback device and nothing else."""
    needs_namespaces()
    name = f"lv{unique()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
