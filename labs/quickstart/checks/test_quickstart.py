"""What this lab needs beside its isolation. `labctl verify` runs it; `pytest labs/quickstart/checks` runs it alone.

A check is a function whose name begins with `test_`. The first line of its docstring is its name in the report. It asks
for what it needs by the names of its arguments:

    machine("victim")   a machine as testinfra sees it: .service(), .file(), .user(), .run(), ... as root, in the guest
    lab                 lab.machines, lab.address("victim"), lab.exec("victim", ["id"]), lab.instance
    plan                the whole plan, as `labctl plan --json` prints it

https://testinfra.readthedocs.io lists what a machine can be asked.
"""

import pytest


def test_the_attacker_has_its_tools(machine):
    """The attacker has nmap and hydra."""
    attacker = machine("attacker")
    assert attacker.exists("nmap")
    assert attacker.exists("hydra")


def test_alice_can_log_in_with_a_password(machine):
    """Alice is there, and SSH asks for passwords: without that there is nothing to crack."""
    victim = machine("victim")
    assert victim.user("alice").exists
    assert "passwordauthentication yes" in victim.check_output("/usr/sbin/sshd -T")


@pytest.mark.points(5)  # what a check is worth; the report has it under `points`
@pytest.mark.parametrize("name", ["attacker", "victim"])
def test_nobody_knows_a_way_out(machine, name):
    """There is no default route."""
    assert machine(name).check_output("ip route show default") == ""
