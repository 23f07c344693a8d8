"""Ending processes that are not labctl's own any more."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from labctl.host.processes import ProcessId

pytestmark = pytest.mark.integration

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"


# Starts a program and never asks what became of it.
CARELESS = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"


@pytest.mark.skipif(sys.platform == "win32", reason="nobody has to collect a process there")
def test_a_process_that_nobody_collects_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", CARELESS], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        found = ProcessId.of(int(parent.stdout.readline()))
        assert found is not None
        began = time.monotonic()
        found.stop(grace=20)
        assert time.monotonic() - began < 10
        assert not found.alive()
        found.stop()
        parent.kill()


def test_a_process_that_does_not_listen_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        found = ProcessId.of(process.pid)
        assert found is not None
        found.stop(grace=0.1)
        assert not found.alive()
