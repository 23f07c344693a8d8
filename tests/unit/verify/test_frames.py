"""Frames, byte by byte; that kernels take them is shown where they are sent."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from labctl.verify import frames

pytestmark = pytest.mark.unit

MAC, OTHER = "52:54:00:12:34:56", "52:54:00:65:43:21"
NONCE = "0123456789abcdef"


def ones(data: bytes) -> int:
    """The ones' complement sum: 0xffff where a checksum in the data is right (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_marked_frame_is_for_all_and_long_enough() -> None:
    frame = frames.marked(MAC, NONCE)
    assert frame[:14] == bytes.fromhex("ffffffffffff" + "525400123456" + "88b5")
    assert frames.MARK + NONCE.encode() in frame
    assert len(frame) == 60


def test_a_tag_stands_before_the_rest() -> None:
    assert frames.marked(MAC, NONCE, tagged=True)[12:18] == bytes.fromhex("8100" + "0007" + "88b5")


def test_a_question_by_arp() -> None:
    frame = frames.who_has(MAC, ip_address("10.0.0.1"), ip_address("10.0.0.9"))
    assert frame[12:42].hex() == "0806" + "0001080006040001" + "525400123456" + "0a000001" + "000000000000" + "0a000009"


def test_a_question_by_neighbour_discovery() -> None:
    frame = frames.who_has(MAC, ip_address("fd00::1"), ip_address("fd00::a:b9"))
    assert frame[:6].hex() == "3333ff0a00b9"
    assert frame[54] == 135
    assert frame[62:78] == ip_address("fd00::a:b9").packed


@pytest.mark.parametrize(("source", "target"), [("10.0.0.1", "10.0.9.9"), ("fd00::1", "fd00::9")])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_checksums_are_right(source: str, target: str, protocol: str) -> None:
    ends = ip_address(source), ip_address(target)
    frame = frames.packet((MAC, OTHER), ends, protocol, (80, 50000), NONCE)  # type: ignore[arg-type]  # parametrised
    four = ends[0].version == 4
    start = 34 if four else 54
    size = int.from_bytes(frame[16:18], "big") - 20 if four else int.from_bytes(frame[18:20], "big")
    body = frame[start : start + size]
    if four:
        assert ones(frame[14:34]) == 0xFFFF
    number = {"tcp": 6, "udp": 17}[protocol]
    pseudo = ends[0].packed + ends[1].packed + size.to_bytes(4, "big") + number.to_bytes(4, "big")
    assert ones(pseudo + body) == 0xFFFF
    assert body[:4] == (80).to_bytes(2, "big") + (50000).to_bytes(2, "big")
    assert body.endswith(NONCE.encode())


@pytest.mark.parametrize(
    "frame", [frames.echo_to_all(MAC), frames.router_solicitation(MAC), frames.router_advertisement(MAC, NONCE)]
)
def test_icmp6_checksums_are_right(frame: bytes) -> None:
    size = int.from_bytes(frame[18:20], "big")
    body = frame[54 : 54 + size]
    assert ones(frame[22:54] + size.to_bytes(4, "big") + (58).to_bytes(4, "big") + body) == 0xFFFF


def test_an_advertisement_offers_nothing() -> None:
    frame = frames.router_advertisement(MAC, NONCE)
    assert frame[54] == 134
    assert frame[58:70] == bytes(12)  # hop limit, flags, lifetime, timers: all "nothing said"
    assert frame[22:38] != frames.link_local(MAC).packed  # it speaks for no router that hosts may know
    assert (int.from_bytes(frame[18:20], "big") - 16) % 8 == 0


def test_the_address_that_a_nic_gives_itself() -> None:
    assert frames.link_local(MAC) == ip_address("fe80::5054:ff:fe12:3456")
