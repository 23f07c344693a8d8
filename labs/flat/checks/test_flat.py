"""What this lab needs beside its isolation. `labctl verify` runs it; `pytest labs/flat/checks` runs it alone."""

import pytest


def test_the_share_does_not_run_as_root(machine):
    """The share is careless with files, not with rights."""
    share = machine("fileserver").service("share")
    assert share.is_running
    assert share.systemd_properties["DynamicUser"] == "yes"


@pytest.mark.points(5)
def test_anybody_can_read_the_salaries(lab, machine):
    """The intruder can fetch the salaries over IPv4."""
    url = f"http://{lab.address('fileserver')}:8000/salaries.csv"
    assert "alice,4200" in machine("intruder").check_output("curl -sS -m 30 %s", url)


@pytest.mark.points(5)
def test_anybody_can_read_the_salaries_over_ipv6(plan, machine):
    """The intruder can fetch the salaries over IPv6."""
    address = plan.machine("fileserver").interface("eth0").address6.ip
    assert "alice,4200" in machine("intruder").check_output(
        "curl -sS -g -m 30 %s", f"http://[{address}]:8000/salaries.csv"
    )


def test_the_file_server_knows_the_desk_by_name(lab, machine):
    """The hosts file of the file server has the desk."""
    assert lab.address("desk") in machine("fileserver").check_output("getent ahostsv4 desk")
