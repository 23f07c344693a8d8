"""What this lab needs beside its isolation. `labctl verify` runs it; `pytest labs/dmz/checks` runs it alone."""

from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "files" / "index.html"


def test_the_web_server_runs(machine):
    """nginx runs, and will after a restart."""
    nginx = machine("web").service("nginx")
    assert nginx.is_running
    assert nginx.is_enabled


@pytest.mark.points(5)
def test_the_outside_sees_the_shop(lab, machine):
    """The attacker gets the page of the shop through the firewall."""
    page = machine("attacker").check_output("curl -sS -m 30 http://%s/", lab.address("web"))
    assert page.strip() == PAGE.read_text().strip()


@pytest.mark.points(5)
def test_the_firewall_drops_what_no_rule_allows(machine):
    """The firewall forwards nothing by default."""
    forward = machine("fw").check_output("nft list chain inet labctl forward")
    assert "hook forward" in forward
    assert "policy drop" in forward


@pytest.mark.parametrize(("name", "forwards"), [("fw", 1), ("web", 0)])
def test_only_the_firewall_forwards(machine, name, forwards):
    """Only the firewall is a router: a web server that is taken over leads nowhere."""
    assert machine(name).sysctl("net.ipv4.ip_forward") == forwards


def test_the_office_knows_the_web_server_by_name(lab, machine):
    """The office finds the web server by its name."""
    assert lab.address("web") in machine("office-1").check_output("getent ahostsv4 web")
