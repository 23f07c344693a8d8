"""How labctl calls ssh."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.providers.base import Endpoint
from labctl.providers.ssh import ssh_argv

pytestmark = pytest.mark.unit

ENDPOINT = Endpoint("127.0.0.1", 40022, "root", Path("/s t/key"), Path("/s t/known_hosts"))


def test_the_host_key_is_checked_and_nothing_of_the_user_is_read() -> None:
    argv = ssh_argv(ENDPOINT)
    assert argv[:3] == ["ssh", "-F", "none"]
    assert argv[-2:] == ["--", "127.0.0.1"]
    for option in (
        "-oStrictHostKeyChecking=yes",
        '-oUserKnownHostsFile="/s t/known_hosts"',
        "-oGlobalKnownHostsFile=none",
        '-oIdentityFile="/s t/key"',
        "-oIdentitiesOnly=yes",
        "-oPort=40022",
        "-oUser=root",
    ):
        assert option in argv
    assert not any("Control" in word for word in argv)


def test_a_shared_connection() -> None:
    argv = ssh_argv(ENDPOINT, control=Path("/tmp/x/40022"))
    assert "-oControlMaster=auto" in argv
    assert "-oControlPath=/tmp/x/40022" in argv
    assert "-oBatchMode=yes" in argv  # nobody is there to be asked


def test_what_is_run_comes_last_and_somebody_else_may_log_in() -> None:
    argv = ssh_argv(ENDPOINT, ["-l", "whoami"], user="student")
    assert argv[-4:] == ["--", "127.0.0.1", "-l", "whoami"]
    assert "-oUser=student" in argv
