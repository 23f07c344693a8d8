"""What goes to a shell in a guest is one word for one value, whatever a plan or a caller holds."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from labctl.verify import interview
from labctl.verify.agenda import Door, Probe
from labctl.verify.answers import BadAnswer

pytestmark = pytest.mark.unit


def line(device: str = "eth0", address: str = "10.1.0.1", protocol: Any = "udp", port: int = 53) -> str:
    door = Door("b", 4, protocol, address, port)
    return interview._probe_line(Probe(7, "a", device, door, "0123456789abcdef", False).task(False), door)


def test_a_probe_is_a_line_of_eight_words_that_no_shell_reads_otherwise() -> None:
    for text in (line(), line(port=69), line(protocol="icmp", port=0), line(device=""), line(address="fd00::1")):
        words = text.replace("\\", "").split(" ")
        assert len(words) == 8
        assert [shlex.quote(word) for word in words] == words


def test_a_payload_is_digits_that_printf_makes_bytes_of() -> None:
    payload = line(port=69).split(" ")[-1]
    found = bytes(int(part, 8) for part in payload.split("\\0")[1:])
    door = Door("b", 4, "udp", "10.1.0.1", 69)
    wanted = Probe(7, "a", "eth0", door, "0123456789abcdef", False).task(False)[6]
    assert found == wanted.encode("latin-1")


@pytest.mark.parametrize("text", ["eth0 x", "eth0\n", "$(id)", "a;b", "x" * 16, "e/0", "*"])
def test_a_device_that_is_no_word_is_told_to_no_shell(text: str) -> None:
    with pytest.raises(BadAnswer, match="cannot be told"):
        line(device=text)


@pytest.mark.parametrize("text", ["fe80::1%$(id)", "fe80::1%eth0\nprobe", "fe80::1%a b"])
def test_an_address_has_no_scope_that_could_be_any_text(text: str) -> None:
    with pytest.raises(BadAnswer, match="cannot be told"):
        line(address=text)
