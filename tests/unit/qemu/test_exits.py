"""What ways out are told and what is let through to them, as texts; tests/e2e/test_egress.py tries them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from labctl.providers.qemu import exits
from tests.support import plans

pytestmark = pytest.mark.unit

OFFICE = replace(
    plans.network("office", egress="nat"), exit=IPv4Address("10.1.0.1"), resolver=IPv4Address("10.1.0.254")
)
PLAN = plans.lab([OFFICE, plans.network("closed")], [])


def rules(*own: str, network: object = OFFICE) -> list[str]:
    text = exits.filter_rules([network], [IPv4Address(address) for address in own])  # type: ignore[list-item]
    return [line.strip() for line in text.splitlines()]


def test_only_networks_with_egress_have_one() -> None:
    assert list(exits.with_exit(PLAN)) == [OFFICE]


def test_the_process_forwards_nothing_and_speaks_no_ipv6() -> None:
    user, tap, *joined = exits.arguments(OFFICE, 7)[1::2]
    assert user == "user,id=way,net=10.1.0.0/24,host=10.1.0.1,restrict=off,ipv6=off,dns=10.1.0.254"
    assert tap == "tap,id=wire,fd=7,vhost=off"
    assert [part.rpartition("=")[2] for part in joined] == ["way", "wire"]


def test_a_process_for_other_addresses_is_another() -> None:
    argv = ("qemu", *exits.arguments(OFFICE, 7))
    assert exits.same(argv, OFFICE)
    assert not exits.same(argv, replace(OFFICE, resolver=IPv4Address("10.1.0.253")))
    assert not exits.same(argv, replace(OFFICE, resolver=None))


def test_its_macs_are_those_of_user_mode_networking() -> None:
    assert list(exits.macs(OFFICE)) == ["52:55:0a:01:00:01", "52:55:0a:01:00:fe"]


def test_names_pass_and_everything_near_is_dropped_after_them() -> None:
    to = f'oifname "x{OFFICE.key}"'
    chain = [line.removeprefix(f"{to} ") for line in rules("192.0.2.1", "192.0.2.1") if line.startswith(to)]
    assert chain == [
        "ether type arp accept",
        "ether type != ip drop",
        "ip daddr 10.1.0.254 udp dport 53 accept",
        "ip daddr 10.1.0.254 tcp dport 53 accept",
        "ip daddr 10.1.0.0/24 drop",
        "ip daddr @near drop",
        "ip daddr @own drop",
    ]


def test_the_hosts_own_addresses_are_listed_once_and_may_be_none() -> None:
    assert "elements = { 192.0.2.1, 198.51.100.7 }" in rules("198.51.100.7", "192.0.2.1", "192.0.2.1")
    assert sum("elements" in line for line in rules()) == 1


def test_without_a_resolver_no_name_passes() -> None:
    assert not any("53" in line for line in rules(network=replace(OFFICE, resolver=None)))
