"""What is kept between two calls of labctl, and how work on several machines is ordered, stopped and reported."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from labctl.errors import GuestError, HostError, LabctlError, ProviderError, StateError
from labctl.host import folders, ports
from labctl.host.files import write_json
from labctl.providers.base import BootImage
from labctl.providers.qemu import habitat, template, vm
from labctl.providers.qemu import record as records
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.workers import Stop, each, raise_failures
from tests.support import plans

pytestmark = pytest.mark.unit


def test_record_comes_back_as_it_was(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "engine")
    image = BootImage("debian-12", "d", Path("/i/disk"), Path("/i/kernel"), None, "quiet")
    record = MachineRecord(
        "web", records.image_value(image), disk="x", wanted="running", pid=7, started=1.5, port=22000
    )
    records.write(layout, record)
    again = records.read(layout, "web")
    assert again == record and again is not None
    assert again.boot_image == image
    assert records.read(layout, "other") is None


def test_only_what_must_outlive_the_host_waits_for_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    records.write(Layout.of(tmp_path / "engine"), MachineRecord("web", {}))
    assert waited == []
    write_json(tmp_path / "manifest.json", {})
    assert len(waited) == 1


def test_json_has_indents_as_long_as_somebody_reads_it(tmp_path: Path) -> None:
    for count, lines in ((10, 12), (10000, 1)):
        value = [f"line {number}" for number in range(count)]
        write_json(tmp_path / "file", value)
        text = (tmp_path / "file").read_text()
        assert json.loads(text) == value and len(text.splitlines()) == lines


def test_a_template_belongs_to_the_hosts_processor_where_its_guest_was_given_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "binary_id", lambda: "q")
    plan = plans.lab([], [plans.machine("web")])
    image = BootImage("debian-12", "d", tmp_path / "disk", tmp_path / "kernel")
    keys = set()
    for processor in ("one", "other"):
        monkeypatch.setattr(habitat, "host_processor", lambda found=processor: found)
        keys |= {template.of(plan, plan.machines[0], image, accelerator).key for accelerator in ("tcg", "kvm", "hvf")}
    assert len(keys) == 5, "emulated guests have the same processor everywhere"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "web"}', '{"name": "web", "image": {}, "strange": 1}'])
def test_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    layout = Layout.of(tmp_path / "engine")
    path = layout.machine("web").record
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(StateError, match="web"):
        records.read(layout, "web")


def test_marks_differ_by_folder_and_stay_the_same(tmp_path: Path) -> None:
    one, other = Layout.of(tmp_path / "one"), Layout.of(tmp_path / "other")
    assert one.mark != other.mark
    assert Layout.of(tmp_path / "one").mark == one.mark
    assert one.process_mark("web") != one.process_mark("web-2")


def test_sockets_fit_whatever_the_names_are(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / ("x" * 100) / "engine")
    files = layout.machine("m" * 63)
    assert all(len(str(path).encode()) < 104 for path in (files.monitor, files.agent, files.console))


def test_sockets_are_found_again_in_another_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.of(tmp_path / "engine")
    layout.prepare()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path)[:40])
    assert Layout.of(tmp_path / "engine").runtime == layout.runtime
    layout.runtime.rmdir()


def test_runtime_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "elsewhere").mkdir()
    next_to = folders.runtime_root()
    next_to.rmdir()
    next_to.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="belongs to another user"):
        folders.runtime_root()


def test_hardware_digest_sees_hardware_and_nothing_else() -> None:
    class Wires:
        kind = "bridge"

    def digest(**changes: object) -> str:
        nic = plans.interface("web", "eth0", "lan", "10.1.0.1/24")
        plan = plans.lab([plans.network("lan")], [plans.machine("web", nic, **changes)])
        return vm.hardware_digest(plan, plan.machines[0], Wires())  # type: ignore[arg-type]

    assert digest() == digest(hosts=(("10.0.0.1", ("x",)),))
    assert len({digest(), digest(memory=1 << 30), digest(cpus=2), digest(settings={"qemu": {"x": 1}})}) == 4


def test_tail_shows_last_lines_without_control_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n" * 5000 + b"\x1b[0;1;31mFAILED\x1b[0m\r\n\x07last\xff\n")
    assert vm.tail(log, lines=2).split() == ["FAILED", "last\ufffd"]
    assert vm.tail(tmp_path / "none") == ""


def test_ports_in_use_are_not_offered() -> None:
    with socket.socket() as holder:
        first = next(ports.candidates(5))
        holder.bind(("127.0.0.1", first))
        holder.listen()
        assert not ports.is_free(first)
        assert next(ports.candidates(5)) != first


def test_work_goes_on_past_a_failure() -> None:
    done: list[str] = []

    def work(name: str) -> None:
        if name == "b":
            raise GuestError("b: no")
        done.append(name)

    failures = each(["a", "b", "c"], work, jobs=2, stop=Stop())
    assert sorted(done) == ["a", "c"] and list(failures) == ["b"]


def test_a_defect_stops_the_others_and_is_raised() -> None:
    stop = Stop()
    ended: list[bool] = []

    def work(name: str) -> None:
        if name == "bad":
            raise ZeroDivisionError
        while not stop():
            time.sleep(0.01)
        ended.append(True)

    with pytest.raises(ZeroDivisionError):
        each(["bad", "long"], work, jobs=2, stop=stop)
    assert ended == [True]


def test_several_failures_become_one_error() -> None:
    raise_failures({}, 3)
    with pytest.raises(GuestError, match=r"^a: no$"):
        raise_failures({"a": GuestError("a: no")}, 3)
    both: dict[str, LabctlError] = {"b": GuestError("b: no", details="why"), "a": HostError("full", hint="Free some.")}
    with pytest.raises(ProviderError) as caught:
        raise_failures(both, 3)
    assert caught.value.brief == "2 of 3 machines failed: a, b"
    assert "why" in caught.value.details and "full" in caught.value.details and caught.value.hint == "Free some."
