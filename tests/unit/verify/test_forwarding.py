"""What guests say of how they forward, against the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.plan.firewall import render_nft
from labctl.plan.model import MachinePlan
from labctl.spec.model import Ports
from labctl.verify.forwarding import asked, findings, held, nameless, question
from labctl.verify.model import Verdict
from tests.support import plans

pytestmark = pytest.mark.unit

PLAN = plans.lab(
    [plans.network("red"), plans.network("blue")],
    [
        plans.machine("alone", plans.interface("alone", "eth0", "red")),
        plans.machine("both", plans.interface("both", "eth0", "red"), plans.interface("both", "eth1", "blue")),
        plans.machine("fw", plans.interface("fw", "eth0", "red"), plans.interface("fw", "eth1", "blue"), router=True),
    ],
)
_, BOTH, FW = PLAN.machines
LISTED = "/proc/net/{0}:   1: {1} 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100\n"
SSHD = LISTED.format("tcp", "00000000:0016 00000000:0000 0A")
FORWARDS = "ipv4/conf/all/forwarding\nipv4/conf/eth0/forwarding\n"
RULES = "table inet labctl {\n\tchain forward {\n\t\tct state invalid drop\n\t}\n}\n"


def answer(settings: str = "", sockets: str = "", ruleset: str = "", *, hooks: str = "", planned: str = "") -> str:
    """As a guest gives it."""
    return "---\n".join((settings, sockets, ruleset, hooks, "", planned))


def test_who_could_forward_is_asked() -> None:
    assert asked(PLAN) == ("both", "fw")
    windows = replace(PLAN, machines=(replace(BOTH, os="windows"),))
    assert asked(windows) == ()


def test_the_planned_rules_are_sent_along_and_never_part_of_the_script() -> None:
    argv, stdin = question(PLAN, FW)
    text = stdin.decode()
    macs = {interface.device: interface.mac for interface in FW.interfaces} | {"mgmt": FW.management_mac}
    for device, mac in macs.items():
        assert f'"{device}"' not in text, "guests have names of their own for it"
        text = text.replace(f'"{mac}"', f'"{device}"')
        assert f's/"{mac}"/"{device}"/g;' in argv[-1]
    assert text == render_nft(FW, "mgmt")
    assert argv == question(replace(PLAN, lab="other"), FW)[0]
    assert question(PLAN, BOTH)[1] == b""


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ("", []),
        ("ipv4/conf/lo/forwarding\n", []),
        (FORWARDS, ["forwards"]),
        ("ipv4/conf/eth1/proxy_arp\n", ["forwards"]),
    ],
)
def test_a_machine_that_is_no_router_passes_nothing_on(settings: str, kinds: list[str]) -> None:
    found = list(findings(BOTH, answer(settings, SSHD)))
    assert [finding.kind for finding in found] == kinds
    assert {finding.verdict for finding in found} <= {Verdict.FAIL}


def test_a_router_filters_as_planned_or_not() -> None:
    assert list(findings(FW, answer(FORWARDS, SSHD, RULES, planned=RULES))) == []
    wide = RULES.replace("\t}\n}", "\t\ttcp dport 3389 accept\n\t}\n}")
    (more,) = findings(FW, answer(ruleset=wide, planned=RULES))
    assert (more.kind, more.verdict, more.details) == (
        "router-filter", Verdict.FAIL, "fw: its filter has tcp dport 3389 accept",
    )  # fmt: skip
    (less,) = findings(FW, answer(ruleset=RULES, planned=wide))
    assert less.details == "fw: its filter lacks tcp dport 3389 accept"
    (nothing,) = findings(FW, answer(planned=RULES))
    assert nothing.details == "fw: its filter lacks chain forward {; ct state invalid drop"


@pytest.mark.parametrize("said", ["", "---\n", "---\n---\n", f"---\n---\n{RULES}", answer(ruleset=RULES)])
def test_a_router_that_does_not_say_what_it_filters_proves_nothing(said: str) -> None:
    assert [(f.kind, f.verdict) for f in findings(FW, said)] == [("unobserved", Verdict.INCONCLUSIVE)]


def test_what_a_guest_says_is_printed_without_its_control_characters() -> None:
    (found,) = findings(FW, answer(ruleset=RULES.replace("\t}\n}", "\t\t\x1b[2Jaccept\n\t}\n}"), planned=RULES))
    assert "\x1b" not in found.details


TABLE = "table {0} {{\n\tchain c {{\n\t\ttype filter hook x priority 0; policy accept;\n\t\t{1}\n\t}}\n}}\n"


@pytest.mark.parametrize("machine", [FW, BOTH])
@pytest.mark.parametrize(
    ("ruleset", "hooks", "shown"),
    [
        (TABLE.format("inet own", "tcp dport 80 counter accept"), "", ""),
        (TABLE.format("inet own", 'ip saddr 10.1.0.2 log prefix "x" drop'), "", ""),
        (TABLE.format("inet own", "meta mark set 0x1"), "", ""),
        (TABLE.format("netdev x", 'tcp dport 3389 fwd to "eth1"'), "", 'its table netdev x has tcp dport 3389 fwd to'),
        (TABLE.format("ip nat", "tcp dport 2222 dnat to 10.2.0.2:22"), "", ""),
        (TABLE.format("ip nat", "masquerade"), "", ""),
        (TABLE.format("inet own", 'log prefix "queue " tcp option maxseg size set rt mtu'), "", ""),
        (TABLE.format("ip mangle", "ip daddr set 10.2.0.2"), "", "its table ip mangle has ip daddr set 10.2.0.2"),
        (TABLE.format("ip mangle", "dup to 10.2.0.2"), "", "its table ip mangle has dup to 10.2.0.2"),
        (TABLE.format("inet f", 'tcp dport 21 ct helper set "ftp"'), "", 'its table inet f has tcp dport 21 ct helper'),
        ("", "qdisc fq_codel 0: dev eth0 root refcnt 2 limit 10240p\nqdisc noqueue 0: dev lo root refcnt 2\n", ""),
        ("", "qdisc clsact ffff: dev eth0 parent ffff:fff1\n", "eth0 has clsact"),
        ("", "qdisc ingress ffff: dev eth1 parent ffff:fff1 ----------------\n", "eth1 has ingress"),
        ("", "2: eth0: <BROADCAST,UP> mtu 1500 qdisc fq_codel state UP mode DEFAULT\n", ""),
        ("", "2: eth0: <BROADCAST,UP> mtu 1500 xdpgeneric qdisc fq_codel state UP prog/xdp id 7\n", "eth0 has xdp"),
    ],
)  # fmt: skip
def test_what_else_could_pass_packets_on_is_in_doubt(
    machine: MachinePlan, ruleset: str, hooks: str, shown: str
) -> None:
    """Rules of others than labctl that can only forbid more or translate addresses are left alone."""
    own, planned = (RULES, RULES) if machine.router else ("", "")
    found = list(findings(machine, answer(ruleset=own + ruleset, hooks=hooks, planned=planned)))
    assert [(f.kind, f.verdict) for f in found] == [("forwards", Verdict.INCONCLUSIVE)] * bool(shown)
    assert not shown or found[0].details.startswith(f"{machine.name}: {shown}")


def test_old_tables_that_rewrite_packets_are_in_doubt() -> None:
    names = "/proc/net/ip_tables_names:nat\n/proc/net/ip_tables_names:raw\n/proc/net/ip6_tables_names:mangle\n"
    (found,) = findings(BOTH, answer(sockets=SSHD + names))
    assert found.details.startswith("both: it has the iptables table raw; it has the ip6tables table mangle, which")


@pytest.mark.parametrize(
    ("socket", "shown"),
    [
        ("tcp 00000000:0016 00000000:0000 0A", ""),  # labctl's own way in
        ("tcp 0100007F:08AE 00000000:0000 0A", ""),  # loopback alone
        ("tcp6 00000000000000000000000001000000:08AE 00000000000000000000000000000000:0000 0A", ""),
        ("tcp 0203010A:08AE 0205010A:C001 01", ""),  # a connection
        ("udp 00000000:0044 00000000:0000 07", ""),  # a DHCP client
        ("udp 00000000:9C40 00000000:0000 07", ""),  # any client, or a relay: the name of its program tells
        ("udp 00000000:EE48 00000000:0000 07", "udp/61000"),  # Linux gives that to no client
        ("tcp 00000000:0050 00000000:0000 0A", ""),  # declared
        ("tcp 00000000:08AE 00000000:0000 0A", "tcp/2222"),
        ("tcp 0203010A:9C40 00000000:0000 0A", "tcp/40000"),
        ("tcp6 00000000000000000000000000000000:08AE 00000000000000000000000000000000:0000 0A", "tcp/2222"),
        ("udp 00000000:0035 00000000:0000 07", "udp/53"),
        ("\x1b[2J", ""),
    ],
)
def test_what_serves_without_a_word_in_the_spec_may_be_a_relay(socket: str, shown: str) -> None:
    serving = replace(BOTH, services=(Ports("tcp", 80, 80),))
    table, _, ends = socket.partition(" ")
    found = list(findings(serving, answer(sockets=SSHD + LISTED.format(table, ends))))
    assert [(f.kind, f.verdict) for f in found] == [("undeclared-service", Verdict.INCONCLUSIVE)] * bool(shown)
    assert not shown or f"both serves {shown}," in found[0].details


HELD = 'UNCONN 0 0 {0}:{1} 0.0.0.0:* users:(("{2}",pid=7,fd=5))\n'


def test_who_keeps_a_port_of_clients_is_told_by_its_name() -> None:
    high = LISTED.format("udp", "00000000:9C40 00000000:0000 07") + LISTED.format(
        "udp", "0203010A:9C41 00000000:0000 07"
    )
    connected = LISTED.format("udp", "0203010A:9C42 0205010A:0035 01")
    assert nameless(BOTH, f"---\n{SSHD}{high}{connected}---\n") == {40000, 40001}
    assert nameless(replace(BOTH, services=(Ports("udp", 40000, 40001),)), f"---\n{high}---\n") == frozenset()
    assert nameless(BOTH, "") == frozenset()
    clients = HELD.format("10.1.3.2", 40000, "systemd-timesyn") + HELD.format("[::]", 40001, "avahi-daemon")
    assert list(held(BOTH, [40000, 40001], clients)) == []
    assert list(held(BOTH, [40000, 40001], HELD.format("*", 40000, "chronyd"))) == [], "the other one is gone by now"
    (relay,) = held(BOTH, [40000, 40001], HELD.format("%eth0", 40001, "socat") + HELD.format("*", 40000, "ntpd"))
    assert relay.details.startswith("both serves udp/40001, which the lab file does not declare")
    (kernel,) = held(BOTH, [40000], "UNCONN 0 0 0.0.0.0:40000 0.0.0.0:*\n")
    assert kernel.verdict is Verdict.INCONCLUSIVE
    assert list(held(BOTH, [40000], "")) == [], "it is gone by now"
    (silent,) = held(BOTH, [40000, 40001], None)
    assert "udp/40000, udp/40001" in silent.details
