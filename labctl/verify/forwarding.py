"""How guests on several networks forward, as their own kernels tell: routers by the compiled policy, others not at all.

Probes try a few ports of a few addresses; a rule that lets another one through shows here. It is a guest's own word, so
it counts against the lab and never for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl.plan.firewall import TABLE, render_nft
from labctl.plan.model import LabPlan, MachinePlan
from labctl.verify.answers import plain
from labctl.verify.model import Finding, Verdict

_PARTED = "---"
_MOST = 3  # rules that a finding names
_SETTINGS = f"""
cd /proc/sys/net
for key in ipv4/conf/*/forwarding ipv6/conf/*/forwarding ipv4/conf/*/proxy_arp ipv6/conf/*/proxy_ndp; do
  value=0
  if [ -e "$key" ]; then read -r value <"$key"; fi
  if [ "$value" != 0 ]; then echo "$key"; fi
done
echo {_PARTED}
"""
# The planned rules go through the guest's own nft, in a network namespace where they touch nothing, so that what is
# compared was written by one and the same program.
_RULES = f"""
nft --stateless list table inet {TABLE}
echo {_PARTED}
unshare --net sh -c 'nft -f - && nft --stateless list table inet {TABLE}'
"""


def asked(plan: LabPlan) -> tuple[str, ...]:
    """The machines that could forward: those on several networks."""
    return tuple(m.name for m in plan.machines if m.os == "linux" and (m.router or len(m.interfaces) > 1))


def question(plan: LabPlan, machine: MachinePlan) -> tuple[Sequence[str], bytes]:
    """What to run in a guest, and its standard input."""
    script = _SETTINGS + (_RULES if machine.router else "")
    rules = render_nft(machine, plan.management.device) if machine.router else ""
    return ("sh", "-c", script), rules.encode()


def silent(machine: MachinePlan, why: str) -> Finding:
    """A guest that does not say how it forwards."""
    return Finding(
        "unobserved", machine.name, f"{machine.name} does not say how it forwards: {why}", Verdict.INCONCLUSIVE
    )


def findings(machine: MachinePlan, answer: str) -> Iterator[Finding]:
    """What is not as planned in a guest's answer."""
    settings, *tables = answer.split(f"{_PARTED}\n")
    passing = [
        plain(key).replace("/", ".")
        for key in settings.split()
        if "/lo/" not in key and not (machine.router and key.endswith("/forwarding"))
    ]
    if passing:
        details = f"{machine.name} passes on what is for others: {', '.join(passing[:_MOST])}"
        yield Finding("forwards", machine.name, details, Verdict.FAIL)
    if not machine.router:
        return
    if len(tables) != 2 or not tables[1]:
        yield silent(machine, "its answer is incomplete")
    elif tables[0] != tables[1]:
        yield Finding("router-filter", machine.name, f"{machine.name}: {_difference(*tables)}", Verdict.FAIL)


def _difference(found: str, planned: str) -> str:
    there, wanted = found.splitlines(), planned.splitlines()
    parts = [
        f"{word} {'; '.join(plain(line.strip()) for line in lines[:_MOST])}"
        for word, lines in (
            ("its filter has", [line for line in there if line not in wanted]),
            ("its filter lacks", [line for line in wanted if line not in there]),
        )
        if lines
    ]
    return ", ".join(parts) or "the rules of its filter are in another order"
