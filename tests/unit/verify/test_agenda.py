"""From planned flows to concrete questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from labctl.errors import ExitCode, UsageError
from labctl.plan.model import Flow, LabPlan
from labctl.spec.model import Ports
from labctl.verify.agenda import Agenda, Door, Surroundings, agenda, named_outside
from tests.support import plans

pytestmark = pytest.mark.unit

AROUND = Surroundings(("192.0.2.1", "192.0.2.2", "2001:db8::1"), canary=50000, own=60000)


def lab(*flows: Flow, **changes: Any) -> LabPlan:
    networks = [plans.network("red", subnet="10.1.0.0/24"), plans.network("blue", subnet="10.2.0.0/24")]
    machines = [
        plans.machine("a", plans.interface("a", "eth0", "red", "10.1.0.1/24")),
        plans.machine("b", plans.interface("b", "eth0", "blue", "10.2.0.1/24"), services=(Ports("tcp", 80, 80),)),
        plans.machine("c", plans.interface("c", "eth0", "red")),
    ]
    return plans.lab(networks, machines, flows=flows, **changes)


def ask(plan: LabPlan, around: Surroundings = AROUND) -> Agenda:
    numbers = itertools.count()
    return agenda(plan, around, lambda: f"{next(numbers):016x}")


def flow(
    target: str, protocol: Any, port: int, expected: Any = "deny", address: str | None = "10.2.0.1", **more: Any
) -> Flow:
    values = {"source": "a", "source_device": "eth0", "target_device": "eth0", "family": 4} | more
    return Flow(target=target, protocol=protocol, port=port, expected=expected, address=address, **values)


def places(todo: Agenda) -> list[tuple[str, int]]:
    return [(cell.door.address, cell.door.port) for cell in todo.cells]


def test_a_flow_between_machines_stays_as_planned() -> None:
    todo = ask(lab(flow("b", "tcp", 443)))
    assert [cell.door for cell in todo.cells] == [Door("b", 4, "tcp", "10.2.0.1", 443)]
    assert todo.cells[0].probe.device == "eth0"


def test_the_host_is_asked_at_every_address_of_the_family_at_the_canary() -> None:
    for family, wanted in ((4, [("192.0.2.1", 50000), ("192.0.2.2", 50000)]), (6, [("2001:db8::1", 50000)])):
        assert places(ask(lab(flow("host", "udp", 0, address=None, target_device="", family=family)))) == wanted


def test_icmp_has_no_port() -> None:
    assert places(ask(lab(flow("host", "icmp", 0, address=None, target_device="")))) == [
        ("192.0.2.1", 0),
        ("192.0.2.2", 0),
    ]


def test_the_management_gateway_is_asked_at_the_canary_and_its_resolver_at_port_53() -> None:
    flows = [flow("management", "udp", 53, address=a, target_device="") for a in ("10.0.2.2", "10.0.2.3")]
    assert places(ask(lab(*flows))) == [("10.0.2.2", 50000), ("10.0.2.3", 53)]


def test_the_file_server_at_the_gateway_is_asked_for_a_file_that_cannot_be_there() -> None:
    todo = ask(lab(flow("management", "udp", 69, address="10.0.2.2", target_device="")))
    assert places(todo) == [("10.0.2.2", 69)], "the server is the network's own, whatever port the canary has"
    probe = todo.cells[0].probe
    assert probe.task(False)[6] == f"\0\x01labctl-probe-{probe.nonce}\0octet\0"
    assert places(ask(lab(flow("management", "tcp", 0, address=None, target_device="")))) == [("10.0.2.2", 50000)]


def test_equal_questions_are_asked_once() -> None:
    flows = [flow("management", "tcp", port, address="10.0.2.2", target_device="") for port in (0, 53)]
    assert len(ask(lab(*flows)).cells) == 1


def test_listeners_open_where_no_service_is_declared() -> None:
    todo = ask(
        lab(flow("b", "tcp", 80, "pass"), flow("b", "tcp", 81, "pass"), flow("b", "icmp", 0), flow("b", "udp", 80))
    )
    opened = [(door.protocol, door.port) for door in todo.listeners["b"]]
    assert sorted(opened) == [("tcp", 81), ("udp", 80)]


def test_a_denial_asks_the_source_itself_and_the_target_itself() -> None:
    todo = ask(lab(flow("b", "tcp", 81)))
    assert set(todo.own) == {Door("a", 4, "tcp", "10.1.0.1", 60000), Door("b", 4, "tcp", "10.2.0.1", 81)}
    assert {probe.device for probe in todo.own.values()} == {""}
    assert todo.listeners["a"] == (Door("a", 4, "tcp", "10.1.0.1", 60000),)
    assert {probe.source for probe in todo.probes("b")} == {"b"}


def test_a_machine_without_an_address_asks_itself_on_loopback() -> None:
    todo = ask(lab(flow("b", "udp", 9, source="c")))
    assert Door("c", 4, "udp", "127.0.0.1", 60000) in todo.own


def test_ids_and_nonces_are_unique() -> None:
    todo = ask(lab(*(flow("b", "tcp", port) for port in range(1, 50))))
    every = [*(cell.probe for cell in todo.cells), *todo.own.values()]
    assert len({probe.id for probe in every}) == len(every)
    assert len({probe.nonce for probe in every}) == len(every)


def test_an_address_that_the_user_names_is_asked_from_every_nic() -> None:
    around = Surroundings((), 50000, 60000, named_outside(["198.51.100.9:443"]))
    todo = ask(lab(), around)
    found = {(cell.flow.source, cell.flow.source_device, cell.flow.expected) for cell in todo.cells}
    assert found == {(m, d, "deny") for m in "abc" for d in ("eth0", "mgmt")}


def test_a_declared_way_out_passes() -> None:
    plan = plans.lab(
        [plans.network("red", egress="nat")], [plans.machine("a", plans.interface("a", "eth0", "red", "10.1.0.1/24"))]
    )
    todo = ask(plan, Surroundings((), 50000, 60000, (("198.51.100.9", 443),)))
    assert {(c.flow.source_device, c.flow.expected) for c in todo.cells} == {("eth0", "pass"), ("mgmt", "deny")}


@pytest.mark.parametrize(
    "text", ["", "443", "x:443", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:https", "::1"]
)
def test_bad_outside_addresses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        named_outside([text])
    assert caught.value.exit_code is ExitCode.USAGE
    assert "[2001:db8::1]:443" in caught.value.hint


def test_good_outside_addresses() -> None:
    assert named_outside(["192.0.2.1:443", "[2001:db8::1]:53"]) == (("192.0.2.1", 443), ("2001:db8::1", 53))


def sent(probes: Iterable[Any], speaks: bool) -> list[str]:
    return [probe.task(speaks)[6] for probe in probes]


def test_what_a_probe_says() -> None:
    todo = ask(lab(flow("b", "tcp", 81), flow("b", "udp", 9), flow("b", "icmp", 0), flow("b", "udp", 53)))
    probes = [cell.probe for cell in todo.cells]
    mark = "labctl-probe-" + "0" * 15
    assert sent(probes[:3], True) == [mark + "0", mark + "1", ""]
    assert sent(probes[:3], False) == ["", mark + "1", ""], "a foreign TCP service is told nothing"
    question = sent(probes[3:], False)[0].encode("latin-1")
    assert question[2:12] == bytes.fromhex("0100 0001 0000 0000 0000")
    assert question[12:] == b"\x1dlabctl-probe-0000000000000003\x07invalid\0\0\x01\0\x01"
