"""How guests on several networks forward, as their own kernels tell: routers by the compiled policy, others not at all.

Rules beside labctl's may forbid more, and translate addresses. Those that hand packets on past the policy are in doubt:
only people can tell what they are for.

Probes try a few ports of a few addresses; a rule that lets another one through shows here. So does a service that the
lab file does not declare: on a guest with a leg on each of two networks it may be a relay between them, which forwards
without the kernel. It is a guest's own word, so it counts against the lab and never for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

from labctl.host import nftables
from labctl.plan.firewall import TABLE, render_nft
from labctl.plan.model import LabPlan, MachinePlan
from labctl.verify.answers import plain
from labctl.verify.model import Finding, Verdict

_PARTED = "---"
_PARTS = 5  # of an answer, behind the settings
_OWN = f"inet {TABLE}"
_MOST = 3  # things of a kind that a finding names
_WAY_IN = ("tcp", 22)  # labctl's own
_CLIENTS = frozenset({68, 546})  # of DHCP, which hear answers alone
# Ports that Linux gives to clients (ip_local_port_range), whose UDP sockets may look like servers'. These keep theirs.
_EPHEMERAL = range(32768, 61000)
_KNOWN_CLIENTS = frozenset(
    {
        "systemd-timesyn",
        "systemd-network",
        "systemd-resolve",
        "NetworkManager",
        "avahi-daemon",
        "chronyd",
        "ntpd",
        "dhclient",
        "dhcpcd",
    }
)
_SETTINGS = f"""
cd /proc/sys/net
for key in ipv4/conf/*/forwarding ipv6/conf/*/forwarding ipv4/conf/*/proxy_arp ipv6/conf/*/proxy_ndp \\
  ipv4/conf/*/mc_forwarding ipv6/conf/*/mc_forwarding ipv4/conf/*/proxy_arp_pvlan; do
  value=0
  if [ -e "$key" ]; then read -r value <"$key"; fi
  if [ "$value" != 0 ]; then echo "$key"; fi
done
echo {_PARTED}
grep -sH -e : -e mangle -e raw /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 \\
  /proc/net/ip_tables_names /proc/net/ip6_tables_names
echo {_PARTED}
nft --stateless list ruleset 2>/dev/null
echo {_PARTED}
tc qdisc show 2>/dev/null
echo {_PARTED}
ip -oneline link show 2>/dev/null
echo {_PARTED}
"""
# proc(5): addresses and ports are hexadecimal; a TCP socket that listens is in state 0A, a UDP socket that anybody may
# send to has nobody at its other end. A program reads them, not the shell: that asks for a byte at a time, for each of
# which the kernel goes through all of its sockets (half a minute in an emulated guest).
_SOCKET = re.compile(r"/proc/net/(tcp|udp)6?: *\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) 0+:0000 (0A|07) ")
_LOOPBACKS = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
# The planned rules go through the guest's own nft, in a network namespace where they touch nothing, so that what is
# compared was written by one and the same program. They name NICs by their MAC addresses, which the guest turns into
# what it calls them: not every provider's guests call them as the plan does.
_RULES = f"""
names=''
for path in /sys/class/net/*; do
  read -r mac <"$path/address" || continue
  names="${{names}}s/\\"$mac\\"/\\"${{path##*/}}\\"/g;"
done
unshare --net sh -c 'sed "$1" | nft -f - && nft --stateless list table inet {TABLE}' labctl "$names$1"
"""
WHO = ("ss", "-Hulnp")
"""What says in a guest whose UDP sockets they are."""
_HELD = re.compile(r"UNCONN +\d+ +\d+ +\S+:(\d+) +\S+ *(?:users:\(\(\"([^\"]*)\")?")
# What brings a packet past labctl's chain of the hook "forward", or makes another one of it behind that (nft(8)). The
# rest of what others put beside it is harmless here: a drop in any table is final, that chain sees what address
# translation has made of a packet, and what is redirected to the machine itself needs a program that serves there.
_HANDS_ON = re.compile(r"\b(?:fwd|dup|queue|ct helper set|(?:ip6?|ether|tcp|udp|th) \w+ set)\b")
_QUOTED = re.compile(r'"[^"]*"')
_HOOKED = re.compile(r"^qdisc (clsact|ingress) \S+ dev (\S+)|^\d+: ([^:@ ]+).*\b(xdp\w*)\b", re.MULTILINE)
_LEGACY = re.compile(r"^/proc/net/(ip6?)_tables_names:(mangle|raw)$", re.MULTILINE)


def asked(plan: LabPlan) -> tuple[str, ...]:
    """The machines that could forward: those on several networks."""
    return tuple(m.name for m in plan.machines if m.os == "linux" and (m.router or len(m.interfaces) > 1))


def question(plan: LabPlan, machine: MachinePlan) -> tuple[Sequence[str], bytes]:
    """What to run in a guest, and its standard input."""
    if not machine.router:
        return ("sh", "-c", _SETTINGS), b""
    macs = {interface.device: interface.mac.lower() for interface in machine.interfaces}
    macs[plan.management.device] = machine.management_mac.lower()
    rules = render_nft(machine, plan.management.device)
    rules = re.sub(r'"([^"\n]+)"', lambda name: f'"{macs.get(name[1], name[1])}"', rules)
    missing = "".join(f's/"{mac}"/"{device}"/g;' for device, mac in macs.items())
    return ("sh", "-c", _SETTINGS + _RULES, "labctl", missing), rules.encode()


def silent(machine: MachinePlan, why: str) -> Finding:
    """A guest that does not say how it forwards."""
    return Finding(
        "unobserved", machine.name, f"{machine.name} does not say how it forwards: {why}", Verdict.INCONCLUSIVE
    )


def findings(machine: MachinePlan, answer: str) -> Iterator[Finding]:
    """What is not as planned in a guest's answer."""
    settings, *rest = _parts(answer)
    passing = [
        plain(key).replace("/", ".")
        for key in settings.split()
        if "/lo/" not in key and not (machine.router and key.endswith("/forwarding"))
    ]
    if passing:
        details = f"{machine.name} passes on what is for others: {', '.join(passing[:_MOST])}"
        yield Finding("forwards", machine.name, details, Verdict.FAIL)
    if len(rest) != _PARTS:
        yield silent(machine, "its answer is incomplete")
        return
    sockets, ruleset, queues, links, planned = rest
    yield from _serving(machine, sorted(set(_undeclared(machine, sockets))))
    there = nftables.tables(ruleset)
    if hands := [*_hands_on(there), *_hooked(queues + links), *_legacy(sockets)]:
        shown = "; ".join(hands[:_MOST])
        details = f"{machine.name}: {shown}, which labctl did not put there: it may pass on what is for others"
        yield Finding("forwards", machine.name, details, Verdict.INCONCLUSIVE)
    if machine.router:
        yield from _filter(machine, there.get(_OWN, ""), nftables.tables(planned).get(_OWN, ""))


