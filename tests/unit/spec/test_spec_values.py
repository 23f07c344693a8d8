"""Values written as text."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from labctl.spec import values
from labctl.spec.model import Ports
from labctl.spec.values import BadValueError

pytestmark = pytest.mark.unit

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [("512 MiB", 512 * MIB), ("512MiB", 512 * MIB), ("512 MB", 512 * MIB), ("512M", 512 * MIB), ("512m", 512 * MIB),
     ("2 GB", 2048 * MIB), ("2gib", 2048 * MIB), ("1.5 GiB", 1536 * MIB), ("1 TiB", 1 << 40),
     ("0.3333 G", None), ("1.333 GiB", 1364 * MIB)],
)  # fmt: skip
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(BadValueError):
            values.parse_size(text)
    else:
        assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "512", "MiB", "1 KiB", "1  GiB", "-1 GiB", "1e3 MiB", "1 GiB\n", "1,5 GiB", "12345678 MiB"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("any", Ports("any")),
        ("icmp", Ports("icmp")),
        ("tcp/80", Ports("tcp", 80, 80)),
        ("udp/1-65535", Ports("udp", 1, 65535)),
    ],
)
def test_ports(text: str, ports: Ports) -> None:
    assert values.parse_ports(text) == ports
    assert str(ports) == text


@pytest.mark.parametrize(
    ("text", "meant"),
    [("80/tcp", "tcp/80"), ("53/UDP", "udp/53"), ("80", "tcp/80"), ("8000-8100/tcp", "tcp/8000-8100"),
     ("TCP/80", "tcp/80"),
     ("udp:53", "udp/53"), ("ICMP", "icmp"), ("tcp/90-80", "tcp/80-90"), ("http", ""), ("tcp/", ""),
     ("tcp/080000", ""), ("tcp/80\n", "tcp/80"), ("tcp/٨٠", "")],
)  # fmt: skip
def test_ports_that_were_meant(text: str, meant: str) -> None:
    with pytest.raises(BadValueError) as error:
        values.parse_ports(text)
    assert error.value.nearest == meant


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.168.1.0/24", "203.0.113.252/30", "100.64.0.0/10"])
def test_subnets(text: str) -> None:
    assert values.parse_subnet(text) == ip_network(text)


@pytest.mark.parametrize("text", ["fd00::/64", "2001:db8::/48", "fd00:0:0:1::4/126"])
def test_subnets6(text: str) -> None:
    assert values.parse_subnet6(text) == ip_network(text)


@pytest.mark.parametrize(
    "text", ["::/64", "::1/126", "::ffff:10.0.0.0/120", "fe80::/64", "ff00::/64", "fd00::/64%eth0", "fd00::/٦٤"]
)
def test_no_subnets6(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_subnet6(text)


def test_seats() -> None:
    assert values.parse_seat_address(None) == "auto"
    assert values.parse_seat_address("none") == "none"
    assert values.parse_seat_address("10.0.0.5") == ip_address("10.0.0.5")
    assert values.parse_seat_address("fd00::5") == ip_address("fd00::5")


@pytest.mark.parametrize("text", ["files/a", "a", "a/b/", "..a/b", "a b", "./a", "büro/ä", "-rf", "$(reboot)", "#{x}"])
def test_lab_paths(text: str) -> None:
    assert values.parse_lab_path(text) == text


@pytest.mark.parametrize(
    "text", ["", "/a", "..", "a/..", "a/../b", "~/a", "a\\b", "C:a", "C:/a", "a\nb", "a\0b", "a\u202eb"]
)
def test_no_lab_paths(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_lab_path(text)


@pytest.mark.parametrize("text", ["/a", "/a b/ü", "/a/..b", "C:\\Lab\\a.txt", "d:/lab/a"])
def test_guest_paths(text: str) -> None:
    assert values.parse_guest_path(text) == text


@pytest.mark.parametrize(
    "text",
    ["a", "", "/a/", "/", "/a/../b", "C:\\a\\..\\b", "C:", "/a\nb", "\\\\server\\share", "C:\\a|b", "/" + "a" * 1024],
)
def test_no_guest_paths(text: str) -> None:
    with pytest.raises(BadValueError):
        values.parse_guest_path(text)
