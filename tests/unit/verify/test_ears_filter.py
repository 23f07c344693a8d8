"""The filter of the ears, as Linux would run it."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from labctl.verify import frames
from labctl.verify.ears_filter import ears_filter

pytestmark = pytest.mark.unit

KNOWN, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
NIC, STRANGER = "02:00:00:00:01:03", "52:54:00:00:01:03"  # the same but for their first two bytes
MACS = [KNOWN, OTHER, NIC, *(f"02:00:00:01:00:{number:02x}" for number in range(150))]


def heard(program: bytes, frame: bytes) -> bool:
    """Run a filter over a frame: what Documentation/networking/filter.rst says of each instruction that it has."""
    lines = list(struct.iter_unpack("=HBBI", program))
    accumulator = index = at = 0
    while True:
        code, if_true, if_false, operand = lines[at]
        at += 1
        match code:
            case 0x20 | 0x28 | 0x30:
                size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
                accumulator = int.from_bytes(frame[operand : operand + size], "big")
            case 0x50:
                accumulator = frame[index + operand]
            case 0xB1:
                index = 4 * (frame[operand] & 15)
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case 0x05:
                at += operand
            case 0x06:
                return operand > 0
            case _:
                raise AssertionError(f"no instruction: {code:#x}")


def request(source: str) -> bytes:
    return frames.who_has(source, ip_address("10.0.0.1"), ip_address("10.0.0.2"))


def tcp(source: str, flags: int, version: int = 4) -> bytes:
    ends = [ip_address(f"10.0.0.{n}") if version == 4 else ip_address(f"fd00::{n}") for n in (1, 2)]
    whole = bytearray(frames.packet((source, OTHER), (ends[0], ends[1]), "tcp", (1, 2), "0" * 16))
    whole[14 + (20 if version == 4 else 40) + 13] = flags
    return bytes(whole)


def test_what_known_nics_send_all_the_time_is_left_out() -> None:
    program = ears_filter(MACS)
    for source in MACS:
        assert not heard(program, request(source))
        assert not heard(program, tcp(source, 0x10))
        assert not heard(program, tcp(source, 0x10, version=6))


def test_what_tells_something_of_known_nics_is_heard() -> None:
    program = ears_filter(MACS)
    answer = bytearray(request(KNOWN))
    answer[21] = 2
    ends = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    for frame in (
        bytes(answer),
        frames.marked(KNOWN, "0" * 16),
        frames.marked(KNOWN, "0" * 16, tagged=True),
        frames.router_advertisement(KNOWN, "0" * 16),
        frames.echo_to_all(KNOWN),
        frames.packet((KNOWN, OTHER), ends, "udp", (1, 2), "0" * 16),
        tcp(KNOWN, 0x02),
        tcp(KNOWN, 0x12),
        tcp(KNOWN, 0x02, version=6),
    ):
        assert heard(program, frame)


@pytest.mark.parametrize("source", [STRANGER, "02:00:00:00:00:09", frames.FORGED])
def test_everything_of_somebody_else_is_heard(source: str) -> None:
    program = ears_filter(MACS)
    assert heard(program, request(source))
    assert heard(program, tcp(source, 0x10))


def test_where_too_many_are_known_or_nobody_is_all_is_heard() -> None:
    assert ears_filter([]) == b""
    assert ears_filter(f"02:00:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(201)) == b""
    assert len(ears_filter(MACS)) // 8 < 4096  # the kernel takes no more
