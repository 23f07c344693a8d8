"""Whether a lab fits: what is short, by how much, and what to leave out."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.events import Event
from labctl.host import ports
from labctl.host import room as rooms
from labctl.host.room import Room, group_left
from labctl.lifecycle import capacity, converge, locate
from labctl.providers.base import BootImage, Footprint
from labctl.providers.fake.provider import FakeProvider
from labctl.providers.qemu.provider import QemuProvider
from tests.support import plans

pytestmark = pytest.mark.unit

MIB, GIB = 1 << 20, 1 << 30
PLENTY = Room(64 * GIB, 64 * GIB, None, None)


def whole(memory: int, disk: int = 0) -> Footprint:
    return Footprint(memory, memory, disk=disk)


def copy(shape: str = "x") -> Footprint:
    return Footprint(100 * MIB, 356 * MIB, shared=shape, shared_memory=256 * MIB)


def test_what_fits_exactly_fits_and_a_byte_less_does_not() -> None:
    needs = {"a": whole(GIB), "b": whole(GIB)}
    enough = 2 * GIB + (64 << 20)
    assert capacity.shortages(needs, Room(enough, None, None, None)) == ()
    (short,) = capacity.shortages(needs, Room(enough - 1, None, None, None))
    assert (short.what, short.needed, short.there, short.drop) == ("memory", enough, enough - 1, ("b",))


def test_what_machines_share_counts_once_per_shape() -> None:
    thirty = {f"m{number}": copy() for number in range(30)}
    assert capacity.shortages(thirty, Room(30 * 100 * MIB + 256 * MIB + 64 * MIB, None, None, None)) == ()
    other = {**thirty, "odd": copy("y")}
    (short,) = capacity.shortages(other, Room(31 * 100 * MIB + 256 * MIB + 64 * MIB, None, None, None))
    assert short.needed - short.there == 256 * MIB


def test_the_largest_machines_are_dropped_first_and_no_more_than_must() -> None:
    needs = {"small": whole(GIB), "huge": whole(9 * GIB), "big": whole(5 * GIB)}
    (short,) = capacity.shortages(needs, Room(7 * GIB, None, None, None))
    assert short.drop == ("huge",)


def test_a_limit_that_is_not_known_refuses_nothing() -> None:
    assert capacity.shortages({"a": whole(1 << 50, 1 << 50)}, Room(None, None, None, None)) == ()


@pytest.mark.parametrize(
    ("room", "what"),
    [
        (Room(GIB, 64 * GIB, None, None), "memory"),
        (Room(64 * GIB, GIB, None, None), "disk"),
        (Room(64 * GIB, 64 * GIB, 2, None), "processes and threads"),
        (Room(64 * GIB, 64 * GIB, None, 64), "open files (ulimit -n)"),
    ],
)
def test_each_limit_is_looked_at(room: Room, what: str) -> None:
    needs = dict.fromkeys("abc", whole(GIB, GIB))
    assert [short.what for short in capacity.shortages(needs, room)] == [what]


def test_each_machine_that_is_started_needs_a_port_of_the_loopback() -> None:
    needs = dict.fromkeys("abc", whole(GIB))
    assert capacity.shortages(needs, PLENTY, free_ports=3) == ()
    (short,) = capacity.shortages(needs, PLENTY, free_ports=1)
    assert short.text == "ports of the loopback: 3 needed, 1 free"
    assert short.drop == ("c", "b")


def test_machines_that_run_already_need_open_files_too() -> None:
    room = Room(None, None, None, 64 + 4 * 10)
    assert capacity.shortages({"a": whole(0)}, room, running=9) == ()
    assert len(capacity.shortages({"a": whole(0)}, room, running=10)) == 1


def test_the_refusal_says_numbers_and_what_to_leave_out() -> None:
    needs = {f"m{number}": whole(GIB) for number in range(9)}
    short = capacity.shortages(needs, Room(2 * GIB, None, None, None))
    error = capacity.refuse(short, len(needs))
    assert error.brief == "9 machines do not fit on this host"
    assert error.details == "memory: 9280 MiB needed, 2048 MiB free"
    assert "It fits without 8 of them (m8, m7, m6, m5, m4 …)" in error.hint
    assert "--force" in error.hint


def test_a_machine_that_does_not_fit_even_alone_is_said() -> None:
    short = capacity.shortages({"a": whole(9 * GIB)}, Room(GIB, None, None, None))
    assert "Not even one of them fits" in capacity.refuse(short, 1).hint


def test_what_copies_may_grow_to_is_said_beforehand() -> None:
    needs = dict.fromkeys("abc", copy())
    assert capacity.later(needs, PLENTY) == ""
    assert "1068 MiB" in capacity.later(needs, Room(GIB, None, None, None))


def test_a_copy_on_qemu_takes_less_than_a_machine_that_boots() -> None:
    machine = plans.machine("web", memory=256 * MIB)
    plan = plans.lab([], [machine])
    image = BootImage("i", "d", Path("disk"), kernel=Path("kernel"))
    copied = QemuProvider.footprint(plan, machine, image)
    boots = QemuProvider.footprint(plan, machine, None)
    assert copied.memory < 128 * MIB
    assert copied.shared_memory == 256 * MIB
    assert boots.memory == copied.most_memory == 356 * MIB
    assert boots.shared == ""
    foreign = BootImage("i", "d", Path("disk"))
    assert QemuProvider.footprint(plan, machine, foreign).memory == boots.memory


def group(root: Path, path: str, **values: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("_", ".", 1)).write_text(value)


def test_the_tightest_group_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/user.slice/me\n")
    group(tmp_path, "user.slice", memory_max="1000", memory_current="900", memory_stat="anon 5\ninactive_file 50\n")
    group(tmp_path, "user.slice/me", memory_max="max", memory_current="800", pids_max="30", pids_current="12")
    assert group_left("memory", own=own, root=tmp_path) == 150
    assert group_left("pids", own=own, root=tmp_path) == 18


def test_groups_of_the_first_kind(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/\n8:cpu,memory:/a\n0::/\n")
    group(tmp_path / "memory", "a")
    (tmp_path / "memory/a/memory.limit_in_bytes").write_text("5000\n")
    (tmp_path / "memory/a/memory.usage_in_bytes").write_text("4000\n")
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1\n")
    assert group_left("memory", own=own, root=tmp_path) == 1000
    (tmp_path / "memory/a/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert group_left("memory", own=own, root=tmp_path) is None


@pytest.mark.parametrize("text", [None, "", "nonsense\n", "0::/gone\n"])
def test_a_system_without_groups_has_no_limit_of_theirs(tmp_path: Path, text: str | None) -> None:
    own = tmp_path / "own"
    if text is not None:
        own.write_text(text)
    assert group_left("memory", own=own, root=tmp_path / "none") is None


def test_this_host_has_room() -> None:
    found = rooms.room(Path("/not/there/at/all"))
    assert found.memory is None or found.memory > 0
    assert found.disk is not None
    assert found.disk > 0


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


LAB = "version: 1\nname: big\ndefaults: {image: debian-12}\nmachines:\n  a: {}\n  b: {}\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab whose machines take a GiB each, on a host with three quarters of that."""
    (tmp_path / "lab.yaml").write_text(LAB)
    monkeypatch.setattr(FakeProvider, "footprint", lambda *_: whole(GIB))
    monkeypatch.setattr(capacity, "room", lambda _: Room(768 * MIB, None, None, None))
    return tmp_path


