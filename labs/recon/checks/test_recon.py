"""The lab itself, and the six tasks of its README."""

from ipaddress import ip_network

import pytest

SERVERS = ip_network("10.81.20.0/24")


@pytest.fixture(scope="module")
def answers(lab) -> dict[str, str]:
    """What the attacker's root has written down: key to the words after the colon, with one space between them."""
    text = lab.exec("attacker", ["cat", "/root/answers.txt"]).stdout.decode(errors="replace")
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): " ".join(value.split()) for key, _, value in pairs}


def said(lab, address: str, port: str) -> str:
    """What a service says to the attacker by itself."""
    return lab.exec("attacker", ["nc", "-n", "-w", "10", address, port], stdin=b"\n").stdout.decode(errors="replace")


def test_the_attacker_knows_nobody(lab, plan):
    """Nothing on the attacker has the addresses of the others."""
    known = lab.exec("attacker", ["cat", "/etc/hosts"]).stdout.decode().split()
    others = {str(a) for m in plan.machines for i in m.interfaces for a in i.addresses() if m.name != "attacker"}
    assert others.isdisjoint(known)


def test_the_web_server_has_two_sites(lab, machine):
    """The attacker gets the shop, and the shop of next month at the port of this instance."""
    attacker = machine("attacker")
    assert "the shop" in attacker.check_output("curl -sS -m 30 http://10.81.20.23/")
    assert "next month" in attacker.check_output("curl -sS -m 30 http://10.81.20.23:%s/", lab.secret("staging"))


def test_the_quiet_one_is_there(lab, machine):
    """quiet answers no ping, and says its banner."""
    assert machine("attacker").run("ping -c 2 -W 3 10.81.20.201").rc == 1
    assert lab.secret("banner") in said(lab, "10.81.20.201", lab.secret("banner-port"))


def test_the_masked_service_is_what_it_is(lab, machine):
    """quiet serves what this instance says, at the port that this instance says."""
    words = {
        "http": "curl -sS -m 30 -o /dev/null -w %{{http_code}} http://10.81.20.201:{}/",
        "ssh": "ssh-keyscan -T 30 -p {} 10.81.20.201",
        "telnet": "timeout 30 curl -sS -m 10 telnet://10.81.20.201:{} </dev/null",
    }
    answer = machine("attacker").run(words[lab.secret("masked")].format(lab.secret("masked-port")))
    assert {"http": "200", "ssh": "ssh-", "telnet": "login"}[lab.secret("masked")] in answer.stdout


def test_the_monitor_tells_what_it_is(lab, machine):
    """monitor answers SNMP."""
    scan = machine("attacker").check_output("nmap -n -Pn -sU -p 161 --script snmp-sysdescr 10.81.20.142")
    assert lab.secret("contact") in scan


def test_the_console_speaks_ipv6_alone(lab, plan):
    """The printer says its banner over IPv6, and nothing over IPv4."""
    seat, port = plan.machine("printer").interfaces[0], lab.secret("console-port")
    assert lab.secret("console") in said(lab, str(seat.address6.ip), port)
    assert said(lab, str(seat.address.ip), port) == ""


@pytest.mark.task(3)
def test_all_servers_were_found(answers, plan):
    """The answers list all machines in 10.81.20.0/24, and nobody else."""
    there = {
        str(address)
        for machine in plan.machines
        if not machine.router
        for interface in machine.interfaces
        for address in interface.addresses()
        if address in SERVERS
    }
    assert set(answers["hosts"].replace(",", " ").split()) == there


@pytest.mark.task(3)
def test_the_staging_site_was_found(answers, lab):
    """The answers have the port of the second web site."""
    assert answers["staging"] == lab.secret("staging")


@pytest.mark.task(3)
def test_the_banner_was_read(answers, lab):
    """The answers have the asset tag of the server that answers no ping."""
    assert answers["banner"] == lab.secret("banner")


@pytest.mark.task(4)
def test_the_masked_service_was_recognised(answers, lab):
    """The answers have the port and the protocol of the masked service."""
    assert answers["masked"].lower() == f"{lab.secret('masked-port')} {lab.secret('masked')}"


@pytest.mark.task(3)
def test_the_monitor_was_asked(answers, lab):
    """The answers have the asset tag that a service over UDP tells."""
    assert answers["contact"] == lab.secret("contact")


@pytest.mark.task(4)
def test_the_console_was_found(answers, lab):
    """The answers have the asset tag of the service that speaks IPv6 alone."""
    assert answers["console"] == lab.secret("console")
