"""The office itself, and the tasks of its README."""

import json
import time

import pytest

RULE = 1000001  # the signature that the README asks for
CONTROL = 1  # that of files/lab.rules
ENDS = ("src", "dest")

# What a guest's python3 is told: connections to make, each with an address, a port and a line. At last it sends a
# datagram that the sensor knows. It says the ports that all of these came from.
SPEAK = """
import json, socket, sys
ports = []
for address, port, line in json.load(sys.stdin):
    with socket.create_connection((address, port), timeout=20) as connection:
        ports.append(connection.getsockname()[1])
        connection.sendall(line.encode())
        while connection.recv(4096):
            pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
    datagram.sendto(b"labctl check", ("10.55.0.30", 9))
    print(json.dumps([*ports, datagram.getsockname()[1]]))
"""


def answers(lab):
    """What the answers' file says, by key."""
    text = lab.exec("sensor", ["cat", "/root/answers.txt"]).stdout.decode(errors="replace")
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip().lower(): words.strip() for key, words in said.items()}


def alerts(lab):
    """Every alert that Suricata has written down: its signature, with the address and port of each end."""
    text = lab.exec("sensor", ["grep", "-h", '"event_type":"alert"', "/var/log/suricata/eve.json"]).stdout
    found = [json.loads(line) for line in text.decode(errors="replace").splitlines() if line.endswith("}")]
    return [
        (one["alert"]["signature_id"], one.get(f"{end}_ip"), one.get(f"{end}_port"))  # ARP has neither, ICMP no port
        for one in found
        for end in ENDS
    ]


def judged(lab, source, lines):
    """Which of these lines the student's rule has alerted on, once Suricata has surely seen them all."""
    known = len(alerts(lab))
    spoken = lab.exec(source, ["python3", "-c", SPEAK], stdin=json.dumps(lines).encode(), timeout=120)
    assert spoken.code == 0, spoken.stderr.decode()
    address, (*ports, control) = lab.address(source), json.loads(spoken.stdout)
    give_up = time.monotonic() + 60
    while (CONTROL, address, control) not in (new := alerts(lab)[known:]):
        assert time.monotonic() < give_up, "Suricata says nothing about what it must have heard"
        time.sleep(1)
    return [(RULE, address, port) in new for port in ports]


@pytest.fixture(scope="module")
def verdicts(lab):
    """What the rule says of a beacon from another machine with another id, and of each thing that is none."""
    printer, port = lab.address("printer"), int(lab.secret("beacon-port"))
    intranet, poll = lab.address("intranet"), "GET /poll?id=7&seq=2 HTTP/1.0\r\n\r\n"
    beacon = (printer, port, "POLL id=An0therW seq=1\n")
    harmless = [
        (printer, port, "GET / HTTP/1.0\r\n\r\n"),
        (printer, port, "status\n"),
        (printer, 9100, "POLL RESULTS: the tea has won\n"),
    ]
    found, *others = judged(lab, "intranet", [beacon, *harmless])
    return found, others + judged(lab, "desk", [(intranet, 80, poll)])


def test_suricata_hears_what_others_say(lab):
    """Suricata hears the desk speak to the printer."""
    assert judged(lab, "desk", []) == []


def test_the_desk_is_at_work(machine):
    """The desk logs in and its beacon beats; the server and the printer answer."""
    for name in ("desk", "intranet", "printer"):
        assert machine(name).service(name).is_running
    heard = machine("sensor").run("timeout 60 tcpdump -nn -i any -c 1 'src 10.55.0.10 and tcp src port 80'")
    assert heard.rc == 0, heard.stderr


@pytest.mark.task(1)
def test_a_login_was_captured(lab):
    """The capture has the desk's login in it."""
    shown = lab.exec("sensor", ["tcpdump", "-nn", "-A", "-r", "/root/login.pcap", "tcp port 80"])
    assert f"user={lab.secret('user')}&password={lab.secret('password')}" in shown.stdout.decode(errors="replace")


@pytest.mark.task(2)
def test_the_credential_is_known(lab):
    """The answers have the user and the password that went over the wire."""
    said = answers(lab)
    assert (said.get("user"), said.get("password")) == (lab.secret("user"), lab.secret("password"))


@pytest.mark.task(2)
def test_the_beacons_destination_is_known(lab):
    """The answers have the address and port that the beacon goes to."""
    assert answers(lab).get("beacon") == f"10.55.0.30:{lab.secret('beacon-port')}"


@pytest.mark.task(1)
def test_the_beacons_period_is_known(lab):
    """The answers have the seconds between two beacons."""
    assert answers(lab).get("period", "").removesuffix("s").strip() == lab.secret("beacon-period")


@pytest.mark.task(2)
def test_the_rule_sees_a_beacon(verdicts):
    """The rule alerts on a beacon, whoever sends it."""
    found, _ = verdicts
    assert found


@pytest.mark.task(2)
def test_the_rule_sees_nothing_else(verdicts):
    """The rule alerts on a beacon and on nothing else, be it to the same port."""
    found, others = verdicts
    assert (found, others) == (True, [False] * len(others))
