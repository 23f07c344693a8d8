"""``labctl reset`` and ``labctl snapshot`` as they are typed, on machines that are notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command import Labctl

pytestmark = pytest.mark.integration

LAB = """\
version: 1
name: two
defaults: {image: debian-12}
networks:
  lan: {subnet: 10.9.0.0/24}
machines:
  alice: {networks: {lan: auto}}
  bob: {networks: {lan: auto}}
"""


@pytest.fixture
def labctl(tmp_path: Path) -> Labctl:
    (tmp_path / "lab.yaml").write_text(LAB)
    return Labctl(tmp_path / "state", tmp_path, variables={"LABCTL_PROVIDER": "fake"})


def words(labctl: Labctl, *arguments: str) -> tuple[int, str]:
    """The exit code and what was written to standard error."""
    with labctl.start(*arguments) as process:
        _, error = process.communicate(timeout=120)
    return process.returncode, error.decode()


def names(labctl: Labctl) -> list[tuple[str, bool]]:
    return [(one["name"], one["automatic"]) for one in labctl.json("snapshot", "list")["checkpoints"]]


def test_up_keeps_fresh_and_reset_goes_back_to_it(labctl: Labctl) -> None:
    labctl.run("up")
    assert names(labctl) == [("fresh", True)]
    shown = labctl.run("snapshot", "list")
    assert "automatic" in shown
    assert "KiB + 0 KiB shared" in shown
    done = labctl.json("reset")
    assert done["name"] == "fresh"
    assert done["seconds"] >= 0
    assert done["behind"] == ""
    assert "two/default is as it was" in labctl.run("reset")


def test_reset_says_that_the_lab_file_has_moved_on(labctl: Labctl) -> None:
    labctl.run("up")
    (labctl.home / "lab.yaml").write_text(LAB.replace("bob: {", "bob: {provision: [{shell: 'true'}], "))
    code, said = words(labctl, "up")
    assert code == 0
    assert "before this change" in said
    assert "has changed since" in labctl.json("reset")["behind"]
    code, said = words(labctl, "reset")
    assert code == 0
    assert "`labctl up` makes it so" in said


def test_up_without_fresh_leaves_nothing_to_go_back_to(labctl: Labctl) -> None:
    labctl.run("up", "--no-fresh")
    assert names(labctl) == []
    code, said = words(labctl, "reset")
    assert code == 2
    assert "labctl snapshot save fresh" in said
    code, said = words(labctl, "snapshot", "tree")
    assert code == 0
    assert said == "There are no checkpoints. `labctl snapshot save NAME` makes one.\n"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("snapshot", "restore", "frsh"), "Did you mean fresh? Checkpoints: fresh."),
        (("snapshot", "delete", "zebra"), "Checkpoints: fresh."),
        (("down", "--machine", "alcie"), "Did you mean alice? Machines: alice, bob."),
        (("exec", ".", "bobb", "--", "true"), "Did you mean bob? Machines: alice, bob."),
        (("up", "--provider", "fakee"), "Did you mean fake? Providers: "),
    ],
)
def test_a_name_that_is_not_known_is_answered_with_the_nearest(
    labctl: Labctl, arguments: tuple[str, ...], hint: str
) -> None:
    labctl.run("up")
    code, said = words(labctl, *arguments)
    assert code == 2
    assert hint in said
    if "zebra" in arguments:
        assert "Did you mean" not in said


def test_prune_says_what_it_would_remove_and_then_removes_it(labctl: Labctl) -> None:
    labctl.run("up")
    labctl.run("snapshot", "save", "one")
    labctl.run("snapshot", "save", "two")
    assert "Would remove one: older than the newest 1" in labctl.run("snapshot", "prune", "--keep", "1", "--dry-run")
    assert len(names(labctl)) == 3
    removed = labctl.json("snapshot", "prune", "--keep", "1")["removed"]
    assert [one["name"] for one in removed] == ["one"]
    assert removed[0]["own"] > 0
    assert names(labctl) == [("fresh", True), ("two", False)]
    assert words(labctl, "snapshot", "prune") == (0, "There is nothing to remove.\n")


def test_what_labs_and_the_cache_take_is_shown(labctl: Labctl) -> None:
    labctl.run("up")
    (listed,) = labctl.json("list")
    assert listed["disk"] == labctl.json("status")["disk"] > 0
    assert " KiB " in labctl.run("list")
    empty = replace(labctl, variables={**labctl.variables, "LABCTL_CACHE_DIR": str(labctl.home / "cache")})
    assert empty.json("cache", "list") == []
    assert empty.json("cache", "prune", "--all")["bytes"] == 0
    (labctl.home / "cache/packages").mkdir(parents=True)
    (labctl.home / "cache/packages/a.deb").write_bytes(b"x" * 5000)
    assert [one["kind"] for one in empty.json("cache", "list")] == ["packages"]
