"""``labctl import`` as a command: what goes where, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.__main__ import run
from labctl.spec.load import load

pytestmark = pytest.mark.unit

GOLDENS = Path(__file__).resolve().parents[2] / "golden/import"


def test_the_lab_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(GOLDENS / "kypo-plain")]) == 0
    assert capsys.readouterr() == ((GOLDENS / "kypo-plain/lab.yaml").read_text(encoding="utf-8"), "")


def test_the_lab_goes_into_a_folder_and_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new"
    assert run(["import", str(GOLDENS / "containerlab-plain/frr.clab.yml"), "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}/lab.yaml\n"
    assert set(load(target).machines) == {"router1", "router2", "pc1"}
    (target / "lab.yaml").write_text("mine")
    assert run(["import", str(GOLDENS / "containerlab-plain"), "-o", str(target)]) == 2
    assert "lab.yaml exists already" in capsys.readouterr().err
    assert (target / "lab.yaml").read_text() == "mine"
    assert run(["import", str(GOLDENS / "containerlab-plain"), "-o", str(target), "--force"]) == 0
    assert set(load(target).machines) == {"router1", "router2", "pc1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "terraform"], "none of vagrant, kypo, containerlab"),
        (["--force"], "needs -o DIR"),
        (["--from", "containerlab"], "there is nothing to import"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(GOLDENS / "kypo-plain"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_lab_that_labctl_cannot_use_is_given_with_what_is_left_to_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No source is known that leads here; so what makes labs valid is taken away."""
    monkeypatch.setattr("labctl.lifecycle.foreign.translate.settle", lambda draft: None)
    assert run(["import", str(GOLDENS / "kypo-nasty")]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == "# Still to mend:"
    assert "\n# - networks.lan-2.subnet: 10.0.5.0/24 overlaps 10.0.0.0/16 of lan" in out
    assert "overlaps 10.0.0.0/16 of lan" in err
