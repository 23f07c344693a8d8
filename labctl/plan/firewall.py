"""The nftables ruleset of a router: exactly what its rules let cross, and replies to that.

Silence is the default; only a ``reject`` of the policy is answered, so a refusal that a guest sees always means
something. nft replaces the whole table in one transaction: there is no moment without rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from labctl.plan.model import ForwardRule, InterfacePlan, MachinePlan, Network

TABLE = "labctl"


def render_nft(machine: MachinePlan, management: str = "mgmt") -> str:
    """The text that ``nft -f`` takes. management: the device of the management path, which only SSH may come in by."""
    chains = (
        ("antispoof", "type filter hook prerouting priority raw; policy accept;", _antispoof()),
        ("forward", "type filter hook forward priority filter; policy drop;", _forward(machine)),
        ("input", "type filter hook input priority filter; policy drop;", _input(machine, management)),
    )
    lines = [
        "# Written by labctl from the lab's policy; replaced whenever the lab is configured.",
        f"table inet {TABLE}",  # so that the next line has something to delete
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
    ]
    for name, hook, rules in chains:
        lines += [f"\tchain {name} {{", f"\t\t{hook}", *(f"\t\t{rule}" for rule in rules), "\t}"]
    return "\n".join([*lines, "}", ""])


def _antispoof() -> Iterator[str]:
    """IPv4 has rp_filter for this; IPv6 has no such switch."""
    yield "ip6 saddr != { ::, fe80::/10 } fib saddr . iif oif missing drop"


def _forward(machine: MachinePlan) -> Iterator[str]:
    yield "ct state invalid drop"
    yield "ct state established,related accept"
    for rule in machine.forward:
        way = f'iifname "{rule.in_device}" oifname "{rule.out_device}"'
        yield from (f"{way} {packet}" for packet in _packets(rule, rule.targets))


def _input(machine: MachinePlan, management: str) -> Iterator[str]:
    yield 'iifname "lo" accept'
    yield "ct state invalid drop"
    yield "ct state established,related accept"
    yield f'iifname "{management}" tcp dport 22 accept'
    yield f'iifname "{management}" drop'
    yield "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"
    # members of a network may talk to the router's address there, like to any other member
    for interface in machine.interfaces:
        yield from (f'iifname "{interface.device}" {_ip(a.version)} daddr {a} accept' for a in interface.addresses())
        if interface.address is not None and interface.address.network.prefixlen < 31:
            yield f'iifname "{interface.device}" ip daddr {interface.address.network.broadcast_address} accept'
    yield "ip daddr { 224.0.0.0/4, 255.255.255.255 } accept"
    yield "ip6 daddr { fe80::/10, ff00::/8 } accept"
    # a leg's address reached from another network is a flow of the policy like any other
    for rule in machine.forward:
        own = _own(machine.interface(rule.out_device), rule)
        if own:
            yield from (f'iifname "{rule.in_device}" {packet}' for packet in _packets(rule, own))


def _own(leg: InterfacePlan, rule: ForwardRule) -> tuple[Network, ...]:
    """The leg's address, where the rule's targets cover it."""
    seat = leg.seat(rule.family)
    if seat is None or not any(seat.ip in target for target in rule.targets):
        return ()
    return (ip_network(seat.ip),)


def _packets(rule: ForwardRule, targets: Iterable[Network]) -> Iterator[str]:
    """Matches and verdicts of a rule but for the devices."""
    ip = _ip(rule.family)
    ends = f"{ip} saddr {_set(rule.sources)} {ip} daddr {_set(targets)}"
    ports = _ports(rule)
    if rule.action == "allow":
        yield f"{ends}{ports} accept"
        return
    protocol = rule.ports.protocol
    if protocol in ("any", "tcp"):
        yield f"{ends}{ports or ' meta l4proto tcp'} reject with tcp reset"
    if protocol in ("any", "udp"):
        yield f"{ends}{ports or ' meta l4proto udp'} reject with icmpx port-unreachable"
    if protocol in ("any", "icmp"):
        yield f"{ends}{ports} reject with icmpx admin-prohibited"


def _ports(rule: ForwardRule) -> str:
    ports = rule.ports
    if ports.protocol == "any":
        return ""
    if ports.protocol == "icmp":
        return " icmp type echo-request" if rule.family == 4 else " icmpv6 type echo-request"
    return f" {ports.protocol} dport {ports.first}" + (f"-{ports.last}" if ports.last != ports.first else "")


def _ip(family: int) -> str:
    return "ip" if family == 4 else "ip6"


def _set(networks: Iterable[Network]) -> str:
    """One network as it is, several as a set; a host without its prefix length. Equal text for equal sets."""
    texts = [str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n) for n in sorted(networks)]
    return texts[0] if len(texts) == 1 else "{ " + ", ".join(texts) + " }"
