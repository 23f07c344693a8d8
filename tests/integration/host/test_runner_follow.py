"""Programs that take long, to their end or line by line."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from labctl.errors import HostError
from labctl.host.runner import Runner

pytestmark = pytest.mark.integration

SLOW = "import sys, time\nfor n in range(3):\n    print('line', n, flush=True)\n    time.sleep(0.2)\nsys.exit(4)"
# Starts another program, which must not stay behind; SIGINT is not enough for it.
STUBBORN = """\
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: print("asked", flush=True))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
while True:
    time.sleep(0.1)
"""


# Leaves a program of a session of its own behind, which holds its output open, as ssh does with a shared connection.
PARTING = """\
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_who_holds_the_output_of_a_program_that_was_cut_off_is_not_waited_for() -> None:
    began = time.monotonic()
    result = Runner().run([sys.executable, "-c", PARTING], timeout=5, check=False)
    assert result.code is None
    assert time.monotonic() - began < 30
    psutil.Process(int(result.stdout)).kill()


def test_lines_come_while_the_program_runs(tmp_path: Path) -> None:
    heard: list[tuple[str, float]] = []
    began = time.monotonic()
    result = Runner(log=tmp_path / "log").follow(
        [sys.executable, "-c", SLOW], lambda line: heard.append((line, time.monotonic() - began)), timeout=20
    )
    assert [line for line, _ in heard] == ["line 0", "line 1", "line 2"]
    assert heard[2][1] - heard[0][1] > 0.3
    assert (result.code, result.text) == (4, "line 0\nline 1\nline 2")
    assert " [4] " in (tmp_path / "log").read_text()


def test_errors_are_kept_apart() -> None:
    script = "import sys; print('out'); print('bad', file=sys.stderr)"
    result = Runner().follow([sys.executable, "-c", script], lambda _: None, timeout=20)
    assert (result.code, result.stdout, result.stderr) == (0, b"out", b"bad\n")


@pytest.mark.parametrize("how", ["time", "cancel", "error"])
def test_a_program_that_is_given_up_ends_with_all_it_started(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.host.runner._GRACE_SECONDS", 0.5)
    children: list[psutil.Process] = []
    stop = threading.Event()

    def said(line: str) -> None:
        if line.isdigit():
            children.append(psutil.Process(int(line)))
            if how == "cancel":
                stop.set()
            if how == "error":
                raise RuntimeError("the listener failed")

    argv = [sys.executable, "-c", STUBBORN]
    timeout = 1.5 if how == "time" else 20
    if how == "error":
        with pytest.raises(RuntimeError, match="listener"):
            Runner().follow(argv, said, timeout=timeout)
    else:
        assert Runner().follow(argv, said, timeout=timeout, cancelled=stop.is_set).code is None
    assert children
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def test_a_missing_program_is_said() -> None:
    with pytest.raises(HostError, match="not installed"):
        Runner().follow(["no-such-program-at-all"], lambda _: None, timeout=1)
