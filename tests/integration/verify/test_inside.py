"""The program for guests: on what Debian's python3-minimal has, over loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl import inside
from labctl.inside import probing
from labctl.inside.listening import Service
from tests.support.inside import FAST, PYTHON, Guest, WaitingGuest, wait_for
from tests.support.netlab import within

pytestmark = pytest.mark.integration


@pytest.fixture
def guest(namespace: str) -> Iterator[Guest]:
    """Its program is started for each verification."""
    found = Guest(namespace)
    yield found
    if found.pipes and not found.ended():
        found.collect()


@pytest.fixture
def waiting(namespace: str, tmp_path: Path) -> Iterator[WaitingGuest]:
    """Its program is there before."""
    found = WaitingGuest(namespace, tmp_path)
    yield found
    found.desk.close()


@pytest.fixture(params=["started", "waiting"])
def either(request: pytest.FixtureRequest) -> Guest:
    found: Guest = request.getfixturevalue({"started": "guest", "waiting": "waiting"}[request.param])
    return found


def test_it_needs_nothing_but_pythons_minimal_modules(guest: Guest) -> None:
    if shutil.which("dpkg") is None or not Path(PYTHON).exists():
        pytest.fail(
            "this test asks dpkg what python3-minimal has: run it on Debian with apt-get install python3-minimal"
        )
    (version,) = guest.start("import sys; print('%d.%d' % sys.version_info[:2])")
    listing = ["dpkg", "-L", f"libpython{version}-minimal"]
    owned = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    assert len(owned) > 100
    after = "print(*[str(getattr(m, '__file__', '')) for m in sys.modules.values()], sep='\\n')"
    _, *files = guest.start(f"{inside.resident(0, 't', [], [], [], [], (*FAST, [], []))}later()\n{after}\n")
    loaded = {name for name in files if name.startswith("/")}
    assert {name for name in loaded if name not in owned} == set()
    assert not any(name.endswith(("/socket.py", "/subprocess.py", "/typing.py")) for name in loaded), "slow to load"


@pytest.mark.parametrize(("family", "address"), [(4, "127.0.0.1"), (6, "::1")])
def test_listen_probe_collect(either: Guest, family: int, address: str) -> None:
    port, other = 4001, 4002
    doors = [(family, "tcp", address, port), (family, "udp", address, port)]
    assert either.listen(20, "token123", doors) == [[0, "open"], [1, "open"]]
    nonces = ["a" * 16, "b" * 16]
    answers = either.probes(
        (1, "", family, "tcp", address, port, "labctl-probe-" + nonces[0], True),
        (2, "", family, "udp", address, port, "labctl-probe-" + nonces[1], True),
        (3, "", family, "icmp", address, 0, "", True),
        (4, "", family, "tcp", address, other, "labctl-probe-" + "c" * 16, False),
        (5, "", family, "udp", address, other, "labctl-probe-" + "c" * 16, False),
    )
    assert {number: row[0] for number, row in answers.items()} == {
        1: "answered", 2: "answered", 3: "answered", 4: "refused", 5: "refused",
    }  # fmt: skip
    assert answers[1][3] == answers[2][3] == "token123"
    assert sorted(either.collect()["arrived"]) == nonces
    assert either.probes((1, "", family, "tcp", address, port, "", False))[1][0] == "refused", "the listeners are gone"


# Two ports that take datagrams and answer nobody; says how many came to each once its input ends.
MUTE = """
import select, socket, sys
doors = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for door, port in zip(doors, (4010, 4011)):
    door.bind(("127.0.0.1", port))
print("ready", flush=True)
came = [0, 0]
while sys.stdin not in (ready := select.select([*doors, sys.stdin], [], [])[0]):
    for door in ready:
        door.recv(100)
        came[doors.index(door)] += 1
