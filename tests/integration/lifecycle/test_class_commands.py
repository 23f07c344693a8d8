"""``labctl class`` as it is typed, on machines that are notes."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from labctl.spec.classfile import schema_text
from tests.support.classes import LAB
from tests.support.command import LABCTL, Labctl

pytestmark = pytest.mark.integration

CLASS = "version: 1\nname: monday\nlab: lab\nroster: students.csv\n"


@pytest.fixture
def labctl(tmp_path: Path) -> Labctl:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab.yaml").write_text(LAB)
    (tmp_path / "class.yaml").write_text(CLASS)
    (tmp_path / "students.csv").write_text("id,name\ns01,Ada Lovelace\ns02,李小龙\ns03,\n", encoding="utf-8")
    return Labctl(tmp_path / "state", tmp_path, variables={"LABCTL_PROVIDER": "fake"})


def words(labctl: Labctl, *arguments: str | Path) -> tuple[int, str, str]:
    """The exit code and what was written to standard output and error."""
    with labctl.start(*arguments) as process:
        out, error = process.communicate(timeout=120)
    return process.returncode, out.decode(), error.decode()


def test_a_lesson_from_plan_to_destroy(labctl: Labctl) -> None:
    assert labctl.json("class", "plan")["starts"] == 3
    assert "3 instances of" in labctl.run("class", "plan")
    code, out, error = words(labctl, "class", "up")
    assert (code, out) == (0, "monday: 3 made\n")
    assert "✓ s02" in error
    shown = labctl.run("class", "status")
    assert "李小龙" in shown
    assert shown.startswith("monday: 3 up\n")
    assert labctl.run("class", "down", "--only", "1-2", "--machine", "a") == "monday: 2 stopped\n"
    machines = labctl.json("class", "status", "--only", "s01")["instances"][0]["machines"]
    assert [(one["name"], one["state"]) for one in machines] == [("a", "stopped"), ("b", "running")]
    assert labctl.run("class", "reset", "--only", "s01") == "monday: 1 as new\n"
    assert "Host s03-b" in labctl.run("class", "ssh-config")
    assert labctl.run("class", "handout", "-o", "out") == "3 sheets in out.\n"
    assert "Ada Lovelace" in (labctl.home / "out" / "s01.html").read_text(encoding="utf-8")
    assert labctl.run("class", "destroy", "--yes") == "monday: 3 removed\n"
    assert labctl.json("list") == []
    assert labctl.run("class", "down") == "monday: nobody is chosen who has an instance.\n"


def test_results_are_one_object_per_instance(labctl: Labctl) -> None:
    done = labctl.json("class", "up")
    assert (done["class"], done["verb"]) == ("monday", "up")
    first = done["instances"][0]
    assert (first["instance"], first["did"], first["error"], first["on_roster"]) == ("s01", "made", None, True)
    assert first["students"] == [{"id": "s01", "name": "Ada Lovelace"}]
    assert [change["action"] for change in first["changes"]] == ["create", "create"]


def test_who_failed_and_why_is_said_once_for_all_with_one_reason(labctl: Labctl) -> None:
    for name in ("s01", "s02"):
        labctl.run("up", "lab", "--instance", name)
    code, out, error = words(labctl, "class", "up", "-q")
    assert (code, out) == (1, "monday: 2 failed, 1 made\n")
    assert error.count("was not made for a class") == 1
    assert "✗ s01, s02: two/… was not made for a class" in error
    done = labctl.json("class", "up", code=1)
    assert "was not made for a class" in done["instances"][0]["error"]["brief"]


def test_a_student_who_has_left_is_shown_kept_by_reset_and_removed_when_asked(labctl: Labctl) -> None:
    labctl.run("class", "up")
    (labctl.home / "students.csv").write_text("id\ns01\ns03\n")
    code, out, error = words(labctl, "class", "status")
    assert code == 0
    assert "no longer on the roster" in out
    assert "labctl class destroy --gone" in error
    assert "No longer on the roster, and still there: s02" in words(labctl, "class", "up", "-q")[2]
    assert [one["instance"] for one in labctl.json("class", "reset", "--yes")["instances"]] == ["s01", "s03"]
    assert labctl.run("class", "destroy", "--gone", "--yes") == "monday: 1 removed\n"
    assert sorted(one["instance"] for one in labctl.json("list")) == ["s01", "s03"]


def test_what_throws_the_work_of_all_away_asks_first(labctl: Labctl) -> None:
    labctl.run("class", "up")
    for verb in ("reset", "destroy"):
        assert "Add --yes" in labctl.complaint("class", verb, code=2)
    assert {one["did"] for one in labctl.json("class", "status")["instances"]} == {"up"}


@pytest.mark.parametrize("only", ["s4", "4", "0", ""])
def test_a_word_that_names_nobody_is_wrong_usage(labctl: Labctl, only: str) -> None:
    labctl.complaint("class", "up", "--only", only, code=2)
    assert labctl.json("list") == []


def test_a_class_that_may_not_have_so_many_is_refused_by_plan_and_up(labctl: Labctl) -> None:
    (labctl.home / "class.yaml").write_text(CLASS + "limits: {instances: 2}\n")
    code, out, error = words(labctl, "class", "plan")
    assert code == 1
    assert "2 of 3" in out
    assert "--only 1-2 brings up those that fit" in error
    assert "3 instances of monday do not fit on this host; 2 do" in labctl.complaint("class", "up")
    assert labctl.json("list") == []
    assert labctl.run("class", "up", "--only", "s01,s02") == "monday: 2 made\n"


def test_a_wrong_roster_is_shown_with_its_line(labctl: Labctl) -> None:
    (labctl.home / "students.csv").write_text("id,name\ns01,Ada\ns01,Eve\n")
    said = labctl.complaint("class", "up", code=2)
    assert 'students.csv:3:1: id: the id "s01" is there twice; the first is in line 2' in said


def test_verify_tells_what_could_not_be_verified(labctl: Labctl) -> None:
    """Notes answer no probe: there is nothing that could have failed."""
    labctl.run("class", "up")
    done = labctl.json("class", "verify", "--sample", "1", code=4)
    assert [one["did"] for one in done["instances"]] == ["INCONCLUSIVE"]


def test_a_name_does_not_steer_the_terminal_of_a_table(labctl: Labctl) -> None:
    (labctl.home / "students.csv").write_text("id,name\ns01,[bold red]Ada[/]\n", encoding="utf-8")
    assert "[bold red]Ada[/]" in labctl.run("class", "status")


SCORED = """\
import pytest

