"""Manifests of checkpoints: a whole one comes back as it was, an altered one is never taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.errors import StateError, UsageError
from labctl.plan.model import LabPlan
from labctl.state import checkpoints
from labctl.state.checkpoints import Checkpoint, CheckpointFolder, digest_of
from labctl.state.record import InstanceFolder
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit

LAB = "networks: {lan: {subnet: 10.9.0.0/24}}\nmachines:\n  a: {networks: {lan: auto}}\n"


@pytest.fixture
def plan() -> LabPlan:
    return plan_of(LAB)


@pytest.fixture
def folder() -> CheckpointFolder:
    return CheckpointFolder(InstanceFolder("t", "default"))


def kept(folder: CheckpointFolder, plan: LabPlan, identifier: str = "0123456789ab") -> tuple[Checkpoint, Path]:
    """A checkpoint with a value in each of its fields, and the file of its manifest."""
    one = Checkpoint(
        identifier,
        "clean",
        plan,
        parent="ba9876543210",
        complete=True,
        created=1700000000.25,
        files={"a": "11"},
        machines={"a": "running"},
        skew=0.0123,
        witnesses=("a",),
        sealed=True,
        automatic=True,
        origin="aaaaaaaaaaaa",
        images={"a": "22"},
        plan_digest=digest_of(plan),
        completed=1700000001.5,
    )
    return folder.write(one), folder.folder.path / "checkpoints" / f"{identifier}.json"


def test_a_manifest_comes_back_as_it_was_written(folder: CheckpointFolder, plan: LabPlan) -> None:
    one, path = kept(folder, plan)
    assert folder.all() == (one,)
    assert folder.find("clean") == one
    assert one.checked
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_byte_of_a_manifest_that_was_altered_is_an_error_wherever_it_is(
    folder: CheckpointFolder, plan: LabPlan
) -> None:
    _, path = kept(folder, plan)
    whole = path.read_bytes()
    places = [*range(0, len(whole), 37), *range(len(whole) - 90, len(whole))]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert folder.all() == (), f"byte {place} of {len(whole)}"
        assert len(folder.damaged()) == 1
    for cut in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"\n", whole + whole):
        path.write_bytes(cut)
        assert folder.all() == ()
    path.write_bytes(whole)
    assert len(folder.all()) == 1


def test_a_name_that_an_altered_manifest_may_have_had_is_answered_with_what_is_wrong(
    folder: CheckpointFolder, plan: LabPlan
) -> None:
    _, path = kept(folder, plan)
    path.write_text(path.read_text(encoding="utf-8").replace('"witnesses": ["a"]', '"witnesses": []'), encoding="utf-8")
    with pytest.raises(StateError) as caught:
        folder.find("clean")
    assert str(path) in caught.value.brief
    assert "it says that it is 'clean', of a" in caught.value.details
    path.unlink()
    with pytest.raises(UsageError):
        folder.find("clean")


def test_a_manifest_is_understood_once_however_often_it_is_asked_for(
    folder: CheckpointFolder, plan: LabPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    usual = checkpoints.from_json
    monkeypatch.setattr(checkpoints, "from_json", lambda value: read.append(value) or usual(value))
    one, _ = kept(folder, plan, "0123456789a0")
    for _ in range(3):
        assert folder.whole() == (one,)
        assert folder.find("clean") == one
        assert folder.damaged() == ()
    assert len(read) == 1
    kept(folder, plan_of(LAB.replace("10.9", "10.8")), "0123456789a0")
    (other,) = folder.all()
    assert other.plan != one.plan, "another content of the same file"


def test_a_failure_is_noted_of_the_restore_that_is_under_way_alone(folder: CheckpointFolder, plan: LabPlan) -> None:
    one, _ = kept(folder, plan)
    assert folder.failure() == ""
    folder.set_restoring(one.id)
    assert folder.failure() == ""
    folder.set_failure("a does not answer")
    assert folder.failure() == "a does not answer"
    folder.set_restoring(one.id)
    assert folder.failure() == "", "another one has begun"
    folder.set_failure("a does not answer")
    folder.set_restoring(None)
    assert folder.failure() == ""


def test_plans_that_differ_have_digests_that_differ(plan: LabPlan) -> None:
    assert digest_of(plan) == digest_of(plan_of(LAB))
    assert digest_of(plan) != digest_of(plan_of(LAB.replace("10.9", "10.8")))
