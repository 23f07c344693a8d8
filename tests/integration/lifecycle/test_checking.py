"""A lab's own checks, run by real pytest processes on a lab whose machines are notes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest

from labctl.lifecycle import checking, converge, locate, scoring
from labctl.lifecycle.checking import Choice
from labctl.lifecycle.lab_folder import BUNDLE_MARK
from labctl.verify.model import Check, Verdict
from tests.support.command import LABCTL, Labctl

pytestmark = pytest.mark.integration

P, F, I = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE  # noqa: E741
LAB = """\
version: 1
name: tiny
checks: checks/
defaults: {image: debian-12}
networks: {n: {subnet: 10.1.0.0/24}}
machines: {a: {networks: {n: 10.1.0.7}}, b: {networks: {n: auto}}}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A lab that is up, with an empty folder for checks."""
    folder = tmp_path / "tiny"
    (folder / "checks").mkdir(parents=True)
    (folder / "lab.yaml").write_text(LAB)
    converge.up(locate.draft(folder, provider="fake"))
    return folder


def write(lab: Path, text: str, name: str = "test_it.py") -> None:
    (lab / "checks" / name).write_text(dedent(text))


def run(lab: Path, expression: str = "", **options: Any) -> dict[str, Check]:
    return {c.id.partition("::")[2]: c for c in checking.run(locate.find(lab), "checks/", expression, **options)}


def cli(lab: Path) -> Labctl:
    return Labctl(Path(os.environ["LABCTL_STATE_DIR"]), lab.parent)


def plain_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=240)


def test_each_ending_has_its_verdict(lab: Path) -> None:
    write(
        lab,
        """
        import pytest

        @pytest.mark.points(5)
        def test_good(lab, plan, machine):
            '''All three fixtures
            lead to the lab.'''
            assert (lab.name, lab.instance, lab.provider, lab.machines) == ("tiny", "default", "fake", ("a", "b"))
            assert lab.plan == plan
            assert lab.address("a") == lab.address("a", "n") == "10.1.0.7"
            assert machine("b").check_output("hostname") == "b"
            assert lab.exec("a", ["cat"], stdin=b"x").stdout == b"x"

        @pytest.mark.points(2.5)
        @pytest.mark.parametrize("name", ["a", "b"])
        def test_differs(machine, name):
            '''It is a.'''
            assert machine(name).check_output("hostname") == "a", "not a"

        def test_raises(): [][0]
        def test_shows_the_lab(lab): assert not lab
        def test_no_answer(machine): machine("a").run("unheard-of")
        def test_no_machine(machine): machine("c")
        def test_no_list(lab): lab.exec("a", "cat /etc/passwd")
        def test_skips(): pytest.skip("not today")
        @pytest.mark.xfail(reason="known")
        def test_expected(): assert False

        @pytest.fixture
        def broken(): assert 0, "no fixture"
        def test_setup(broken): pass

        @pytest.fixture
        def untidy():
            yield
            assert 0, "untidy"
        def test_teardown(untidy): pass
        def test_teardown_of_a_failure(untidy): assert 0, "the reason"
        def test_not_this_computer(host): pass
        @pytest.mark.points("many")
        def test_points(): pass
        """,
    )
    write(lab, "import nowhere_to_be_found", "test_broken.py")
    write(lab, "import pytest\npytest.skip('never', allow_module_level=True)", "test_gone.py")
    write(lab, "import pytest\n@pytest.mark.pionts(5)\ndef test_misspelt(): pass", "test_mark.py")
    found = checking.run(locate.find(lab), "checks/")
    checks = {c.id.partition("::")[2] or c.id: c for c in found}
    assert {name: c.verdict for name, c in checks.items()} == {
        "test_good": P, "test_differs[a]": P, "test_differs[b]": F, "test_raises": F,
        "test_shows_the_lab": F,
        "test_no_answer": I, "test_no_machine": I, "test_no_list": I, "test_skips": I, "test_expected": I,
        "test_setup": I, "test_teardown": I, "test_teardown_of_a_failure": F, "test_not_this_computer": I,
        "test_points": I, "checks/test_broken.py": I, "checks/test_gone.py": I, "checks/test_mark.py": I,
    }  # fmt: skip
    assert checks["test_good"].name == "All three fixtures"
    assert checks["test_differs[b]"].name == "It is a. [b]"
    assert checks["test_raises"].name == "test_raises"
    points = {"test_good": 5.0, "test_differs[a]": 2.5, "test_differs[b]": 2.5}
    assert {name: c.points for name, c in checks.items() if c.points is not None} == points
    for name, words in {
        "test_differs[b]": "AssertionError: not a\nassert 'b' == 'a'",
        "test_shows_the_lab": "AssertionError: assert not Lab(name='tiny', instance='default', provider='fake')",
        "test_no_answer": "a does not answer",
        "test_no_machine": "tiny has no machine called 'c'\nMachines: a, b.",
        "test_skips": "it skips itself: not today",
        "test_expected": "it is expected to fail: known",
        "test_setup": "its setup failed: AssertionError: no fixture",
        "test_teardown": "its teardown failed: AssertionError: untidy",
        "test_teardown_of_a_failure": "AssertionError: the reason",
        "test_not_this_computer": "its setup failed: a lab's check has no `host`",
        "test_points": "its setup failed: points takes one number",
        "checks/test_gone.py": "it skips itself: never",
    }.items():
        assert checks[name].message.startswith(words), checks[name]
    assert "nowhere_to_be_found" in checks["checks/test_broken.py"].message
    assert "pionts" in checks["checks/test_mark.py"].message


def test_nothing_is_written_into_the_lab_and_nothing_of_the_surroundings_counts(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.parent / "conftest.py").write_text("raise SystemExit('not mine')\n")
    (lab / "conftest.py").write_text("raise SystemExit('not mine either')\n")
    (lab / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTEST_PLUGINS", "nowhere_to_be_found")
    write(lab, "import pytest\n@pytest.fixture\ndef answer(): return 42\n", "conftest.py")
    write(lab, "ANSWER = 42\n", "helper.py")
    write(
        lab,
        """
        from pathlib import Path
        from helper import ANSWER

        def test_x(answer, request, tmp_path):
            assert answer == ANSWER
            names = {n for n, plugin in request.config.pluginmanager.list_name_plugin() if plugin is not None}
            assert "labctl.pytest_plugin" in names and "testinfra.plugin" in names
            assert not names & {"xdist", "timeout", "pytest_timeout", "cacheprovider"}
            Path("litter").write_text("x")
            assert not list(Path(__file__).parent.parent.rglob("litter"))
        """,
    )
    before = sorted(lab.rglob("*"))
    (check,) = run(lab).values()
    assert check.verdict is P, check
    assert sorted(lab.rglob("*")) == before


def test_an_expression_selects_and_one_that_fits_nothing_is_no_pass(lab: Path) -> None:
    write(lab, "def test_one(): pass\ndef test_two(): pass\n")
    assert set(run(lab, "two or three")) == {"test_two"}
    assert [c.message for c in run(lab, "-x").values()] == ["no check fits -k -x"]
    (wrong,) = run(lab, "((").values()
    assert wrong.verdict is I
    assert "Wrong expression passed to '-k': ((" in wrong.message


def test_a_folder_without_checks_is_no_pass(lab: Path) -> None:
    (check,) = run(lab).values()
    assert (check.id, check.verdict, check.message) == ("checks/", I, "there is no check in it")


def test_a_folder_that_has_gone_or_leads_out_of_the_lab_is_no_pass(lab: Path, tmp_path: Path) -> None:
    (lab / "checks").rmdir()
    assert [c.verdict for c in run(lab).values()] == [I]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/test_x.py").write_text("def test_x(): pass\n")
    (lab / "checks").symlink_to(tmp_path / "elsewhere")
    assert [c.message for c in run(lab).values()] == [f"there is no folder checks/ in {lab}"]


def test_a_check_that_ends_its_process_leaves_the_others_open(lab: Path) -> None:
    write(lab, "import os\ndef test_a(): pass\ndef test_b(): os._exit(0)\ndef test_c(): pass\n")
    checks = run(lab)
    assert {name: c.verdict for name, c in checks.items()} == {"test_a": P, "test_b": I, "test_c": I}
    write(lab, "import os\ndef test_a(): pass\ndef test_b(): os.kill(os.getpid(), 9)\ndef test_c(): pass\n")
    checks = run(lab)
    assert {name: c.verdict for name, c in checks.items()} == {"test_a": P, "test_b": I, "test_c": I, "": I}
    assert checks["test_b"].message == "it did not end: pytest ended with status -9"


def test_checks_that_take_too_long_are_ended(lab: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    write(
        lab,
        f"import os, time\ndef test_x():\n    open({str(pid)!r}, 'w').write(str(os.getpid()))\n    time.sleep(3000)\n",
    )
    found = checking.run(locate.find(lab), "checks/", seconds=10)
    assert found
    assert {c.verdict for c in found} == {I}
    assert found[-1].message == "the checks took longer than 10 s"
    assert not pid.exists() or not psutil.pid_exists(int(pid.read_text()))


def test_an_interrupt_ends_the_checks(lab: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    write(
        lab,
        f"""
        import os, time
        from pathlib import Path
        def test_x():
            Path({str(tmp_path)!r}, "new").write_text(str(os.getpid()))
            Path({str(tmp_path)!r}, "new").rename({str(pid)!r})
            time.sleep(3000)
        """,
    )
    with cli(lab).start("verify", lab, "--only-checks") as process:
        wait(pid.exists)
        child = psutil.Process(int(pid.read_text()))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    wait(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def wait(happened: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_command_line_has_the_results_and_the_exit_codes(lab: Path) -> None:
    write(lab, "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip()\n")
    labctl = cli(lab)
    report = labctl.json("verify", lab, "--only-checks", code=3)
    assert [c["verdict"] for c in report["checks"]] == ["PASS", "FAIL", "INCONCLUSIVE"]
    assert report["flows"] == []
    assert [f["details"] for f in report["host_evidence"]] == [
        "the isolation was not probed: only the lab's own checks ran"
    ]
    (kept,) = Path(os.environ["LABCTL_STATE_DIR"]).glob("tiny/default/reports/*.json")
    assert json.loads(kept.read_text()) == report
    assert labctl.json("verify", lab, "--only-checks", "-k", "test_a")["verdict"] == "PASS"
    assert labctl.json("verify", lab, "--only-checks", "-k", "test_c", code=4)["verdict"] == "INCONCLUSIVE"
    left_out = labctl.json("verify", lab, "--no-checks", code=4)  # notes cannot be probed
    assert left_out["checks"] == []
    assert left_out["flows"] != []
    assert "the lab's own checks were left out" in [f["details"] for f in left_out["host_evidence"]]
    labctl.run("verify", lab, "--no-checks", "-k", "x", code=2)
    labctl.run("verify", lab, "--no-checks", "--only-checks", code=2)


def test_probes_and_checks_stand_in_one_report(lab: Path) -> None:
    write(lab, "def test_a(): pass\n")
    report = cli(lab).json("verify", lab, code=4)
    assert report["flows"] != []
    assert [c["verdict"] for c in report["checks"]] == ["PASS"]


def test_a_lab_without_checks_has_none_to_ask_for(lab: Path) -> None:
    (lab / "lab.yaml").write_text(LAB.replace("checks: checks/\n", ""))
    running = locate.find(lab)
    assert checking.task(running, Choice()) == checking.Task(None)
    for choice in (Choice(run=True), Choice(only=True), Choice(expression="x")):
        with pytest.raises(checking.UsageError, match="tiny has no checks of its own"):
            checking.task(running, choice)


def test_checks_that_came_in_a_bundle_wait_until_they_are_allowed(lab: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    write(lab, f"open({str(ran)!r}, 'w').close()\ndef test_a(): pass\n")
    (lab / BUNDLE_MARK).touch()
    labctl = cli(lab)
    report = labctl.json("verify", lab, code=4)
    assert report["checks"] == []
    (note,) = [f["details"] for f in report["host_evidence"] if "bundle" in f["details"]]
    assert "labctl verify --checks lets them run" in note
    labctl.run("verify", lab, "--only-checks", code=2)
    labctl.run("verify", lab, "-k", "test_a", code=2)
    assert not ran.exists()
    assert [c["verdict"] for c in labctl.json("verify", lab, "--only-checks", "--checks")["checks"]] == ["PASS"]
    ran.unlink()
    assert [c["verdict"] for c in labctl.json("verify", lab, "--only-checks")["checks"]] == ["PASS"]
    assert ran.exists()


def test_plain_pytest_runs_them_too(lab: Path, tmp_path: Path) -> None:
    write(lab, "def test_name(lab): assert lab.name == 'tiny'\ndef test_other(machine): machine('a').run('nonsense')\n")
    done = plain_pytest(tmp_path, str(lab / "checks"))
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "Connection refused" in done.stdout  # the details of labctl's error
    assert "1 passed" in plain_pytest(lab / "checks", "-n", "1", "-k", "name").stdout


def test_plain_pytest_says_what_to_do_where_the_lab_is_not_up(lab: Path, tmp_path: Path) -> None:
    write(lab, "def test_name(lab): pass\n")
    done = plain_pytest(tmp_path, str(lab / "checks"), "--lab-instance", "alice")
    assert "has no instance called 'alice' on this host" in done.stdout
    assert "Instances of this lab: tiny/default." in done.stdout
    assert "Traceback" not in done.stdout
    cli(lab).run("down", lab)
    done = plain_pytest(tmp_path, str(lab / "checks"))
    assert "no machine of tiny/default runs" in done.stdout
    assert f"labctl up {lab}" in done.stdout
    cli(lab).run("destroy", lab, "--yes")
    assert "labctl up brings it up" in plain_pytest(tmp_path, str(lab / "checks")).stdout


def test_the_plug_in_costs_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_x(lab): pass\n")
    program = (
        "import sys, pytest; pytest.main(sys.argv[1:]);"
        "print([m for m in sys.modules if m.partition('.')[0] in ('labctl', 'yaml', 'typer', 'psutil')])"
    )
    for arguments in (["--help"], ["-p", "no:cacheprovider"]):
        argv = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=240)
        assert "['labctl', 'labctl.pytest_plugin']" in done.stdout.splitlines()[-1]
    assert "fixture 'lab' not found" in done.stdout


def test_the_help_says_whose_programs_they_are() -> None:
    done = subprocess.run([*LABCTL, "verify", "--help"], capture_output=True, text=True, check=True, timeout=120)
    assert "run on this computer with your rights" in " ".join(done.stdout.replace("│", " ").split())


TASKS = """
import pytest