@pytest.mark.points(5)
def test_who_it_is(lab, machine):
    \"\"\"=HYPERLINK("x")\"\"\"
    assert machine("a").check_output("hostname") == "a"
    assert lab.instance != "s02"

def test_the_flag(lab):
    assert lab.secret("flag").startswith("FLAG{")
"""


def scored(labctl: Labctl) -> None:
    """A lab with a secret and checks, which everybody on the roster has up."""
    (labctl.home / "lab" / "checks").mkdir()
    (labctl.home / "lab" / "checks" / "test_it.py").write_text(SCORED)
    text = "checks: checks\nsecrets: {flag: {kind: flag}}\n" + LAB.replace("a: {", "a: {secrets: [flag], ")
    (labctl.home / "lab" / "lab.yaml").write_text(text)
    labctl.run("class", "up")


def test_a_closed_class_is_tidied(labctl: Labctl) -> None:
    labctl.run("class", "up")
    assert "monday may always run" in labctl.complaint("class", "tidy", code=2)
    far = time.strftime("%a", time.gmtime(time.time() + 3 * 86400)).lower()
    hours = f"hours: {{timezone: UTC, open: [{{days: [{far}], from: 08:00, to: 09:00}}]}}\n"
    (labctl.home / "class.yaml").write_text(CLASS + hours)
    assert "monday is closed until" in labctl.complaint("class", "up")
    assert "Closed until" in words(labctl, "class", "plan")[2]
    assert labctl.run("class", "tidy", "--dry-run") == "monday: 3 would be stopped\n"
    assert labctl.run("class", "tidy", "--only", "s01") == "monday: 1 stopped\n"
    done = labctl.json("class", "tidy")["instances"]
    assert [(one["did"], one.get("why"), one.get("kept")) for one in done] == [
        ("was down", None, None),
        *2 * [("stopped", "closed", True)],
    ]
    assert labctl.run("class", "up", "--anyway") == "monday: 3 as it was left\n"
    assert labctl.run("class", "tidy") == "monday: 3 idle\n"


def test_everybodys_points_are_a_table(labctl: Labctl) -> None:
    scored(labctl)
    labctl.run("class", "down", "--only", "s03")
    code, out, error = words(labctl, "class", "score", "-q")
    assert list(csv.reader(out.splitlines())) == [
        ["instance", "students", "names", "points", "of", "trouble", '\'=HYPERLINK("x")', "test_the_flag"],
        ["s01", "s01", "Ada Lovelace", "6", "6", "", "5", "1"],
        ["s02", "s02", "李小龙", "1", "6", "", "0", "1"],
        ["s03", "s03", "s03", "0", "6", "not to be checked: 2", "", ""],
    ]
    assert (code, error) == (4, "")
    done = labctl.json("class", "score", "--only", "s02", "-k", "flag")
    assert [(one["instance"], one["earned"], one["possible"]) for one in done["instances"]] == [("s02", 1, 1)]
    labctl.run("class", "score", "--only", "s02", "-o", "points.csv")
    assert (labctl.home / "points.csv").read_text(encoding="utf-8").splitlines()[1].startswith("s02,s02,李小龙,1,6,")


def test_one_labs_points_and_secrets(labctl: Labctl) -> None:
    scored(labctl)
    assert labctl.run("score", "lab", "--instance", "s02").splitlines()[-1] == "1 of 6 points"
    assert labctl.json("score", "lab", "--instance", "s01")["earned"] == 6
    (flag,) = labctl.json("secrets", "lab", "--instance", "s01").values()
    assert flag in labctl.run("secrets", "lab", "--instance", "s01")
    sheet = labctl.json("class", "key")["instances"]
    assert sheet[0] == {"instance": "s01", "secrets": {"flag": flag}}
    assert flag in labctl.run("class", "key", "--only", "s01")
    labctl.run("class", "key", "-o", "answers.csv")
    assert (labctl.home / "answers.csv").read_text().splitlines()[1] == f"s01,{flag}"


def flagged(labctl: Labctl) -> dict[str, str]:
    """A lab of two flags, one worth points, which everybody on the roster has up. Gives who has which root flag."""
    flags = "secrets: {root: {kind: flag, points: 5}, note: {kind: flag}}\n"
    text = flags + LAB.replace("a: {", "a: {secrets: [root, note], ")
    (labctl.home / "lab" / "lab.yaml").write_text(text)
    labctl.run("class", "up")
    return {one["instance"]: one["secrets"]["root"] for one in labctl.json("class", "key")["instances"]}


def test_flags_are_handed_in(labctl: Labctl) -> None:
    flags = flagged(labctl)
    here = ("lab", "--instance", "s01")
    assert labctl.run("submit", *here, flags["s01"]) == "Right: root, 5 points.\n"
    assert labctl.run("submit", *here, flags["s01"]) == "Right: root, 5 points, as before.\n"
    assert labctl.run("submit", *here, flags["s02"], code=1) == "Wrong.\n"
    wrong = {"right": False, "secret": None, "points": None, "before": False}
    assert labctl.json("submit", *here, "FLAG{x}", code=1) == wrong
    assert "one flag at a time" in labctl.complaint("submit", *here, "a", "b", code=2)
    assert labctl.run("score", *here).splitlines()[-1] == "5 of 5 points"
    rows = list(csv.DictReader(labctl.run("class", "score", "-q").splitlines()))
    assert [(row["points"], row["of"], row["trouble"]) for row in rows] == [
        ("5", "5", "handed in a flag of s02"),
        ("0", "5", ""),
        ("0", "5", ""),
    ]


def test_a_flag_may_come_by_standard_input(labctl: Labctl) -> None:
    """There it is in no list of processes and in no history."""
    flag = flagged(labctl)["s02"]
    argv = [*LABCTL, "submit", "lab", "--instance", "s02"]
    for text, code in ((f"{flag}\n", 0), (flag, 0), (f"x{flag}", 1), ("", 2), ("\n", 2)):
        done = subprocess.run(
            argv, input=text.encode(), env=labctl.environment, cwd=labctl.home, capture_output=True, check=False
        )
        assert done.returncode == code, done
        assert flag.encode() not in done.stdout + done.stderr


CHECKED = """\
import pytest

