"""The verbs of a class on machines that are notes: one student's trouble is nobody else's."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import BusyError, ExitCode, HostError, ProviderError, UsageError
from labctl.events import Event, Listener
from labctl.host.room import Room as HostRoom
from labctl.lifecycle import capacity, converge, inspect, locate
from labctl.lifecycle.classroom import ssh, verbs, work
from labctl.lifecycle.classroom.seats import Place
from labctl.lifecycle.classroom.work import Done, worst
from labctl.providers.base import Job
from labctl.providers.fake.notes import Notes
from labctl.providers.fake.provider import FakeProvider
from labctl.spec.problems import SpecError
from labctl.state.lock import class_locked, locked
from tests.support.classes import LAB, Room, by_name

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVyZ2VudGx5LW5lZWRzLWEta2V5LWZvci1sYWJz ada@desk"


def fail_for(monkeypatch: pytest.MonkeyPatch, instance: str, error: BaseException, *, after: bool = False) -> None:
    """Let the engine fail for one instance, before it makes anything or after."""
    usual = FakeProvider.up

    def up(self: FakeProvider, job: Job) -> None:
        if job.plan.instance != instance or after:
            usual(self, job)
        if job.plan.instance == instance:
            raise error

    monkeypatch.setattr(FakeProvider, "up", up)


def test_everybody_gets_an_instance_that_shares_no_address_of_this_host_with_another(room: Room) -> None:
    assert {name: result.did for name, result in room.up().items()} == dict.fromkeys(("s01", "s02", "s03"), "made")
    plans = [locate.find(room.folder / "lab", instance=name).plan for name in ("s01", "s02", "s03")]
    macs = [mac for plan in plans for m in plan.machines for mac in (m.management_mac, *(i.mac for i in m.interfaces))]
    assert len(set(macs)) == len(macs) == 12
    assert len({machine.uuid for plan in plans for machine in plan.machines}) == 6


def test_a_second_up_changes_nothing_and_mends_what_died(room: Room) -> None:
    room.up()
    room.notes("s02").change("b", state="dead")
    results = room.up()
    assert {name: result.did for name, result in results.items()} == {
        "s01": "nothing had to change",
        "s02": "mended",
        "s03": "nothing had to change",
    }
    assert results["s02"].facts["started"] == ("b",)
    assert room.notes("s02").read()["b"].state == "running"


@pytest.mark.parametrize("error", [ProviderError("QEMU does not start", hint="look"), ValueError("oops")])
def test_one_that_fails_stops_nobody(room: Room, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_for(monkeypatch, "s02", error)
    results = room.up(jobs=1)
    assert [name for name, result in results.items() if result.error] == ["s02"]
    assert room.states() == {"s01": "up", "s02": "interrupted", "s03": "up"}
    assert worst(list(results.values())) == ExitCode.ERROR
    assert [event.subject for event in room.events if event.status == "failed"] == ["s02"]


def test_a_bug_is_told_with_the_file_of_its_traceback(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_for(monkeypatch, "s02", ValueError("oops"))
    error = room.up()["s02"].error
    assert error is not None
    assert error.brief == "this is a bug in labctl: ValueError: oops"
    file = Path(error.hint.removeprefix("The traceback is in ").partition(";")[0])
    assert "Traceback" in file.read_text()
    shutil.rmtree(file.parent)


def test_the_next_up_goes_on_where_one_failed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as during:
        fail_for(during, "s02", ProviderError("no"), after=True)
        room.up()
    assert room.up()["s02"].error is None
    assert set(room.states().values()) == {"up"}


def test_a_full_disk_leaves_nothing_half_of_a_new_instance(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_for(monkeypatch, "s02", HostError("the disk is full: cannot write x"), after=True)
    assert room.up()["s02"].error is not None
    assert room.states() == {"s01": "up", "s02": "not made", "s03": "up"}


def test_a_full_disk_takes_no_instance_away_that_was_there(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.up()
    room.notes("s02").change("a", state="dead")
    fail_for(monkeypatch, "s02", HostError("the disk is full: cannot write x"))
    assert room.up()["s02"].error is not None
    assert room.states()["s02"] == "interrupted"
    assert room.notes("s02").read()["b"].state == "running"


def test_a_full_disk_takes_no_instance_away_that_somebody_made_meanwhile(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = converge.up

    def up(draft: locate.Draft, **options: Any) -> converge.Outcome:
        if draft.plan.instance == "s02":
            usual(locate.draft(room.folder / "lab", instance="s02", provider="fake"))
        return usual(draft, **options)

    monkeypatch.setattr(converge, "up", up)
    monkeypatch.setattr(verbs, "free_bytes", lambda _folder: 0)
    assert "was not made for a class" in str(room.up()["s02"].error)
    assert set(Notes(locate.find(room.folder / "lab", instance="s02").folder.engine).read()) == {"a", "b"}


def test_a_host_that_fills_up_meanwhile_refuses_the_rest_one_by_one(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        capacity, "room", lambda folder: HostRoom(None, 0 if "s03" in str(folder) else None, None, None)
    )
    results = room.up()
    assert [name for name, result in results.items() if isinstance(result.error, HostError)] == ["s03"]
    assert room.states() == {"s01": "up", "s02": "up", "s03": "not made"}


def test_an_instance_that_somebody_works_on_is_busy_and_the_others_are_not(room: Room) -> None:
    with locked("two", "s02"):
        results = room.up()
    assert [name for name, result in results.items() if isinstance(result.error, BusyError)] == ["s02"]
    assert worst(list(results.values())) == ExitCode.BUSY


def test_two_who_bring_up_one_class_at_once_are_told_of_each_other(room: Room) -> None:
    with class_locked("monday"), pytest.raises(BusyError, match="another labctl is bringing up the class monday"):
        room.up()
    assert set(room.states().values()) == {"not made"}
    with class_locked("tuesday"):
        room.up()


def test_an_instance_of_another_class_is_never_touched(room: Room) -> None:
    room.up("s01")
    room.write(name="tuesday")
    results = room.up()
    assert [name for name, result in results.items() if result.error] == ["s01"]
    assert "belongs to the class monday" in str(results["s01"].error)
    assert room.states() == {"s01": "not made", "s02": "up", "s03": "up"}
    verbs.destroy(room.chosen(), jobs=2)
    room.write()
    assert room.states()["s01"] == "up"


def test_an_instance_made_by_hand_is_not_taken_for_a_students(room: Room) -> None:
    converge.up(locate.draft(room.folder / "lab", instance="s02", provider="fake"))
    assert "was not made for a class" in str(room.up()["s02"].error)
    verbs.destroy(room.chosen(), jobs=2)
    assert locate.find(room.folder / "lab", instance="s02").record.owner == ""


def test_an_instance_of_a_class_may_be_mended_by_hand_and_stays_its(room: Room) -> None:
    room.up()
    room.notes("s02").change("a", state="dead")
    converge.up(locate.draft(room.folder / "lab", instance="s02"))
    assert room.states()["s02"] == "up"
    assert locate.find(room.folder / "lab", instance="s02").record.owner == "monday"


def test_one_instance_destroyed_leaves_the_others(room: Room) -> None:
    room.up()
    before = {name: room.notes(name).read() for name in ("s01", "s03")}
    (result,) = verbs.destroy(room.chosen("s02"), jobs=2)
    assert result.did == "removed"
    assert room.states() == {"s01": "up", "s02": "not made", "s03": "up"}
    assert {name: room.notes(name).read() for name in ("s01", "s03")} == before


def test_one_instance_reset_leaves_the_others(room: Room) -> None:
    room.up()
    fresh = room.notes("s01").read()["a"].applied
    for name in ("s01", "s02"):
        room.notes(name).change("a", applied="touched")
    verbs.reset(room.chosen("s01"), jobs=2)
    assert [room.notes(name).read()["a"].applied for name in ("s01", "s02")] == [fresh, "touched"]


def test_down_stops_some_machines_of_some_instances(room: Room) -> None:
    room.up()
    verbs.down(room.chosen("1-2"), machines=["b"], jobs=2)
    assert room.states() == {"s01": "1 of 2 running", "s02": "1 of 2 running", "s03": "up"}
    results = verbs.down(room.chosen(), jobs=2)
    assert [result.facts["stopped"] for result in results] == [("a",), ("a",), ("a", "b")]
    assert set(room.states().values()) == {"down"}


def test_a_machine_that_nobody_has_is_refused_once(room: Room) -> None:
    verbs.check_machines(room.chosen(), ["zebra"])  # nobody has an instance, so nobody knows
    room.up()
    with pytest.raises(UsageError, match="no instance has a machine called bb"):
        verbs.check_machines(room.chosen(), ["a", "bb"])


def test_after_the_hosts_restart_exactly_what_was_up_comes_back(room: Room) -> None:
    room.up("s01,s02")
    verbs.down(room.chosen("s02"), jobs=2)
    for name in ("a", "b"):
        room.notes("s01").change(name, state="stopped")
    chosen = verbs.was_up(room.chosen())
    verbs.up(room.spec, chosen, provider="fake", jobs=2)
    assert room.states() == {"s01": "up", "s02": "down", "s03": "not made"}


def test_up_does_not_bring_back_a_student_who_has_left(room: Room) -> None:
    room.up()
    verbs.down(room.chosen(), jobs=2)
    room.write(roster="[s01, s03]")
    assert sorted(room.up()) == ["s01", "s03"]
    assert room.states() == {"s01": "up", "s03": "up", "s02": "down"}
    verbs.destroy([place for place in room.chosen() if place.seat is None], jobs=2)
    assert room.states() == {"s01": "up", "s03": "up"}


def test_a_lab_that_is_broken_is_said_before_anything_is_started(room: Room) -> None:
    room.write(lab=LAB.replace("auto", "10.8.0.1", 1))
    with pytest.raises(SpecError, match=r"lab\.yaml has a problem"):
        room.up()


def test_a_class_does_not_change_its_engine_under_way(room: Room) -> None:
    room.up("s01")
    with pytest.raises(UsageError, match="monday runs on fake, not on qemu"):
        verbs.up(room.spec, room.chosen(), provider="qemu", jobs=2)


def test_an_interruption_ends_the_others_at_their_next_step_and_begins_no_more(room: Room) -> None:
    began: list[str] = []
    second = threading.Event()

    def part(place: Place, heard: Listener) -> Done:
        began.append(place.instance)
        if place.instance == "s01":
            assert second.wait(60)
            raise KeyboardInterrupt
        second.set()
        while True:  # until it is stopped
            heard(Event("progress", "boot", "a"))

    with pytest.raises(KeyboardInterrupt):
        work.each(room.chosen(), part, verb="up", jobs=2, listener=room.events.append)
    assert sorted(began) == ["s01", "s02"]


def test_what_happens_inside_is_told_as_the_instances_progress(room: Room) -> None:
    def part(_place: Place, heard: Listener) -> Done:
        heard(Event("done", "boot", "web", seconds=1.0))
        heard(Event("warning", "fresh", message="no room"))
        return Done("made")

    work.each(room.chosen("s01"), part, verb="up", jobs=1, listener=room.events.append)
    assert [(e.status, e.subject, e.message) for e in room.events if e.subject == "s01"] == [
        ("started", "s01", ""),
        ("progress", "s01", "web boot"),
        ("warning", "s01", "fresh: no room"),
        ("done", "s01", "made"),
    ]


@pytest.fixture
def keyed(room: Room) -> Room:
    room.write("login: {machines: [a], user: stu}\n", roster=f"[{{id: s01, key: {KEY}}}, s02]")
    room.up()
    return room


def accounts(room: Room, instance: str) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    plan = locate.find(room.folder / "lab", instance=instance).plan
    return {machine.name: [(user.name, user.keys) for user in machine.users] for machine in plan.machines}


def test_a_students_key_opens_their_own_instance_where_login_says_and_nothing_else(keyed: Room) -> None:
    assert accounts(keyed, "s01") == {"a": [("stu", (KEY,))], "b": []}
    assert accounts(keyed, "s02") == {"a": [], "b": []}


def test_an_up_by_hand_shuts_nobody_out_and_status_sees_no_difference(keyed: Room) -> None:
    lab = locate.find(keyed.folder / "lab", instance="s01")
    assert inspect.behind(lab) == ""
    assert converge.up(locate.draft(keyed.folder / "lab", instance="s01")).unchanged
    assert accounts(keyed, "s01")["a"] == [("stu", (KEY,))]


def test_a_key_that_is_taken_off_the_roster_opens_nothing_after_the_next_up(keyed: Room) -> None:
    keyed.write(roster="[s01, s02]")
    changes: Any = keyed.up()["s01"].facts["changes"]
    assert [(change.machine, change.action) for change in changes] == [("a", "configure"), ("b", "keep")]
    assert accounts(keyed, "s01") == {"a": [], "b": []}


def test_an_account_of_the_labs_own_gets_the_key_beside_its_others(room: Room) -> None:
    other = KEY.replace("VyZ2", "VyZ3").replace("ada@", "lab@")
    room.write(
        "login: {machines: [a], user: stu}\n",
        roster=f"[{{id: s01, key: {KEY}}}]",
        lab=LAB.replace("a: {", f"a: {{users: {{stu: {{password: pw, keys: [{other}]}}}}, "),
    )
    room.up()
    (user,) = locate.find(room.folder / "lab", instance="s01").plan.machine("a").users
    assert (user.name, user.password, user.keys) == ("stu", "pw", (other, KEY))


def test_a_login_on_a_machine_that_the_lab_lacks_is_said(room: Room) -> None:
    room.write("login: {machines: [aa]}\n", roster=f"[{{id: s01, key: {KEY}}}]")
    error = room.up()["s01"].error
    assert error is not None
    assert "no machine called aa" in error.brief
    assert "Did you mean a?" in error.hint


def test_ssh_settings_have_a_host_for_every_machine_that_runs(room: Room) -> None:
    room.up()
    verbs.down(room.chosen("s02"), machines=["b"], jobs=1)
    text = ssh.config(room.spec, room.chosen())
    hosts = [line.removeprefix("Host ") for line in text.splitlines() if line.startswith("Host ")]
    assert hosts == ["s01-a", "s01-b", "s02-a", "s03-a", "s03-b"]
    assert "# s02-b: b does not run" in text
    assert text.count("StrictHostKeyChecking yes") == 5
    assert ssh.config(room.spec, room.chosen(), ["b"]).count("Host ") == 2


def test_ssh_settings_for_students_lead_through_the_server_to_where_they_may(keyed: Room) -> None:
    verbs.down(keyed.chosen(), jobs=1)  # what leads there stays right
    text = ssh.config(keyed.spec, keyed.chosen(), jump="labs@lab.example.org")
    assert [line for line in text.splitlines() if line.startswith("Host ")] == ["Host s01-a", "Host s02-a"]
    assert "  User stu\n  ProxyCommand ssh labs@lab.example.org connect a\n" in text
    assert "IdentityFile" not in text
    assert "ProxyCommand ssh -p 2222 lab connect a" in ssh.config(keyed.spec, keyed.chosen(), jump="lab:2222")


@pytest.mark.parametrize("jump", ["-oProxyCommand=id", "a b", "a\nHost *", "", "x;y", "%h"])
def test_a_server_that_is_none_is_refused(keyed: Room, jump: str) -> None:
    with pytest.raises(UsageError, match="is no server"):
        ssh.config(keyed.spec, keyed.chosen(), jump=jump)


def test_results_stand_in_the_order_of_the_class(room: Room) -> None:
    room.write(roster="[z, a, m]")
    assert list(by_name(verbs.status(room.chosen()))) == ["z", "a", "m"]


def test_an_unreadable_record_hides_nobody_else(room: Room) -> None:
    room.up()
    (place,) = room.chosen("s02")
    assert place.folder is not None
    (place.folder.path / "record.json").write_text("{")
    states = room.states()
    assert (states["s01"], states["s02"], states["s03"]) == ("up", "failed", "up")