def test_a_lab_that_does_not_fit_is_refused_before_anything_exists(lab: Path) -> None:
    draft = locate.draft(lab, provider="fake")
    with pytest.raises(HostError, match="2 machines do not fit"):
        converge.up(draft)
    assert draft.folder.record() is None


def test_a_lab_that_does_not_fit_starts_by_force_and_says_so(lab: Path) -> None:
    events: list[Event] = []
    converge.up(locate.draft(lab, provider="fake"), force=True, listener=events.append)
    assert [event.message for event in events if event.status == "warning"] == ["memory: 2112 MiB needed, 768 MiB free"]


def test_ports_that_others_listen_on_are_not_there(lab: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    """Of a range of one port that is free, and then is not."""
    monkeypatch.setattr(capacity, "room", lambda _: PLENTY)
    monkeypatch.setattr(ports, "_FIRST", free_port)
    monkeypatch.setattr(ports, "_LAST", free_port)
    with pytest.raises(HostError) as caught:
        converge.up(locate.draft(lab, provider="fake"))
    assert caught.value.details == "ports of the loopback: 2 needed, 1 free"
    assert "It fits without 1 of them (b)" in caught.value.hint
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        with pytest.raises(HostError) as caught:
            converge.up(locate.draft(lab, provider="fake"))
    assert caught.value.details == "ports of the loopback: 2 needed, 0 free"


def test_a_lab_that_runs_is_not_asked_whether_it_fits(lab: Path) -> None:
    converge.up(locate.draft(lab, provider="fake"), force=True)
    assert converge.up(locate.draft(lab, provider="fake")).unchanged


def test_only_machines_that_have_to_be_started_are_counted(lab: Path) -> None:
    converge.up(locate.draft(lab, provider="fake"), force=True)
    text = LAB.replace("a: {}", "a: {provision: [{shell: 'true'}]}")
    (lab / "lab.yaml").write_text(text)
    assert not converge.up(locate.draft(lab, provider="fake")).unchanged
    (lab / "lab.yaml").write_text(f"{text}  c: {{}}\n")
    with pytest.raises(HostError, match="1 machine does not fit"):
        converge.up(locate.draft(lab, provider="fake"))