@pytest.mark.task(2)
def test_told(lab):
    assert lab.is_secret("root", open("/FLAG").read().strip())

@pytest.mark.task(1)
def test_known(lab):
    assert lab.secret("root")
"""


def test_a_class_goes_home_with_one_file_and_a_token_each(labctl: Labctl, tmp_path: Path) -> None:
    flags = flagged(labctl)
    paper = tmp_path / "flag"
    (labctl.home / "lab" / "checks").mkdir()
    (labctl.home / "lab" / "checks" / "test_it.py").write_text(CHECKED.replace("/FLAG", str(paper)))
    lab = labctl.home / "lab" / "lab.yaml"
    lab.write_text("checks: checks\n" + lab.read_text())
    assert labctl.run("bundle", "--class").startswith("monday.labz: ")
    assert labctl.run("class", "handout", "--bundle", "monday.labz", "--only", "s02") == "1 sheet in handouts.\n"
    sheet = labctl.home / "handouts" / "s02.html"
    text = sheet.read_text()
    assert sheet.stat().st_mode & 0o777 == 0o600
    assert "labctl up monday.labz" in text
    token = re.search(r"([a-z2-7]{4}-){5}[a-z2-7]{4}", text)
    assert token is not None
    assert "do not go together" in labctl.complaint("class", "handout", "--bundle", "x", "--jump", "y", code=2)

    home = tmp_path / "home"
    home.mkdir()
    laptop = Labctl(home / "state", home, variables={"LABCTL_PROVIDER": "fake"})
    assert "wants" not in laptop.run("unbundle", labctl.home / "monday.labz")
    for target in (labctl.home / "monday.labz", "two"):
        assert "the token on your handout" in laptop.complaint("up", target, code=2)
    assert "no token for two" in laptop.complaint("up", "two", "--token", "x", code=2)
    assert laptop.json("list") == []
    laptop.run("up", labctl.home / "monday.labz", "--token", token[0])
    assert "The teacher has them" in laptop.complaint("secrets", "two", code=2)
    assert laptop.run("submit", "two", flags["s02"]) == "Right: root, 5 points.\n"
    assert laptop.run("submit", "two", flags["s01"], code=1) == "Wrong.\n"
    paper.write_text(flags["s02"])
    score = laptop.json("score", "two", "--checks", code=4)
    assert [(check["verdict"], check["points"]) for check in score["checks"]] == [
        ("PASS", 2),
        ("INCONCLUSIVE", 1),
        ("PASS", 5),
    ]
    paper.write_text(flags["s01"])
    assert laptop.json("score", "two", code=4)["checks"][0]["verdict"] == "FAIL"
    assert laptop.run("up", "two") == "two/default is up; nothing had to change.\n"


def test_a_token_on_the_command_line_stays_in_no_file(labctl: Labctl) -> None:
    flagged(labctl)
    labctl.run("class", "handout", "--bundle", "monday.labz")
    token = re.search(r"([a-z2-7]{4}-){5}[a-z2-7]{4}", (labctl.home / "handouts" / "s01.html").read_text())
    assert token is not None
    labctl.run("up", "lab", "--token", token[0])
    assert "The teacher has them" in labctl.complaint("secrets", "lab", code=2)
    paths = [path for path in labctl.state.rglob("*") if path.is_file()]
    assert any("labctl up lab --token " in path.read_text(errors="replace") for path in paths)
    assert not [path for path in paths if token[0] in path.read_text(errors="replace")]


def test_a_class_without_checks_has_no_points(labctl: Labctl) -> None:
    labctl.run("class", "up")
    code, _, error = words(labctl, "score", "lab", "--instance", "s01")
    assert (code, "has no checks of its own" in error) == (2, True)
    assert words(labctl, "class", "score", "--only", "s01")[0] == 1


def test_the_schema_is_printed(labctl: Labctl) -> None:
    assert json.loads(labctl.run("class", "schema")) == json.loads(schema_text())