def test_the_lab_is_as_it_should_be(machine):
    assert machine("a").run("true").rc == 0

@pytest.mark.task(3)
def test_something_is_to_be_done(machine):
    assert machine("a").run("true").rc == 1

@pytest.mark.task
def test_something_is_done(machine):
    assert machine("b").run("true").rc == 0
"""


def test_open_tasks_are_scored_and_do_not_fail_a_verification(lab: Path) -> None:
    write(lab, TASKS)
    assert {name: check.verdict for name, check in run(lab).items()} == {
        "test_the_lab_is_as_it_should_be": Verdict.PASS
    }
    scored = scoring.score(locate.find(lab), Choice())
    assert (scored.earned, scored.possible) == (1, 4)
    assert {check.points for check in scored.checks} == {3, None}


def test_a_lab_of_tasks_alone_has_no_checks_and_no_open_question(lab: Path) -> None:
    write(lab, TASKS.replace("def test_the_lab", "def no_test_the_lab"))
    assert run(lab) == {}
    assert [check.verdict for check in run(lab, "nothing_like_it", tasks=True).values()] == [Verdict.INCONCLUSIVE]


def test_a_task_that_is_worth_no_number_is_not_counted_without_a_word(lab: Path) -> None:
    write(lab, TASKS.replace("task(3)", "task('three')"))
    (wrong,) = (check for check in run(lab, "to_be_done", tasks=True).values())
    assert wrong.verdict is Verdict.INCONCLUSIVE
    assert "@pytest.mark.task(5)" in wrong.message
