"""``up`` killed again and again, each time with another lab file: what one of them made, the last one knows of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.lifecycle import converge, locate
from labctl.plan.show import to_json
from labctl.providers.base import Job
from labctl.providers.fake.notes import FakeMachine, Notes
from labctl.providers.fake.provider import FakeProvider

pytestmark = pytest.mark.unit

ONE = """\
version: 1
name: edited
defaults: {image: debian-12}
networks:
  lan: {subnet: 10.9.0.0/24}
  dmz: {subnet: 10.9.1.0/24}
machines:
  a: {networks: {lan: auto}}
"""
TWO = ONE + "  b: {networks: {lan: auto}}\n"
ON_DMZ = ONE.replace("a: {networks: {lan: auto}}", "a: {networks: {dmz: auto}}")
OTHER_IMAGE = ONE.replace("debian-12", "debian-12-other")


class Killed(BaseException):
    """What a kill -9 is to the code that it hits."""


class Lab:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file, self._monkeypatch = folder / "lab.yaml", monkeypatch
        self._up = FakeProvider.up

    def up(self, text: str) -> dict[str, str]:
        """Machine to what ``labctl up`` with that file does to it."""
        self.file.write_text(text, encoding="utf-8")
        return {change.machine: change.action for change in converge.up(self.draft).changes}

    def killed(self, text: str, *, before: bool) -> None:
        """``labctl up`` with that file, killed before or after the provider did what it had to do."""

        def up(provider: FakeProvider, job: Job) -> None:
            if not before:
                self._up(provider, job)
            raise Killed

        self._monkeypatch.setattr(FakeProvider, "up", up)
        with pytest.raises(Killed):
            self.up(text)
        self._monkeypatch.setattr(FakeProvider, "up", self._up)

    @property
    def draft(self) -> locate.Draft:
        return locate.draft(self.file, provider="fake")

    @property
    def machines(self) -> dict[str, FakeMachine]:
        return dict(Notes(self.draft.folder.engine).read())


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    yield Lab(tmp_path, monkeypatch)


@pytest.mark.parametrize("first", [True, False], ids=["at the first up", "at a later up"])
def test_a_machine_that_one_made_and_the_next_did_not_remove_any_more_is_removed(lab: Lab, first: bool) -> None:
    if not first:
        lab.up(ONE)
    lab.killed(TWO, before=False)
    lab.killed(ONE, before=True)
    lab.killed(ONE, before=True)
    assert set(lab.machines) == {"a", "b"}
    assert lab.up(ONE)["b"] == "remove"
    assert set(lab.machines) == {"a"}
    assert lab.draft.folder.begun() == ()
    assert lab.up(ONE) == {"a": "keep"}


@pytest.mark.parametrize("first", [True, False], ids=["at the first up", "at a later up"])
def test_a_nic_that_one_put_on_another_wire_and_the_next_did_not_put_back_is_put_back(lab: Lab, first: bool) -> None:
    if not first:
        lab.up(ONE)
    lab.killed(ON_DMZ, before=False)
    lab.killed(ONE, before=True)
    assert [wire for _mac, wire in lab.machines["a"].wires][1:] == ["dmz"]
    assert lab.up(ONE) == {"a": "restart"}
    assert [wire for _mac, wire in lab.machines["a"].wires][1:] == ["lan"]


def test_a_disk_that_one_made_of_another_image_is_made_anew(lab: Lab) -> None:
    lab.killed(OTHER_IMAGE, before=False)
    lab.killed(ONE, before=True)
    assert lab.up(ONE) == {"a": "replace"}


def test_the_same_up_that_is_killed_often_is_noted_once(lab: Lab) -> None:
    for _ in range(3):
        lab.killed(ONE, before=True)
        lab.killed(TWO, before=True)
    assert [len(plan.machines) for plan in lab.draft.folder.begun()] == [1, 2]
    assert lab.up(ONE) == {"a": "create", "b": "remove"}


def test_what_an_earlier_labctl_noted_of_an_interrupted_up_is_read(lab: Lab) -> None:
    lab.killed(TWO, before=False)
    folder = lab.draft.folder
    (plan,) = folder.begun()
    (folder.path / "pending.json").write_text(json.dumps(to_json(plan)), encoding="utf-8")
    assert folder.begun() == (plan,)
    assert folder.pending() == plan
