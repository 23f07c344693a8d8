"""Real VirtualBox and real Vagrant for tests, on any Linux host with a Debian mirror."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labctl.host.folders import cache_root
from labctl.providers.base import BootImage
from tests.virtualbox import box, tree
from tests.virtualbox.driven import add_box
from tests.virtualbox.harness import VirtualBoxHost, virtualbox_host


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Interpreted guests take very long: their tests run where somebody asks for them by their marker."""
    if "virtualbox_guest" in config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("virtualbox_guest")]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def virtualbox_tree() -> tree.Tree:
    """Debian with VirtualBox 7.2 and Vagrant. Tests that need it are skipped where it cannot be had."""
    try:
        return tree.tree()
    except tree.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def empty_box(virtualbox_tree: tree.Tree) -> BootImage:
    """A box with an empty disk: its machines run, and nobody answers in them."""
    return box.empty_box(virtualbox_tree)


@pytest.fixture(scope="module")
def virtualbox(
    virtualbox_tree: tree.Tree, empty_box: BootImage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualBoxHost]:
    """A place with VirtualBox and Vagrant for one test module. Boxes and images are seen inside."""
    images = cache_root() / "images"
    images.mkdir(parents=True, exist_ok=True)
    home = tmp_path_factory.mktemp("virtualbox")
    with virtualbox_host(virtualbox_tree, home, shared=[empty_box.disk.parent, images]) as host:
        yield host


@pytest.fixture(scope="module")
def place(virtualbox: VirtualBoxHost, empty_box: BootImage) -> VirtualBoxHost:
    """The place with the empty box in it."""
    add_box(virtualbox, empty_box)
    return virtualbox


@pytest.fixture
def here(place: VirtualBoxHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """labctl finds the place's programs and instances in this process, too."""
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
