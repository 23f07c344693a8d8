"""``labctl reset`` and ``labctl snapshot`` as they are typed, on machines that are notes."""

from __future__ import annotations

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
    assert "automatic" in labctl.run("snapshot", "list")
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
