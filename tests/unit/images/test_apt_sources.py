"""The host's apt configuration as the origin of packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.images import apt
from labctl.images.apt import AptSource

pytestmark = pytest.mark.unit

DEB822 = """\
# the mirror of the house
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
 bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://tools.example/apt
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/tools.gpg
"""


def _lines(text: str, release: str = "bookworm", codename: str = "bookworm") -> list[str]:
    return [source.line() for source in apt.for_release(apt.parse_deb822(text), release, codename)]


def test_deb822_sources_of_the_release_are_taken() -> None:
    assert _lines(DEB822) == [
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        "http://mirror.example/debian bookworm main contrib",
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        "http://mirror.example/debian bookworm-updates main contrib",
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        "http://mirror.example/debian-security bookworm-security main",
    ]


def test_a_newer_host_serves_an_older_release_from_the_same_mirror() -> None:
    lines = _lines(DEB822.replace("bookworm", "trixie"), "bookworm", "trixie")
    assert [line.split()[3] for line in lines] == ["bookworm", "bookworm-updates", "bookworm-security"]


def test_one_line_sources_with_options_comments_and_sources_of_source_packages() -> None:
    text = """\
# deb http://commented.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] http://mirror.example/debian bookworm main #
deb cdrom:[Debian]/ bookworm main
deb http://short.example
"""
    assert apt.for_release(apt.parse_list(text), "bookworm", "bookworm") == (
        AptSource(
            "http://mirror.example/debian",
            "bookworm",
            ("main",),
            "/usr/share/keyrings/debian-archive-keyring.gpg",
        ),
    )


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("deb http://m.example/debian stable main", True),
        ("deb http://browser.example/linux/deb/ stable main", False),
        ("deb http://m.example/debian bookworm-backports main", False),
        ("deb http://m.example/debian sid main", False),
        ("deb http://m.example/docker bookworm stable", False),
        ("deb ftp://m.example/debian bookworm main", False),
        ("deb http://m.example/$(id)/debian bookworm main", False),
        ("deb http://plain.example/mirror bookworm main", True),
    ],
)
def test_which_sources_serve_the_release(line: str, wanted: bool) -> None:
    assert bool(apt.for_release(apt.parse_list(line), "bookworm", "bookworm")) is wanted


def test_where_a_path_says_debian_the_others_are_other_vendors() -> None:
    text = "deb http://tools.example bookworm main\ndeb http://m.example/debian bookworm main\n"
    assert [s.uri for s in apt.for_release(apt.parse_list(text), "bookworm", "bookworm")] == ["http://m.example/debian"]


def test_a_host_of_another_distribution_gets_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "HOST_APT", tmp_path / "etc-apt")
    monkeypatch.setenv("LABCTL_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(HostError) as caught:
        apt.host_lines("bookworm")
    assert str(tmp_path / "state" / "apt" / "sources.list") in caught.value.hint

    own = tmp_path / "state" / "apt"
    own.mkdir(parents=True)
    (own / "sources.list").write_text("deb https://m.example/debian bookworm main\n")
    assert apt.host_lines("bookworm")[0].endswith("https://m.example/debian bookworm main")
