"""``labctl verify`` as a user calls it, on the provider that starts nothing: its guests never answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from labctl import resources
from labctl.errors import ExitCode
from labctl.verify.reports import digest
from tests.support.command import Labctl

pytestmark = pytest.mark.integration


@pytest.fixture
def labctl(tmp_path: Path) -> Labctl:
    return Labctl(tmp_path / "state", tmp_path)


@pytest.fixture
def running(labctl: Labctl, repository: Path) -> Iterator[Path]:
    lab = repository / "labs/dmz"
    labctl.run("up", lab, "--provider", "fake")
    yield lab
    labctl.destroy_all()


def test_a_folder_with_three_reports_of_one_verification(labctl: Labctl, running: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    printed = labctl.json("verify", running, "--report", out, code=ExitCode.INCONCLUSIVE)
    assert sorted(path.name for path in out.iterdir()) == ["junit.xml", "report.html", "report.json"]
    document = json.loads((out / "report.json").read_text())
    assert document == printed
    jsonschema.Draft202012Validator(json.loads(resources.text("schemas/report.schema.json"))).validate(document)
    assert document["digest"] == digest(document)
    assert document["spec"]["file"].endswith("labs/dmz/lab.yaml")
    assert [image["machine"] for image in document["images"]] == ["attacker", "fw", "web", "office-1", "office-2"]
    suites = ET.parse(out / "junit.xml").getroot()  # noqa: S314 - labctl has just written it
    assert document["summary"]["INCONCLUSIVE"] == len(document["flows"])
    assert document["checks"], "the lab has checks of its own"
    assert int(suites.attrib["errors"]) == len(document["flows"]) + len(document["checks"])
    page = (out / "report.html").read_text()
    assert document["digest"] in page
    assert "This is the first report of this instance." in page

    labctl.run("verify", running, "--report", out, code=ExitCode.INCONCLUSIVE)
    assert "Nothing has changed since" in (out / "report.html").read_text()


def test_one_line_for_each_dead_machine(labctl: Labctl, running: Path) -> None:
    short = labctl.run("verify", running, "--no-checks", code=ExitCode.INCONCLUSIVE).splitlines()
    assert sum(line.startswith("? INCONCLUSIVE") for line in short) == 5
    long = labctl.run("verify", running, "--no-checks", "-v", code=ExitCode.INCONCLUSIVE).splitlines()
    assert sum(line.startswith("? INCONCLUSIVE") for line in long) > 150


def test_blast_radii_of_a_lab_that_is_not_up(labctl: Labctl, repository: Path) -> None:
    lab = repository / "labs/dmz"
    table = labctl.run("verify", "--static", lab)
    row = next(line for line in table.splitlines() if line.startswith("attacker "))
    assert "fw (any), web (tcp/80 tcp/443)" in row
    assert "office-1, office-2" in row
    document = labctl.json("verify", "--static", lab, "--from", "office-2")
    assert document["lab"] == "dmz"
    (machine,) = document["machines"]
    assert machine["reaches"][0] == {
        "machine": "attacker",
        "path": ["office-2", "office-1"],
        "ports": ["icmp", "tcp/8000-8100", "udp/53"],
        "why": ["policy rule 3: office-1 to outside"],
        "router_falls": False,
    }
    assert not (labctl.state / "dmz").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--static", "--report", "out"], "probes nothing"),
        (["--static", "--plug"], "probes nothing"),
        (["--from", "web"], "goes with --static only"),
        (["--static", "--from", "wbe"], "has no machine called 'wbe'"),
    ],
)
def test_words_that_do_not_go_together(labctl: Labctl, repository: Path, words: list[str], said: str) -> None:
    with labctl.start("verify", repository / "labs/dmz", *words) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.USAGE
    assert said in errors.decode()
