"""``verify --self-test``: leaks planted in the user's own lab, to show that the verifier would have seen them.

Each is made by root in a guest, as an intruder would, and ends by itself within two minutes, whatever labctl does. A
router's rules are put back as soon as they have been looked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from labctl.errors import LabctlError
from labctl.plan.firewall import TABLE
from labctl.plan.model import Flow, LabPlan
from labctl.verify import frames
from labctl.verify.errands import Nic, nics
from labctl.verify.guests import Session
from labctl.verify.model import Report, Verdict

_SECONDS = 120  # that a planted leak lasts at most
_STRANGER = "06:6c:61:62:ff:ff"

# Widens a router's filter by the rule on standard input, after a copy of it was kept to be put back. An older copy is
# that of a run that was killed, and is the better one.
_WIDEN = """\
set -e
[ -e {kept} ] || {{ nft --stateless list table inet {table} >{kept}.new; mv {kept}.new {kept}; }}
nft -f -
setsid sh -c {later} </dev/null >/dev/null 2>&1 &
"""
_PUT_BACK = """\
if [ -e {kept} ]; then
  {{ echo 'delete table inet {table}'; cat {kept}; }} | nft -f - && rm {kept}
fi
"""

# Sends a frame from an address that no NIC of the lab has, again and again.
_SPEAK = """
import _socket as s, time
sock = s.socket(s.AF_PACKET, s.SOCK_RAW, 0)
sock.bind(({device!r}, 0))
for _ in range({seconds} * 4):
    sock.send(bytes.fromhex({frame!r}))
    time.sleep(0.25)
"""

# Carries marked frames, and no others, from one NIC to another.
_CARRY = """
import _socket as s, time
here, there = [s.socket(s.AF_PACKET, s.SOCK_RAW, 0) for _ in range(2)]
here.bind(({here!r}, 3))
there.bind(({there!r}, 0))
here.settimeout(1)
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    try:
        frame, place = here.recvfrom(2048)
    except TimeoutError:
        continue
    if place[2] != 4 and {mark!r} in frame:
        there.send(frame)
"""


@dataclass(frozen=True, slots=True)
class Plant:
    """A leak to plant. what: for people. argv and stdin: what makes it, as root in ``machine``. sees: whether a report
    shows it. undo: a shell script that ends it early, ``""`` where it can only be waited for."""

    what: str
    machine: str
    argv: tuple[str, ...]
    stdin: str
    sees: Callable[[Report], bool]
    undo: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a planted leak. trouble: why it could not be planted, ``""`` where it was."""

    what: str
    found: bool
    trouble: str = ""


def plants(plan: LabPlan) -> tuple[Plant, ...]:
    """What can be planted in a lab: one leak of each kind that it has room for."""
    kinds = (_wide_policies(plan), _strangers(plan), _bridges(plan))
    return tuple(first for kind in kinds if (first := next(kind, None)) is not None)


def run(plan: LabPlan, session: Session, verify: Callable[[], Report]) -> tuple[tuple[Found, ...], Report | None]:
    """Plant all, verify once. The report is None where nothing could be planted."""
    planted, failed = [], []
    for plant in plants(plan):
        try:
            result = session.run(plant.machine, plant.argv, stdin=plant.stdin.encode(), timeout=60)
            trouble = "" if result.code == 0 else result.stderr.decode(errors="replace").strip()[-200:] or "it failed"
        except LabctlError as error:
            trouble = error.brief
        if trouble:
            failed.append(Found(plant.what, False, trouble))
        else:
            planted.append(plant)
    if not planted:
        return tuple(failed), None
    try:
        report = verify()
    finally:
        for plant in planted:
            if plant.undo:
                with contextlib.suppress(LabctlError):  # it ends by itself, only later
                    session.run(plant.machine, ("/bin/sh", "-c", plant.undo), timeout=60)
    return (*failed, *(Found(plant.what, plant.sees(report)) for plant in planted)), report


