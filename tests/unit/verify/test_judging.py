"""What counts as seen, and which answers serve as controls."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from labctl.plan.model import Flow, LabPlan
from labctl.spec.model import Ports
from labctl.verify.agenda import Agenda, Cell, Door, Surroundings, agenda
from labctl.verify.answers import Answer
from labctl.verify.judge import Heard, judge
from labctl.verify.model import Control, ProbedFlow, Verdict
from tests.support import plans

pytestmark = pytest.mark.unit

OWN = 60000
P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE  # noqa: E741
EVERY_NIC = frozenset({("a", "eth0"), ("a", "mgmt"), ("b", "eth0"), ("n", "eth0"), ("m", "eth0")})
TOKENS = {name: f"token-of-{name}" for name in ("a", "b", "n", "m", "host", "management")}


def lab(*flows: Flow) -> LabPlan:
    """a and its neighbour n on red; b and its neighbour m on blue."""
    networks = [plans.network("red", subnet="10.1.0.0/24"), plans.network("blue", subnet="10.2.0.0/24")]
    seats = [
        ("a", "red", "10.1.0.1/24"),
        ("n", "red", "10.1.0.2/24"),
        ("b", "blue", "10.2.0.1/24"),
        ("m", "blue", "10.2.0.2/24"),
    ]
    services = {"b": (Ports("tcp", 80, 80), Ports("udp", 514, 514))}
    machines = [
        plans.machine(n, plans.interface(n, "eth0", on, at), services=services.get(n, ())) for n, on, at in seats
    ]
    return plans.lab(networks, machines, flows=flows)


def flow(source: str, target: str, protocol: Any, port: int, expected: Any, **more: Any) -> Flow:
    address = {"a": "10.1.0.1", "n": "10.1.0.2", "b": "10.2.0.1", "m": "10.2.0.2"}.get(target)
    values = {"source_device": "eth0", "target_device": "eth0" if address else "", "family": 4, "address": address}
    return Flow(source=source, target=target, protocol=protocol, port=port, expected=expected, **values | more)


DENIED = flow("a", "b", "tcp", 443, "deny")
ALLOWED = flow("a", "b", "tcp", 443, "pass")


class Scene:
    """Everybody tells the truth about a lab where what should pass passes, until a test says otherwise."""

    def __init__(self, *flows: Flow) -> None:
        self.plan = lab(*flows)
        numbers = itertools.count()
        around = Surroundings(("192.0.2.1",), 50000, OWN)
        self.todo: Agenda = agenda(self.plan, around, lambda: f"{next(numbers):016x}")
        self.answers = {cell.probe.id: self.answer(cell) for cell in self.todo.cells}
        self.answers |= {p.id: Answer("answered", "", 1, TOKENS[d.owner]) for d, p in self.todo.own.items()}
        self.listeners = {door: "open" for doors in self.todo.listeners.values() for door in doors}
        self.troubles: dict[str, str] = {}
        self.arrived: dict[str, set[str]] = {}
        self.sound = set(EVERY_NIC)
        self.unplugged: set[tuple[str, str]] = set()
        self.host: dict[Door, Control] = {}

    @staticmethod
    def answer(cell: Cell) -> Answer:
        if cell.flow.expected == "deny":
            return Answer("silence", "", 0, "")
        return Answer("answered", "", 1, TOKENS[cell.flow.target])

    def says(self, number: int, seen: Any, proof: str = "") -> None:
        self.answers[number] = Answer(seen, "", 1, proof)

    def asks_itself(self, machine: str, seen: Any) -> None:
        for door, probe in self.todo.own.items():
            if door.owner == machine:
                self.says(probe.id, seen)

    def judged(self) -> tuple[ProbedFlow, ...]:
        heard = Heard(
            self.answers, self.troubles, self.listeners, TOKENS, self.arrived, self.sound, self.unplugged, self.host
        )  # fmt: skip
        return judge(self.plan, self.todo, heard, OWN)

    def first(self) -> ProbedFlow:
        return self.judged()[0]


def by(flow: ProbedFlow) -> tuple[str, ...]:
    return tuple(control.by for control in flow.control)


# --- controls of a denial ---


def test_alone_on_their_wires_both_can_only_show_themselves() -> None:
    found = Scene(DENIED).first()
    assert (found.verdict, by(found)) == (P, ("self", "self"))
    assert "eth0 is up as planned" in found.control[0].details


def test_neighbours_are_better_controls() -> None:
    found = Scene(DENIED, flow("a", "n", "tcp", 22, "pass"), flow("m", "b", "tcp", 443, "pass")).first()
    assert (found.verdict, by(found)) == (P, ("peer", "peer"))


def test_a_neighbour_by_another_protocol_family_or_port_is_none() -> None:
    others = (flow("a", "n", "udp", 22, "pass"), flow("m", "b", "tcp", 444, "pass"), flow("m", "b", "udp", 443, "pass"))
    assert by(Scene(DENIED, *others).first()) == ("self", "self")


def test_another_nic_of_the_source_will_do_where_this_one_is_up() -> None:
    scene = Scene(replace(DENIED, source_device="mgmt"), flow("a", "n", "tcp", 22, "pass"))
    assert (scene.first().verdict, by(scene.first())) == (P, ("nic", "self"))
    scene.sound.discard(("a", "mgmt"))
    assert scene.first().verdict is I


@pytest.mark.parametrize(
    "neighbour",
    [flow("a", "n", "tcp", 22, "pass"), flow("n", "a", "tcp", 22, "pass"), flow("m", "b", "tcp", 22, "pass")],
)
@pytest.mark.parametrize("seen", ["silence", "no-route"])
def test_a_nic_that_meets_nobody_whom_it_may_meet_shows_nothing(neighbour: Flow, seen: str) -> None:
    """It might be broken, whatever the machine reaches by itself; one refusal shows that it is not."""
    scene = Scene(DENIED, neighbour)
    scene.says(1, seen)
    assert scene.first().verdict is I
    assert any("exchanged nothing" in control.details for control in scene.first().control)
    scene.says(1, "refused")
    assert scene.first().verdict is P


@pytest.mark.parametrize("machine", ["a", "b"])
def test_an_own_address_shows_nothing_where_the_nic_is_not_as_planned(machine: str) -> None:
    scene = Scene(DENIED)
    scene.sound.discard((machine, "eth0"))
    assert scene.first().verdict is I


@pytest.mark.parametrize("machine", ["a", "b"])
def test_a_machine_that_does_not_even_reach_itself_proves_nothing(machine: str) -> None:
    scene = Scene(DENIED)
    scene.asks_itself(machine, "silence")
    found = scene.first()
    assert found.verdict is I
    assert "none" in by(found)


def test_the_management_path_may_refuse_for_a_target_that_is_shown_to_answer() -> None:
    scene = Scene(replace(DENIED, source_device="mgmt"), flow("a", "n", "tcp", 22, "pass"))
    scene.says(0, "refused")
    assert scene.first().verdict is P
    scene.asks_itself("b", "refused")
    assert scene.first().verdict is I
    scene.says(0, "answered")
    assert scene.first().verdict is F


def test_a_cable_that_the_engine_reports_pulled_shows_that_nothing_can_leave() -> None:
    scene = Scene(replace(DENIED, source_device="mgmt"))
    scene.sound.discard(("a", "mgmt"))
    assert scene.first().verdict is I
    scene.unplugged.add(("a", "mgmt"))
    assert (scene.first().verdict, by(scene.first())) == (P, ("unplugged", "self"))
    scene.says(0, "answered")
    assert scene.first().verdict is F


SERVER = flow("a", "management", "udp", 69, "deny", source_device="mgmt", address="10.0.2.2")


@pytest.mark.parametrize(
    ("seen", "proof", "expected", "verdict"),
    [
        ("answered", "????Access violation?", "refused", P),
        ("answered", "Accessviolation", "refused", P),
        ("answered", "????File not found?", "answered", F),
        ("answered", "????the file itself", "answered", F),
        ("answered", "", "answered", F),
        ("silence", "", "silence", I),
    ],
)
def test_a_file_server_that_serves_nothing_is_no_leak(seen: Any, proof: str, expected: str, verdict: Verdict) -> None:
    scene = Scene(SERVER, flow("a", "n", "udp", 9, "pass"))
    scene.says(0, seen, proof)
    found = scene.first()
    assert (found.evidence.seen, found.verdict) == (expected, verdict)
    if seen == "silence":
        scene.host[scene.todo.cells[0].door] = Control("target", True, "twin", "")
        assert scene.first().verdict is P


def test_the_words_of_the_file_server_mean_nothing_from_anybody_else() -> None:
    scene = Scene(flow("a", "b", "udp", 69, "deny"), flow("a", "n", "udp", 9, "pass"))
    scene.says(0, "answered", "????Access violation?")
    assert scene.first().verdict is F


def test_the_host_is_shown_to_answer_by_labctl() -> None:
    scene = Scene(flow("a", "host", "tcp", 0, "deny"))
    assert scene.first().verdict is I
    door = Door("host", 4, "tcp", "192.0.2.1", 50000)
    scene.host[door] = Control("target", True, "host", "the canary answered")
    assert (scene.first().verdict, by(scene.first())) == (P, ("self", "host"))
    scene.host[door] = Control("target", False, "none", "the canary is dead")
    assert scene.first().verdict is I


def test_a_rejected_flow_may_be_refused_where_its_controls_pass() -> None:
    scene = Scene(replace(DENIED, rejected=True))
    scene.says(0, "refused")
    assert scene.first().verdict is P
    scene.asks_itself("b", "refused")
    assert scene.first().verdict is I


# --- what counts as seen ---


@pytest.mark.parametrize("seen", ["answered", "refused"])
def test_whatever_comes_back_is_a_leak(seen: str) -> None:
    scene = Scene(DENIED)
    scene.says(0, seen)
    assert scene.first().verdict is F


@pytest.mark.parametrize("seen", ["silence", "no-route", "prohibited", "error"])
def test_a_probe_that_the_target_got_is_a_leak_whatever_the_source_says(seen: str) -> None:
    scene = Scene(DENIED)
    scene.says(0, seen)
    scene.arrived = {"b": {scene.todo.cells[0].probe.nonce}}
    assert scene.first().verdict is F
    assert "reached b" in scene.first().evidence.details


def test_a_nonce_that_reached_somebody_else_says_nothing() -> None:
    scene = Scene(DENIED)
    scene.arrived = {"m": {scene.todo.cells[0].probe.nonce}, "b": {"f" * 16}}
    assert scene.first().verdict is P


def test_a_pass_needs_the_listeners_token() -> None:
    scene = Scene(ALLOWED)
    assert scene.first().verdict is P
    scene.says(0, "answered", "something else")
    assert scene.first().verdict is I
    scene.arrived = {"b": {scene.todo.cells[0].probe.nonce}}
    assert scene.first().verdict is P


def test_a_declared_service_or_one_that_was_there_needs_no_token() -> None:
    scene = Scene(flow("a", "b", "tcp", 80, "pass"))
    scene.says(0, "answered", "HTTP/1.1 400")
    assert scene.first().verdict is P
    scene = Scene(ALLOWED)
    scene.listeners = dict.fromkeys(scene.listeners, "taken")
    scene.says(0, "answered", "SSH-2.0")
    assert scene.first().verdict is P


def test_a_path_that_is_closed_or_a_service_that_is_down_fails() -> None:
    for seen in ("refused", "silence", "no-route", "prohibited"):
        for planned in (ALLOWED, flow("a", "b", "tcp", 80, "pass")):
            scene = Scene(planned)
            scene.says(0, seen)
            assert scene.first().verdict is F, seen


def test_no_listener_no_verdict() -> None:
    scene = Scene(ALLOWED)
    scene.listeners = dict.fromkeys(scene.listeners, "EADDRNOTAVAIL")
    scene.says(0, "refused")
    assert scene.first().verdict is I
    assert "no listener" in scene.first().evidence.details


def test_a_silent_udp_service_is_told_from_a_closed_path_by_asking_itself() -> None:
    scene = Scene(flow("a", "b", "udp", 514, "pass"))
    scene.says(0, "silence")
    assert scene.first().verdict is F, "it answers itself, so it should answer others"
    scene.asks_itself("b", "silence")
    assert scene.first().verdict is I


def test_a_source_that_cannot_be_asked() -> None:
    scene = Scene(DENIED, ALLOWED)
    scene.troubles = {"a": "it has no python3"}
    assert [found.verdict for found in scene.judged()] == [I, I]
    assert "a could not be asked: it has no python3" in scene.first().evidence.details


def test_a_target_that_cannot_be_asked() -> None:
    scene = Scene(DENIED, ALLOWED)
    scene.troubles = {"b": "it is dead"}
    scene.answers = {0: scene.answers[0], 1: Answer("silence", "", 0, "")}
    scene.says(next(p.id for d, p in scene.todo.own.items() if d.owner == "a"), "answered", TOKENS["a"])
    assert [found.verdict for found in scene.judged()] == [I, I]
    assert "it is dead" in scene.first().control[1].details


def test_a_probe_without_an_answer() -> None:
    scene = Scene(DENIED)
    del scene.answers[0]
    assert scene.first().verdict is I
