"""Copies of one template have random numbers of their own, which nothing but labctl gives them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.host.folders import cache_root
from tests.support.command import Labctl
from tests.support.guests import BOTH, LAB, THREE, Guests

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

# labctl whose copies look at their random numbers before and after they are given others. The template's kernel gets
# new ones just before it is kept, so that it would not take others by itself in the moments that this looks at.
WATCHED = """
from labctl.providers.qemu import settling, waiting
look = 'system("dd if=/dev/urandom of=/run/%s bs=32 count=500 2>/dev/null");'
for when, mark in {"before": "open(RANDOM,", "after": "if (open(my $clock,"}.items():
    assert waiting.START.count(mark) == 1
    waiting.START = waiting.START.replace(mark, look % when + mark)
settling._TRY_KEYS += '''perl -e 'open(R, "+<", "/dev/urandom") && ioctl(R, 0x5207, 0) || exit 1'\\n'''
from labctl.__main__ import main
main()
"""
# labctl that asks the kernel for something that it does not know, both ways.
MISTAKEN = """
from labctl.providers.qemu import guest, waiting
real = guest.renewed
guest.renewed = lambda: real().replace("0x5207", "0x52ff")
waiting.START = waiting.START.replace("0x5207", "0x52ff")
from labctl.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def guests(labctl: Labctl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guests]:
    """A lab on a template of its own, begun by a labctl that is watched."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "images").symlink_to(cache_root() / "images")
    command = replace(labctl, variables={"LABCTL_CACHE_DIR": str(cache)})
    lab = Guests.make(command, "random")
    command.run("image", "prepare", lab.folder)
    changed(command, WATCHED, "up", lab.folder)
    yield lab
    command.destroy_all()


def changed(labctl: Labctl, program: str, *arguments: str | Path, code: int = 0) -> str:
    """Run a labctl that something was changed in, and give what it says on standard error."""
    with labctl.spawn(sys.executable, "-c", program, *map(str, arguments)) as process:
        _out, err = process.communicate(timeout=280)
    assert process.returncode == code, err.decode()
    return err.decode()


def blocks(guests: Guests, machine: str, when: str) -> set[str]:
    """What ``/dev/urandom`` gave, in pieces of 32 bytes, which is what one step of the kernel's generator gives."""
    said = guests.sh(machine, f"od -An -v -tx1 -w32 /run/{when}")
    found = set(said.splitlines())
    assert len(found) == 500
    return found


def test_copies_go_on_with_the_same_random_numbers_until_they_are_given_others(guests: Guests) -> None:
    one, two = ({when: blocks(guests, machine, when) for when in ("before", "after")} for machine in BOTH)
    assert len(one["before"] & two["before"]) > 100, "this test could not have failed: they differ by themselves"
    assert (one["before"] | one["after"]).isdisjoint(two["after"])
    assert one["after"].isdisjoint(two["before"])


def test_a_copy_that_cannot_be_given_random_numbers_does_not_come_up(guests: Guests) -> None:
    guests.write(LAB + THREE)
    words = changed(guests.labctl, MISTAKEN, "up", guests.folder, code=1)
    assert "three: configuration failed with status 1" in words
    assert guests.state() == "interrupted"
    guests.up()
    assert guests.sh("three", "hostname") == "three"
