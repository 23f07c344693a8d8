"""Secrets of instances: each has its own, they stay, and none stands where it would be read by chance."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import HostError, UsageError
from labctl.lifecycle import converge, locate
from labctl.lifecycle.classroom import answers, key
from labctl.providers.base import Job
from labctl.providers.fake.provider import FakeProvider
from tests.support.classes import LAB, Room

pytestmark = pytest.mark.unit

SECRETS = "secrets: {flag: {kind: flag}, word: {kind: choice, of: [dragon, letmein]}}\n"
SPEC = SECRETS + LAB.replace("a: {", "a: {secrets: [flag, word], provision: [{shell: 'true'}], ")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "lab.yaml").write_text(SPEC)
    return tmp_path


def up(lab: Path, instance: str = "default") -> dict[str, str]:
    """What ``up`` did, machine by machine."""
    outcome = converge.up(locate.draft(lab, instance=instance, provider="fake"))
    return {change.machine: change.action for change in outcome.changes}


def secrets(lab: Path, instance: str = "default") -> dict[str, str]:
    return locate.find(lab, instance=instance).secrets()


def test_each_instance_has_its_own_and_keeps_them(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, dict[str, str]] = {}
    usual = FakeProvider.up

    def heard(self: FakeProvider, job: Job) -> None:
        told[job.plan.instance] = dict(job.secrets)
        usual(self, job)

    monkeypatch.setattr(FakeProvider, "up", heard)
    up(lab)
    up(lab, "other")
    before = secrets(lab)
    assert before["flag"] != secrets(lab, "other")["flag"]
    assert told == {"default": before, "other": secrets(lab, "other")}
    assert set(up(lab).values()) == {"keep"}
    assert secrets(lab) == before


def test_no_plan_and_no_record_has_one(lab: Path) -> None:
    up(lab)
    folder = locate.find_folder(lab, "default").path
    texts = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    assert texts
    assert not any(secrets(lab)["flag"] in text for text in texts)
    assert (folder / "record.json").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_is_made_otherwise_is_told_again_to_those_who_know_it(lab: Path) -> None:
    up(lab)
    assert converge.difference(locate.draft(lab)).empty
    (lab / "lab.yaml").write_text(SPEC.replace("{kind: flag}", "{kind: flag, prefix: ACME}"))
    assert up(lab) == {"a": "provision", "b": "keep"}
    assert secrets(lab)["flag"].startswith("ACME{")
    (lab / "lab.yaml").write_text(SPEC.replace("b: {", "b: {secrets: [word], "))
    assert up(lab)["b"] == "provision"


def test_an_instance_of_an_earlier_labctl_goes_on_and_has_none(lab: Path) -> None:
    """Its plan and its record know nothing of secrets."""
    (lab / "lab.yaml").write_text(LAB)
    up(lab)
    folder = locate.find_folder(lab, "default")
    plan = json.loads((folder.path / "plan.json").read_text())
    del plan["secrets"]
    for machine in plan["machines"]:
        del machine["secrets"]
    (folder.path / "plan.json").write_text(json.dumps(plan))
    record = json.loads((folder.path / "record.json").read_text())
    del record["seed"]
    (folder.path / "record.json").write_text(json.dumps(record))
    assert set(up(lab).values()) == {"keep"}
    assert secrets(lab) == {}


def test_what_came_from_elsewhere_keeps_its_secrets_to_itself(lab: Path) -> None:
    up(lab)
    folder = locate.find_folder(lab, "default")
    record = folder.record()
    assert record is not None
    folder.write_record(replace(record, seed=""))
    with pytest.raises(UsageError, match="are not known here"):
        secrets(lab)


def test_an_engine_that_cannot_keep_them_refuses_before_anything_is_made(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = FakeProvider.capabilities
    monkeypatch.setattr(
        FakeProvider, "capabilities", classmethod(lambda _cls, plan: replace(usual(plan), secrets=False))
    )
    with pytest.raises(HostError, match="cannot do this on this host: `secrets:`"):
        up(lab)
    assert not list(locate.InstanceFolder("two", "default").path.glob("plan.json"))


def test_a_class_has_the_secrets_of_its_key(room: Room) -> None:
    room.write(lab=SPEC)
    sheet = dict(answers.sheet(room.spec, room.chosen()))
    assert key.path(room.spec).stat().st_mode & 0o777 == 0o600
    assert len({known["flag"] for known in sheet.values()}) == 3
    room.up("s01,s02")
    assert [secrets(room.folder / "lab", name) for name in ("s01", "s02")] == [sheet["s01"], sheet["s02"]]
    assert dict(answers.sheet(room.spec, room.chosen())) == sheet
    converge.up(locate.draft(room.folder / "lab", instance="s01"))  # by hand: the same
    assert secrets(room.folder / "lab", "s01") == sheet["s01"]


def test_another_key_is_other_secrets_at_the_next_up(room: Room) -> None:
    room.write(lab=SPEC)
    room.up("s01")
    before = secrets(room.folder / "lab", "s01")
    key.path(room.spec).write_text("another key, long enough to be one\n")
    changes = room.up("s01")["s01"].facts["changes"]
    assert [(change.machine, change.action) for change in changes] == [("a", "provision"), ("b", "keep")]
    assert secrets(room.folder / "lab", "s01")["flag"] != before["flag"]


@pytest.mark.parametrize("text", ["", "short", "\xff" * 40])
def test_a_file_that_is_no_key_is_refused_and_left_alone(room: Room, text: str) -> None:
    room.write(lab=SPEC)
    data = text.encode("latin-1")
    key.path(room.spec).write_bytes(data)
    with pytest.raises(UsageError, match=r"class\.key"):
        room.up()
    assert key.path(room.spec).read_bytes() == data
    assert set(room.states().values()) == {"not made"}


def test_a_class_without_secrets_has_no_key(room: Room) -> None:
    room.up("s01")
    assert answers.sheet(room.spec, room.chosen()) == []
    assert not key.path(room.spec).exists()


def test_the_sheet_as_csv(room: Room) -> None:
    room.write(lab=SPEC)
    lines = answers.csv_text(answers.sheet(room.spec, room.chosen())).splitlines()
    assert lines[0] == "instance,flag,word"
    assert re.fullmatch(r"s01,FLAG\{[a-z0-9]{24}\},(dragon|letmein)", lines[1])