print(*came)
"""


def test_what_must_not_be_answered_is_sent_a_few_times_only(guest: Guest) -> None:
    argv = ["ip", "netns", "exec", guest.namespace, PYTHON, "-c", MUTE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mute:
        assert mute.stdout is not None
        assert mute.stdout.readline() == "ready\n"
        spec = (4, "udp", "127.0.0.1")
        answers = guest.probes((1, "", *spec, 4010, "x", True), (2, "", *spec, 4011, "x", False), patient=3.0)
        patient, impatient = map(int, mute.communicate(timeout=20)[0].split())
    assert {row[0] for row in answers.values()} == {"silence"}
    assert 1 < impatient <= 1 + probing.RESENDS < patient


def test_a_port_in_use_is_left_alone(either: Guest) -> None:
    server = within(Path("/run/netns") / either.namespace, lambda: socket.create_server(("", 4001)))
    with server:
        assert either.listen(5, "t", [(4, "tcp", "127.0.0.1", 4001)]) == [[0, "taken"]]
    assert either.collect() == {"arrived": [], "wires": []}


def test_an_address_the_guest_does_not_have(either: Guest) -> None:
    assert either.listen(5, "t", [(4, "tcp", "203.0.113.9", 80)]) == [[0, "EADDRNOTAVAIL"]]
    either.collect()


def test_listeners_end_by_themselves(guest: Guest) -> None:
    port = 4001
    probe = (1, "", 4, "tcp", "127.0.0.1", port, "", False)
    guest.listen(3, "t", [(4, "tcp", "127.0.0.1", port)])
    assert guest.probes(probe)[1][0] == "answered"
    gone(guest.pipes)
    guest.ask("collect", code=2)
    guest.pipes = []
    assert guest.probes(probe)[1][0] == "refused"


def test_who_listens_next_ends_what_a_killed_verification_left(guest: Guest) -> None:
    door = (4, "tcp", "127.0.0.1", 4001)
    guest.listen(60, "first", [door])
    before = guest.pipes
    assert guest.listen(60, "second", [door]) == [[0, "open"]]
    gone(before)
    assert guest.probes((1, "", *door, "x", True))[1][3] == "second"


def test_a_guests_settings_are_put_back_by_one_that_is_dismissed_while_it_probes(guest: Guest) -> None:
    """labctl was killed, and is called again at once."""

    def filtering(*words: str) -> str:
        return guest.run("sysctl", "-n", *words, "net.ipv4.conf.all.rp_filter", stdin="").strip()

    guest.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2", stdin="")
    guest.run("ip", "route", "add", "192.0.2.0/24", "dev", "lo", stdin="")
    guest.listen(60, "t", [], 4.0, 4.0, *FAST[2:])
    task = inside.marshalled("probe", None, [(1, "", 4, "udp", "192.0.2.9", 9, "x", True)]).hex() + "\n"
    argv = ["ip", "netns", "exec", guest.namespace, *inside.ASK, *guest.pipes]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as asking:
        assert asking.stdin is not None
        asking.stdin.write(task)
        asking.stdin.close()
        end = time.monotonic() + 20
        while filtering() != "0":
            assert time.monotonic() < end, "it never began"
            time.sleep(0.05)
        asking.kill()
    guest.listen(60, "t", [])
    assert filtering() == "2"


def test_who_waits_serves_one_verification_after_the_other(waiting: WaitingGuest) -> None:
    """Also where one ends by time, or is killed, or goes wrong."""
    door = (4, "tcp", "127.0.0.1", 4001)

    def answered(token: str) -> bool:
        return bool(waiting.probes((1, "", *door, "x", True))[1][3] == token)

    waiting.listen(60, "first", [door])
    assert answered("first")
    assert waiting.listen(60, "second", [door]) == [[0, "open"]], "the first one was killed"
    assert answered("second")
    assert waiting.collect() == {"arrived": [], "wires": []}
    assert waiting.ask("collect") == "!nobody listens\n"
    assert waiting.ask("listen", "no number").startswith("!TypeError")
    waiting.listen(0.5, "third", [door])
    time.sleep(1.5)
    assert waiting.ask("probe", None, []) == "!nobody listens\n", "its time was over"
    waiting.listen(60, "fourth", [door])
    assert answered("fourth")
    assert sorted(path.name.partition(".")[0] for path in waiting.desk.door.parent.iterdir()) == ["door"] * 3, (
        "the door, the last question, and the last answer"
    )


def test_who_waits_puts_settings_back_before_it_serves_another(waiting: WaitingGuest) -> None:
    def filtering() -> str:
        return waiting.run("sysctl", "-n", "net.ipv4.conf.all.rp_filter", stdin="").strip()

    waiting.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2", stdin="")
    waiting.run("ip", "route", "add", "192.0.2.0/24", "dev", "lo", stdin="")
    waiting.listen(60, "t", [], 2.0, 2.0, *FAST[2:])
    task = inside.marshalled("probe", None, [(1, "", 4, "udp", "192.0.2.9", 9, "x", True)])
    waiting.desk.left(task, "nobody")
    wait_for(lambda: filtering() == "0", "the probe")
    waiting.listen(60, "t", [])
    assert filtering() == "2"


def test_who_waits_and_who_is_started_make_room_for_each_other(waiting: WaitingGuest) -> None:
    door = (4, "tcp", "127.0.0.1", 4001)
    started = Guest(waiting.namespace)
    waiting.listen(60, "waits", [door])
    assert started.listen(60, "started", [door]) == [[0, "open"]]
    assert started.probes((1, "", *door, "x", True))[1][3] == "started"
    before = started.pipes
    assert waiting.listen(60, "waits", [door]) == [[0, "open"]]
    gone(before)
    assert waiting.probes((1, "", *door, "x", True))[1][3] == "waits"


def test_an_answer_that_somebody_removed_stops_nobody(waiting: WaitingGuest) -> None:
    waiting.listen(60, "t", [])
    for path in waiting.desk.door.parent.glob("door.*"):
        path.unlink()
    assert waiting.collect() == {"arrived": [], "wires": []}


def test_a_frame_that_is_too_short_to_be_an_answer_is_none(namespace: str) -> None:
    """A neighbour may send anything: it must not end who listens."""
    service = Service(b"t", {"lo": "lo"})
    for length in range(14, 80):
        for kind in (b"\x08\x06", b"\x86\xdd"):
            frame = bytes(6) + b"\x02" * 6 + kind + bytes(6) + b"\0\x02"
            service.heard((frame + bytes(80))[:length], ("lo", 0, 0))
    assert sorted(service.facts)[-1].startswith(b"from lo 02:02")


def test_a_door_is_gone_with_its_program(waiting: WaitingGuest) -> None:
    waiting.desk.close()
    assert waiting.desk.ask(b"x") is None


def test_what_goes_wrong_is_said_and_others_are_served_on(either: Guest) -> None:
    door = (4, "tcp", "127.0.0.1", 4001)
    either.listen(60, "token", [door])
    assert either.ask("probe", [7], []).startswith("!KeyError: ")
    assert either.probes((1, "", *door, "x", True))[1][3] == "token"


def test_a_long_task_and_a_long_answer_are_whole(either: Guest) -> None:
    """Each is longer than a pipe holds."""
    specs = [(number, "nosuchdev", 4, "udp", "127.0.0.1", 9, "x" * 200, False) for number in range(1500)]
    rows = either.probes(*specs, quick=0.1)
    assert {(number, row[0]) for number, row in rows.items()} == {(number, "error") for number in range(1500)}


def gone(pipes: list[str]) -> None:
    end = time.monotonic() + 20
    while Path(pipes[0]).exists():
        assert time.monotonic() < end, "the listener is still there"
        time.sleep(0.05)


def test_a_device_that_does_not_exist_is_an_error_and_no_silence(guest: Guest) -> None:
    rows = guest.probes(
        *(
            (n, "nosuchdev", 4, protocol, "127.0.0.1", 9, "x", False)
            for n, protocol in enumerate(("icmp", "tcp", "udp"))
        )
    )
    assert {row[0] for row in rows.values()} == {"error"}
    guest.collect()
    spec = (1, "nosuchdev", 4, "icmp", "127.0.0.1", 0, "", False)
    gateway = guest.probe([spec], 0.1, 0.1, ("nosuchdev", "10.0.2.2"), [])
    assert "management gateway: ENODEV" in gateway["results"][0][2]


def test_a_thousand_probes_at_once(guest: Guest) -> None:
    port = 4001
    guest.listen(30, "t", [(4, "tcp", "127.0.0.1", port), (4, "udp", "127.0.0.1", port)], 1.5, 4.0, *FAST[2:])
    specs = [
        (number, "", 4, ("tcp", "udp", "icmp")[number % 3], "127.0.0.1", port, f"labctl-probe-{number:016x}", True)
        for number in range(1000)
    ]
    rows = guest.probes(*specs)
    assert {number for number, row in rows.items() if row[0] != "answered"} == set()
    assert len(guest.collect()["arrived"]) == len([s for s in specs if s[3] != "icmp"])


NOISE = """\
import socket, time
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
while True:
    sock.sendto(bytes(16), ("127.0.0.1", 0))  # the form of an answer, to nobody's question
    time.sleep(0.1)
