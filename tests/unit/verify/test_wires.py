"""What NICs send beyond probes, and what it shows when others hear it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace

import pytest

from labctl.plan.model import LabPlan
from labctl.verify.errands import Errands, Nic, Routed, Sent, Unicast, errands
from labctl.verify.model import ProbedFlow, Verdict
from labctl.verify.wires import Ears, Overheard
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit

LAB = """
networks:
  red: {subnet: 10.1.0.0/24}
  blue: {subnet: 10.2.0.0/24, subnet6: "fd00:2::/64"}
  alone: {subnet: 10.3.0.0/24, peers: false}
machines:
  a: {image: debian-12, networks: {red: 10.1.0.2}}
  n: {image: debian-12, networks: {red: 10.1.0.3}}
  r: {image: debian-12, router: true, networks: {red: 10.1.0.1, blue: 10.2.0.1, alone: 10.3.0.1}}
  b: {image: debian-12, networks: {blue: 10.2.0.2}}
  s: {image: debian-12, networks: {blue: {address: 10.2.0.3, promiscuous: true}}}
  x: {image: debian-12, networks: {alone: auto}}
  y: {image: debian-12, networks: {alone: auto}}
policy:
  - {from: red, to: b, ports: [tcp/80]}
"""


class Scene:
    """A lab where every NIC hears what it should, until a test says otherwise."""

    def __init__(self) -> None:
        self.plan: LabPlan = plan_of(LAB)
        numbers = itertools.count(1)
        self.todo: Errands = errands(self.plan, ["192.0.2.9"], lambda: f"{next(numbers):016x}")
        self.frames: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.sources: dict[str, set[tuple[str, str, int]]] = defaultdict(set)
        self.claims: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
        self.troubles: dict[str, str] = {}
        self.sound = {nic.place for nic in self.todo.nics}
        self.unplugged: set[tuple[str, str]] = set()
        self.switched = True
        for sent in self.todo.sent:
            if isinstance(sent, Routed):
                self.hear(sent, sent.via)
            for nic in self.todo.nics:
                honest = not isinstance(sent, Unicast | Routed) or nic.promiscuous
                if nic.machine != sent.nic.machine and nic.meets(sent.nic) and honest:
                    self.hear(sent, nic)
            if isinstance(sent, Unicast):
                self.hear(sent, sent.target)

    def nic(self, machine: str, device: str = "eth0") -> Nic:
        return next(nic for nic in self.todo.nics if nic.place == (machine, device))

    def hear(self, sent: Sent, nic: Nic) -> None:
        self.frames[nic.machine].add((nic.device, sent.nonce))
        self.sources[nic.machine].add((nic.device, sent.frame[6:12].hex(":"), 0x88B5))

    def deafen(self, nic: Nic) -> None:
        self.frames[nic.machine] = {(d, nonce) for d, nonce in self.frames[nic.machine] if d != nic.device}

    def ears(self) -> Ears:
        heard = {
            machine.name: Overheard(
                frozenset(self.frames[machine.name]),
                frozenset((s.nic.device, s.nonce) for s in self.todo.sent if s.nic.machine == machine.name),
                frozenset(self.sources[machine.name]),
                frozenset(self.claims[machine.name]),
            )
            for machine in self.plan.machines
            if machine.name not in self.troubles
        }
        return Ears(self.plan, self.todo, heard, self.troubles, self.sound, self.unplugged, self.switched)

    def cells(self, verdict: Verdict) -> set[tuple[str, str, str, str, str]]:
        return {
            (f.source, f.source_device, f.target, f.target_device, f.trick or f.protocol)
            for f in self.ears().flows()
            if f.verdict is verdict
        }

    def flow(self, source: str, target: str, trick: str = "") -> ProbedFlow:
        return next(
            f
            for f in self.ears().flows()
            if (f.source, f.target, f.trick) == (source, target, trick)
            and "mgmt" not in (f.source_device, f.target_device)
        )

    def kinds(self) -> set[tuple[str, str]]:
        return {(finding.kind, finding.machine) for finding in self.ears().findings()}


def test_a_lab_that_is_as_planned_passes_everywhere() -> None:
    scene = Scene()
    assert not scene.cells(Verdict.FAIL)
    assert not scene.cells(Verdict.INCONCLUSIVE)
    assert scene.kinds() == set()
    assert scene.flow("x", "y").expected == "deny"
    assert scene.flow("r", "x").expected == "deny"  # its first NIC is on another wire
    assert ("r", "eth2", "x", "eth0") in {
        (f.source, f.source_device, f.target, f.target_device) for f in scene.ears().flows() if f.expected == "pass"
    }


def test_every_nic_is_heard_by_every_other_machines_nics() -> None:
    scene = Scene()
    nics = scene.todo.nics
    frames = [f for f in scene.ears().flows() if f.protocol == "frame"]
    assert len(frames) == sum(a.machine != b.machine for a, b in itertools.product(nics, nics))
    assert {f.expected for f in frames if "mgmt" in (f.source_device, f.target_device)} == {"deny"}


@pytest.mark.parametrize("trick", ["plain", "forged-mac", "vlan", "router-advertisement"])
def test_one_frame_of_any_kind_on_a_foreign_wire_is_a_leak(trick: str) -> None:
    scene = Scene()
    nic = scene.nic("a")
    scene.hear(next(s for s in scene.todo.sent if s.nic is nic and s.trick == trick), scene.nic("b"))
    assert scene.cells(Verdict.FAIL) == {("a", "eth0", "b", "eth0", "frame")}
    assert not scene.cells(Verdict.INCONCLUSIVE)


def test_peers_that_hear_each_other_where_they_must_not() -> None:
    scene = Scene()
    scene.hear(next(s for s in scene.todo.sent if s.nic is scene.nic("x")), scene.nic("y"))
    assert scene.cells(Verdict.FAIL) == {("x", "eth0", "y", "eth0", "frame")}


def test_a_nic_that_nobody_hears_breaks_its_wire_and_proves_nothing_elsewhere() -> None:
    scene = Scene()
    x = scene.nic("x")
    mine = {(d, n) for d, n in scene.frames["r"] if scene.todo.by_nonce[n].nic is x}
    scene.frames["r"] -= mine
    scene.sound.discard(("x", "eth0"))
    assert scene.cells(Verdict.FAIL) == {("x", "eth0", "r", "eth2", "frame")}
    denied = [f for f in scene.ears().flows() if (f.source, f.source_device, f.expected) == ("x", "eth0", "deny")]
    assert denied
    assert {f.verdict for f in denied} == {Verdict.INCONCLUSIVE}


def test_a_deaf_nic_proves_nothing() -> None:
    scene = Scene()
    scene.deafen(scene.nic("b"))
    scene.sound.discard(("b", "eth0"))
    assert {cell[2:4] for cell in scene.cells(Verdict.INCONCLUSIVE)} == {("b", "eth0")}


def test_a_guest_that_cannot_be_asked_is_inconclusive_both_ways() -> None:
    scene = Scene()
    scene.troubles["b"] = "it is dead"
    assert not scene.cells(Verdict.FAIL)
    assert all("b" in (cell[0], cell[2]) for cell in scene.cells(Verdict.INCONCLUSIVE))
    assert scene.flow("b", "a").evidence.details == "b sent nothing: it is dead"


def test_a_pulled_cable_is_a_control() -> None:
    scene = Scene()
    scene.unplugged.add(("a", "mgmt"))
    scene.sound.discard(("a", "mgmt"))
    assert not scene.cells(Verdict.INCONCLUSIVE)


def test_packets_with_a_source_that_a_rule_favours_are_tried_and_seen() -> None:
    scene = Scene()
    routed = [sent for sent in scene.todo.sent if isinstance(sent, Routed)]
    tried = {(s.trick, s.nic.machine, s.target.machine, s.protocol) for s in routed}
    assert ("spoofed-source", "x", "b", "tcp") in tried
    assert ("source-port", "b", "a", "tcp") in tried
    assert not [one for one in tried if one[1] in ("a", "n") and one[0] == "spoofed-source"]  # nobody could tell
    one = next(s for s in routed if s.trick == "spoofed-source" and s.nic.machine == "x")
    scene.hear(one, one.target)
    assert scene.cells(Verdict.FAIL) == {("x", "eth0", "b", "eth0", "spoofed-source")}
    assert scene.flow("x", "b", "spoofed-source").address == "10.2.0.2"


def test_a_packet_that_the_router_never_heard_of_shows_nothing() -> None:
    scene = Scene()
    scene.deafen(scene.nic("r", "eth2"))
    unsure = {cell for cell in scene.cells(Verdict.INCONCLUSIVE) if cell[4] == "spoofed-source"}
    assert {cell[0] for cell in unsure} == {"x", "y"}


def test_a_packet_for_a_nic_that_gets_nothing_for_it_alone_shows_nothing() -> None:
    """As where a switch sends another one its frames: what is for all it hears still."""
    scene = Scene()
    alone = {s.nonce for s in scene.todo.sent if isinstance(s, Unicast) and s.target.place == ("a", "eth0")}
    assert alone
    scene.frames["a"] = {(device, nonce) for device, nonce in scene.frames["a"] if nonce not in alone}
    assert scene.flow("b", "a", "source-port").verdict is Verdict.INCONCLUSIVE
    assert not [cell for cell in scene.cells(Verdict.INCONCLUSIVE) if cell[4] != "source-port"]


def test_a_rule_is_not_borrowed_where_its_packets_come_in_rightly() -> None:
    chained = """
