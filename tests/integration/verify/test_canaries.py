"""Canaries and the controls that labctl makes itself, on loopback."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from labctl.host.runner import Runner
from labctl.verify.agenda import Door
from labctl.verify.canary import Canaries, host_addresses
from labctl.verify.hostside import host_controls
from labctl.verify.model import Control
from tests.support import plans

pytestmark = pytest.mark.integration

PLAN = plans.lab([plans.network("red")], [])


def tell(port: int, kind: socket.SocketKind, text: str, address: str = "127.0.0.1") -> bytes:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        sock.settimeout(2)
        sock.connect((address, port))
        sock.send(text.encode())
        return sock.recv(64)


def test_a_canary_answers_its_token_and_notes_who_came() -> None:
    with Canaries(["127.0.0.2"]) as canaries:
        for number, kind in enumerate((socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            assert tell(canaries.port, kind, f"labctl-probe-{number:016x}") == canaries.token.encode()
            assert tell(canaries.port, kind, "hello", "127.0.0.2") == canaries.token.encode()
            assert tell(canaries.port, kind, "hello", "::1") == canaries.token.encode()
    assert canaries.arrived == {f"{number:016x}" for number in (0, 1)}


def test_a_canary_is_shown_to_answer_before_it_counts() -> None:
    with Canaries([]) as canaries:
        for protocol in ("tcp", "udp"):
            assert canaries.control(protocol, "127.0.0.1").passed  # type: ignore[arg-type]
            assert not canaries.control(protocol, "127.0.0.3").passed  # type: ignore[arg-type]
    assert not canaries.control("tcp", "127.0.0.1").passed


def test_ports_are_free_again_afterwards() -> None:
    with Canaries([]) as canaries:
        tell(canaries.port, socket.SOCK_STREAM, "x")
    with pytest.raises(OSError, match=r"refused|timed out"):
        tell(canaries.port, socket.SOCK_STREAM, "x")


def test_two_at_once_do_not_meet() -> None:
    with Canaries([]) as first, Canaries([]) as second:
        assert first.port != second.port
        assert first.control("tcp", "127.0.0.1").passed
        assert second.control("tcp", "127.0.0.1").passed


def test_which_addresses_of_the_host_count(monkeypatch: pytest.MonkeyPatch) -> None:
    nic: Any = type("Nic", (), {})

    def address(text: str) -> Any:
        found = nic()
        found.address, found.family = text, socket.AF_INET6 if ":" in text else socket.AF_INET
        return found

    texts = ["127.0.0.1", "::1", "fe80::1%eth0", "169.254.1.1", "10.1.0.77", "10.0.2.15", "192.0.2.9", "2001:db8::9"]
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"x": [address(text) for text in texts]})
    assert host_addresses(PLAN) == ("192.0.2.9", "2001:db8::9")
    many = [address(f"192.0.2.{number}") for number in range(1, 100)]
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"x": many})
    assert len(host_addresses(PLAN)) == 4


def test_controls_of_the_host() -> None:
    with Canaries([]) as canaries:
        canary, dead = Door("host", 4, "tcp", "127.0.0.1", canaries.port), Door("host", 4, "tcp", "127.0.0.1", 1)
        alias = Door("management", 4, "udp", "10.0.2.2", canaries.port)
        echo, echo6 = Door("host", 4, "icmp", "127.0.0.1", 0), Door("host", 6, "icmp", "::1", 0)
        nothing = Door("management", 4, "icmp", "10.0.2.2", 0)
        outside = Door("outside", 4, "tcp", "127.0.0.1", canaries.port)
        closed = Door("outside", 4, "tcp", "127.0.0.1", 1)
        doors = [canary, dead, alias, echo, echo6, nothing, outside, closed]
        found = host_controls(PLAN, doors, canaries, Runner())
    passed = {door for door, control in found.items() if control.passed}
    assert passed == {canary, alias, echo, echo6, outside}
    assert dead not in found
    assert nothing not in found
    assert not found[closed].passed


def test_the_ping_of_the_host_where_sockets_are_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise PermissionError

    monkeypatch.setattr("labctl.verify.hostside._echo", refuse)
    door = Door("host", 4, "icmp", "127.0.0.1", 0)
    with Canaries([]) as canaries:
        control = host_controls(PLAN, [door], canaries, Runner(environment={"PATH": "/nonexistent"}))[door]
        assert not control.passed
        assert "ping is not installed" in control.details


def test_the_hosts_resolver_is_not_asked_and_the_gateway_beside_it_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> None:
        pytest.fail("a resolver was asked")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    door = Door("management", 4, "udp", "10.0.2.3", 53)
    with Canaries([]) as canaries:
        control = host_controls(PLAN, [door], canaries, Runner())[door]
    assert control.passed
    assert control.by == "twin"
    with Canaries([]) as canaries:
        monkeypatch.setattr(canaries, "control", lambda *_: Control("target", False, "none", "silent"))
        assert not host_controls(PLAN, [door], canaries, Runner())[door].passed