"""


def test_what_comes_over_and_over_and_is_no_answer_is_not_waited_for(guest: Guest) -> None:
    for words in (
        "link set lo up",
        "link add odd type veth peer name other",
        "link set odd up",
        "link set other up",
        "addr add 192.0.2.1/24 dev odd",
        "neigh add 192.0.2.9 lladdr 02:00:5e:00:00:09 dev odd",
    ):
        subprocess.run(["ip", "-n", guest.namespace, *words.split()], check=True)
    with subprocess.Popen(["ip", "netns", "exec", guest.namespace, PYTHON, "-c", NOISE]) as noise:
        try:
            row = guest.probes((1, "", 4, "icmp", "192.0.2.9", 0, "", False))[1]
            assert noise.poll() is None
        finally:
            noise.kill()
    assert row[0] == "silence"


def test_a_nic_is_found_by_its_mac_whatever_the_guest_calls_it(guest: Guest) -> None:
    mac = "02:00:5e:00:00:07"
    for words in ("link add odd type veth peer name other", f"link set odd address {mac} up", "link set other up"):
        subprocess.run(["ip", "-n", guest.namespace, *words.split()], check=True)
    found = guest.probe([], 0.1, 0.1, None, [("eth0", mac), ("eth1", "02:00:5e:00:00:08")])
    assert found["links"] == {"eth0": "up", "eth1": "down"}
    (row,) = guest.probe([(1, "eth0", 4, "tcp", "127.0.0.1", 9, "", False)])["results"]
    assert "No such device" not in row[2], row