networks: {one: {subnet: 10.1.0.0/24}, two: {subnet: 10.2.0.0/24}, three: {subnet: 10.3.0.0/24}}
machines:
  a: {image: debian-12, networks: {one: auto}}
  r1: {image: debian-12, router: true, networks: [one, two]}
  m: {image: debian-12, networks: {two: auto}}
  r2: {image: debian-12, router: true, networks: [two, three]}
  c: {image: debian-12, networks: {three: auto}}
policy:
  - {from: one, to: three, ports: [tcp/80]}
"""
    numbers = itertools.count(1)
    todo = errands(plan_of(chained), [], lambda: f"{next(numbers):016x}")
    by_m = [s for s in todo.sent if isinstance(s, Routed) and s.nic.machine == "m" and s.trick == "spoofed-source"]
    assert "r2" not in {s.via.machine for s in by_m}  # one's packets reach r2 from two: it cannot tell them apart


def test_a_stranger_is_reported_and_a_known_address_is_not() -> None:
    scene = Scene()
    scene.sources["a"].add(("eth0", "52:54:00:99:99:99", 0x0806))
    assert scene.kinds() == {("stranger", "a")}


def test_an_address_of_the_plan_on_a_wire_that_is_not_its_own_is_reported() -> None:
    """Unless its frames are known to come there: the flow tells of that."""
    scene = Scene()
    scene.sources["b"].add(("eth0", scene.nic("a").mac, 0x0806))
    assert scene.kinds() == {("stranger", "b")}
    (told,) = scene.ears().findings()
    assert "speaks on blue, and a's eth0 has that address elsewhere" in told.details
    scene.hear(next(s for s in scene.todo.sent if s.nic == scene.nic("a") and s.trick == "plain"), scene.nic("b"))
    assert scene.kinds() == set()
    assert scene.cells(Verdict.FAIL) == {("a", "eth0", "b", "eth0", "frame")}


def test_ipv6_on_the_management_path_is_reported_and_its_gateway_is_not() -> None:
    scene = Scene()
    scene.sources["a"].add(("mgmt", "52:55:0a:00:02:02", 0x0806))
    assert scene.kinds() == set()
    scene.sources["a"].add(("mgmt", "52:56:00:00:00:02", 0x86DD))
    assert scene.kinds() == {("management-ipv6", "a")}
    scene.unplugged.add(("a", "mgmt"))  # heard while labctl had the cable in to ask
    assert scene.kinds() == set()


def test_whoever_answers_for_somebody_elses_address_is_reported() -> None:
    scene = Scene()
    own, foreign = scene.nic("r", "eth1"), "10.2.0.2"
    scene.claims["a"].add(("eth0", "10.2.0.1", scene.nic("r").mac))  # its own address on another NIC
    scene.claims["a"].add(("eth0", "fe80::1", scene.nic("r").mac))
    assert scene.kinds() == set()
    scene.claims["a"].add(("eth0", foreign, scene.nic("r").mac))
    assert scene.kinds() == {("claim", "a")}
    assert own.wire == "blue"


def test_a_nic_that_hears_others_unicast_is_reported_and_a_sensor_that_does_not() -> None:
    scene = Scene()
    alone = next(
        s for s in scene.todo.sent if isinstance(s, Unicast) and (s.nic.machine, s.target.machine) == ("a", "r")
    )
    scene.hear(alone, scene.nic("n"))
    assert scene.kinds() == {("overhears", "n")}
    scene.switched = False
    assert scene.kinds() == set()


def test_a_sensor_that_hears_no_unicast_of_others_is_deaf() -> None:
    scene = Scene()
    between = {
        s.nonce
        for s in scene.todo.sent
        if isinstance(s, Unicast) and s.nic.wire == "blue" and "s" not in (s.nic.machine, s.target.machine)
    }
    assert between
    scene.frames["s"] = {(d, nonce) for d, nonce in scene.frames["s"] if nonce not in between}
    assert scene.kinds() == {("deaf", "s")}


def test_what_each_nic_sends_is_of_a_constant_size() -> None:
    many = LAB.replace("  n: {", "  n: {count: 40, ").replace("red: 10.1.0.3", "red: auto")
    numbers = itertools.count(1)
    plan = plan_of(many)
    todo = errands(plan, [], lambda: f"{next(numbers):016x}")
    assert max(len(todo.batch(machine.name)) for machine in plan.machines if not machine.router) < 90


def test_a_shared_management_network_has_the_machines_own_addresses() -> None:
    plan = Scene().plan
    shared = replace(plan, management=replace(plan.management, shared=True))
    assert {nic.wire for nic in errands(shared, [], lambda: "0" * 16).nics if nic.management} == {"management"}


def test_a_question_to_a_whole_wire_is_asked_by_three_of_its_nics() -> None:
    machines = "".join(f"  m{n}: {{image: debian-12, networks: [one]}}\n" for n in range(12))
    numbers = itertools.count(1)
    plan = plan_of(f"networks: {{one: {{subnet: 10.1.0.0/24}}}}\nmachines:\n{machines}")
    todo = errands(plan, ["192.0.2.1"], lambda: f"{next(numbers):016x}")
    asked = [frame[14:] for frames in todo.questions.values() for device, frame in frames if device == "eth0"]
    of_host = [frame for frame in asked if frame.endswith(bytes([192, 0, 2, 1]) + bytes(18))]
    assert len(of_host) == 3
    assert all(any(device == "eth0" for device, _ in mine) for mine in todo.questions.values()), "all have their turn"


def test_where_a_gateway_would_be_somebody_is_asked_for() -> None:
    plan = plan_of(
        "networks: {one: {subnet: 10.1.0.0/28}}\nmachines: {a: {image: debian-12, networks: {one: 10.1.0.1}}}"
    )
    todo = errands(plan, [], lambda: "0" * 16)
    asked = [frame[38:42] for device, frame in todo.questions["a"] if device == "eth0" and frame[12:14] == b"\x08\x06"]
    assert [number[-1] for number in asked if number[:3] == bytes([10, 1, 0])] == [2, 13, 14]
