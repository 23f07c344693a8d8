"""The catalogue: what ships, what a user adds, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.errors import ImageError
from labctl.images import catalogue
from labctl.images.model import Download, Recipe
from labctl.spec.problems import SpecError

pytestmark = pytest.mark.unit

SHA = "0123456789abcdef" * 4


def _read(tmp_path: Path, text: str) -> dict[str, catalogue.Entry]:
    file = tmp_path / "images.yaml"
    file.write_text(text)
    return catalogue.read(file)


def _problems(tmp_path: Path, body: str) -> str:
    with pytest.raises(SpecError) as caught:
        _read(tmp_path, f"version: 1\nimages:\n  mine:\n{body}")
    return caught.value.details


def test_what_ships() -> None:
    entries = catalogue.load()
    assert {"debian-12", "debian-13", "router", "attacker"} <= entries.keys()
    debian, attacker = entries["debian-12"].qemu, entries["attacker"].qemu
    assert isinstance(debian, Recipe)
    assert debian.release == "bookworm"
    assert {"python3-minimal", "openssh-server", "nftables", "iproute2", "iputils-ping", "qemu-guest-agent"} <= {
        *debian.packages
    }
    assert entries["debian-13"].qemu == Recipe(debian.packages, release="trixie")
    assert isinstance(attacker, Recipe)
    assert attacker.base == "debian-12"
    assert {"nmap", "tcpdump", "hydra", "curl", "netcat-openbsd", "python3"} <= {*attacker.packages}


def test_every_form_of_source(tmp_path: Path) -> None:
    entries = _read(
        tmp_path,
        f"""\
version: 1
images:
  pulled:
    description: from a file server
    user: debian
    qemu: {{url: "https://files.example/d.qcow2", sha256: {SHA}}}
    virtualbox: {{url: "https://files.example/d.box", sha256: {SHA}}}
  built: {{qemu: {{recipe: {{release: bookworm, packages: [a2ps, libstdc++6]}}}}}}
""",
    )
    assert entries["pulled"].qemu == Download("https://files.example/d.qcow2", SHA)
    assert entries["pulled"].user == "debian"
    assert entries["pulled"].boxes == {"virtualbox": Download("https://files.example/d.box", SHA)}
    assert entries["built"].qemu == Recipe(("a2ps", "libstdc++6"), release="bookworm")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    qmeu: {}\n", "did you mean qemu?"),
        ("    qemu: {url: 'ftp://x/y', sha256: " + SHA + "}\n", "is no place to fetch from"),
        ("    qemu: {url: 'https://x/y'}\n", "sha256 is missing"),
        ("    qemu: {url: 'https://x/y', sha256: ABC}\n", "64 hexadecimal digits"),
        ("    qemu: {recipe: {packages: [x1]}}\n", "either a release or a base"),
        ("    qemu: {recipe: {release: bookworm, base: a, packages: []}}\n", "either a release or a base"),
        ("    qemu: {recipe: {release: '../x', packages: []}}\n", "is not right here"),
        ("    qemu: {recipe: {release: bookworm}}\n", "the key packages is missing"),
        ("    qemu: {recipe: {release: bookworm, packages: curl}}\n", "must be a list"),
        ("    qemu: {recipe: {release: bookworm, packages: ['$(id)', -oX]}}\n", "cannot be a package's name"),
        ("    qemu: []\n", "this must be a map"),
        ("    virtualbox: {url: 'https://x/y'}\n", "a source needs url and sha256; sha256 is missing"),
        ("    user: 'a b'\n", "an account's name"),
        ("    description: [1]\n", "one line of text"),
        ("    qemu: {}\n    qemu: {}\n", "qemu"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, body: str, said: str) -> None:
    details = _problems(tmp_path, body)
    assert said in details
    assert "images.yaml:" in details


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    details = _problems(tmp_path, "    qmeu: {}\n    user: 'a b'\n  'Bad Name': {}\n")
    assert [details.count(word) for word in ("qmeu", "a b", "Bad Name")] != [0, 0, 0]
    assert "cannot be an image's name" in details


@pytest.mark.parametrize("text", ["", "[]", "version: 2\nimages: {}\n", "version: 1\nimages: []\n", "images: {}\n"])
def test_files_that_are_no_catalogue(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError):
        _read(tmp_path, text)


def _own(text: str) -> None:
    catalogue.own_file().parent.mkdir(parents=True, exist_ok=True)
    catalogue.own_file().write_text(f"version: 1\nimages:\n{text}")


def test_own_entries_stand_over_those_that_ship() -> None:
    _own("  router: {qemu: {recipe: {base: debian-12, packages: [bird2]}}}\n")
    assert catalogue.load()["router"].qemu == Recipe(("bird2",), base="debian-12")
    assert "attacker" in catalogue.load()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  a: {qemu: {recipe: {base: b, packages: []}}}\n  b: {qemu: {recipe: {base: a, packages: []}}}\n", "itself"),
        ("  a: {qemu: {recipe: {base: debian-21, packages: []}}}\n", "debian-21"),
        (
            "  a: {qemu: {recipe: {base: b, packages: []}}}\n"
            f"  b: {{qemu: {{url: 'https://x/y', sha256: {SHA}}}}}\n",
            "not built from packages",
        ),
    ],
)
def test_bases_must_lead_to_a_release(text: str, said: str) -> None:
    _own(text)
    with pytest.raises(ImageError) as caught:
        catalogue.load()
    assert said in str(caught.value)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ImageError) as caught:
        catalogue.find("atacker", catalogue.load())
    assert "Did you mean attacker?" in caught.value.hint