def _wide_policies(plan: LabPlan) -> Iterator[Plant]:
    """A router that lets one more flow pass than the policy says. Its own rules come back when the time is up."""
    routers = {machine.name for machine in plan.machines if machine.router}
    machines = {machine.name: machine for machine in plan.machines}
    for flow in plan.flows:
        crosses = flow.expected == "deny" and flow.protocol == "tcp" and flow.family == 4 and flow.target_device
        if not crosses or routers & {flow.source, flow.target} or flow.source_device == plan.management.device:
            continue
        leg = machines[flow.source].interface(flow.source_device)
        there = machines[flow.target].interface(flow.target_device)
        gates = [
            name
            for name in sorted(routers)
            if {leg.network, there.network} <= {i.network for i in machines[name].interfaces}
        ]
        if not gates or leg.address is None or leg.network == there.network:
            continue
        rule = (
            f"insert rule inet {TABLE} forward ip saddr {leg.address.ip} ip daddr {flow.address} "
            f"tcp dport {flow.port} accept\n"
        )
        what = f"{gates[0]} lets {flow.source} reach {flow.target} at tcp/{flow.port}"
        kept = (
            f"/run/labctl-self-test-{hashlib.sha256(f'{plan.lab}/{plan.instance}/{gates[0]}'.encode()).hexdigest()[:8]}"
        )
        undo = _PUT_BACK.format(kept=kept, table=TABLE)
        argv = ("/bin/sh", "-c", _WIDEN.format(kept=kept, table=TABLE, later=shlex.quote(f"sleep {_SECONDS}\n{undo}")))
        yield Plant(what, gates[0], argv, rule, _fails(flow), undo)


def _fails(wanted: Flow) -> Callable[[Report], bool]:
    def sees(report: Report) -> bool:
        return any(
            (f.source, f.target, f.protocol, f.port, f.family) == (wanted.source, wanted.target, "tcp", wanted.port, 4)
            and f.verdict is Verdict.FAIL
            for f in report.flows
        )

    return sees


def _strangers(plan: LabPlan) -> Iterator[Plant]:
    """Somebody on a wire whom the plan does not know."""
    for nic, _ in _neighbours(plan):
        frame = frames.marked(_STRANGER, "0" * 16).hex()
        text = _SPEAK.format(device=nic.device, seconds=_SECONDS, frame=frame)
        what = f"a stranger speaks on {nic.wire}, next to {nic.machine}"
        yield Plant(what, nic.machine, _BEHIND, text, _hears_stranger)


def _hears_stranger(report: Report) -> bool:
    return any(one.kind == "stranger" and _STRANGER in one.details for one in report.host_evidence)


def _bridges(plan: LabPlan) -> Iterator[Plant]:
    """A machine on two wires that carries frames from one to the other."""
    for nic, peer in _neighbours(plan):
        others = [(n, p) for n, p in _neighbours(plan) if n.machine == nic.machine and n.wire != nic.wire]
        for other, behind in others:
            if behind.machine == peer.machine:
                continue
            text = _CARRY.format(here=nic.device, there=other.device, mark=frames.MARK, seconds=_SECONDS)
            what = f"{nic.machine} carries frames from {nic.wire} to {other.wire}"

            def sees(report: Report, source: Nic = peer, target: Nic = behind) -> bool:
                ends = (source.machine, source.device, target.machine, target.device)
                return any(
                    (f.source, f.source_device, f.target, f.target_device) == ends
                    and f.protocol == "frame"
                    and f.verdict is Verdict.FAIL
                    for f in report.flows
                )

            yield Plant(what, nic.machine, _BEHIND, text, sees)


def _neighbours(plan: LabPlan) -> Iterator[tuple[Nic, Nic]]:
    """NICs of lab networks, each with one that hears it, in Linux guests."""
    linux = {machine.name for machine in plan.machines if machine.os == "linux"}
    seats = [nic for nic in nics(plan) if not nic.management and nic.machine in linux]
    for nic in seats:
        peer = next((other for other in seats if other.machine != nic.machine and other.meets(nic)), None)
        if peer is not None:
            yield nic, peer


def _behind(argv: Sequence[str]) -> tuple[str, ...]:
    """A program that stays behind and is fed the caller's standard input."""
    words = shlex.join(argv)
    return ("/bin/sh", "-c", f'text=$(cat); (printf %s "$text" | setsid {words} >/dev/null 2>&1 &)')


_BEHIND = _behind(("python3", "-IS", "-"))