def _parts(answer: str) -> list[str]:
    return re.split(rf"^{_PARTED}\n", answer, flags=re.MULTILINE)


def _filter(machine: MachinePlan, there: str, planned: str) -> Iterator[Finding]:
    if not planned:
        yield silent(machine, "its answer is incomplete")
    elif there != planned:
        lines = ([plain(line) for line in nftables.lines(table)] for table in (there, planned))
        told = ", ".join(f"its filter {what}" for what in nftables.differences(*lines))
        yield Finding("router-filter", machine.name, f"{machine.name}: {told or 'its filter is another'}", Verdict.FAIL)


def _hands_on(tables: Mapping[str, str]) -> Iterator[str]:
    for name, table in tables.items():
        rules = (line for line in nftables.lines(table) if _HANDS_ON.search(_QUOTED.sub("", line)))
        if name != _OWN and (rule := next(rules, None)):
            yield f"its table {plain(name)} has {plain(rule)}"


def _hooked(listed: str) -> Iterator[str]:
    for queue, device, other, program in _HOOKED.findall(listed):
        yield f"{plain(device or other)} has {plain(queue or program)}"


def _legacy(sockets: str) -> Iterator[str]:
    for family, table in _LEGACY.findall(sockets):
        yield f"it has the {family}tables table {table}"


def nameless(machine: MachinePlan, answer: str) -> frozenset[int]:
    """UDP ports in a guest's answer of which only the name of their program tells whether it is a client."""
    sockets = "".join(_parts(answer)[1:2])
    return frozenset(port for kind, port in _open(machine, sockets) if kind == "udp" and port in _EPHEMERAL)


def held(machine: MachinePlan, ports: Collection[int], said: str | None) -> Iterator[Finding]:
    """Who keeps such ports and is no client that is known to. said: the answer to WHO; None where a guest has no such
    program."""
    names = dict.fromkeys(ports, "") if said is None else {int(port): name for port, name in _HELD.findall(said)}
    strange = sorted(port for port in ports if port in names and names[port] not in _KNOWN_CLIENTS)
    yield from _serving(machine, [("udp", port) for port in strange])


def _serving(machine: MachinePlan, strange: Sequence[tuple[str, int]]) -> Iterator[Finding]:
    if not strange:
        return
    shown = ", ".join(f"{protocol}/{port}" for protocol, port in strange[:_MOST])
    more = f" and {len(strange) - _MOST} more" if len(strange) > _MOST else ""
    details = (
        f"{machine.name} serves {shown}{more}, which the lab file does not declare: on a machine of several "
        "networks that may be a relay between them. Declare it under `services`, or stop it"
    )
    yield Finding("undeclared-service", machine.name, details, Verdict.INCONCLUSIVE)


def _undeclared(machine: MachinePlan, sockets: str) -> Iterator[tuple[str, int]]:
    """Protocol and port of what listens and is certainly no client."""
    for protocol, port in _open(machine, sockets):
        if protocol == "tcp" or not (port in _CLIENTS or port in _EPHEMERAL):
            yield protocol, port


def _open(machine: MachinePlan, sockets: str) -> Iterator[tuple[str, int]]:
    """Protocol and port of what listens on more than loopback and is no service of the spec, nor labctl's way in."""
    for line in sockets.splitlines():
        found = _SOCKET.match(line)
        if found is None or found[2] in _LOOPBACKS:
            continue
        protocol: Literal["tcp", "udp"] = "tcp" if found[1] == "tcp" else "udp"
        port = int(found[3], 16)
        if (protocol, found[4]) not in (("tcp", "0A"), ("udp", "07")) or (protocol, port) == _WAY_IN:
            continue
        if not any(ports.covers(protocol, port) for ports in machine.services):
            yield protocol, port
