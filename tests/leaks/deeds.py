"""What is done to a running lab to plant a leak, and how the flows that it turns are named."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from labctl.host.runner import Runner
from labctl.providers.qemu import exits
from labctl.providers.qemu.hub import hub_of
from labctl.providers.qemu.qmp import monitor
from tests.leaks.lab import Flow, Lab
from tests.support import passing
from tests.support.inside import NOBODY_WAITS

Deed = Callable[[Lab], object]
Choice = Callable[[Flow], bool]
Places = tuple[tuple[str, str], ...]
BRIDGE, HUB = frozenset({"bridge"}), frozenset({"hub"})
BOTH = BRIDGE | HUB


def none(_flow: Flow) -> bool:
    return False


def flows(**wanted: Any) -> Choice:
    """Flows with these properties; a value may be a tuple of allowed ones."""

    def chosen(flow: Flow) -> bool:
        return all(flow[k] in v if isinstance(v, tuple) else flow[k] == v for k, v in wanted.items())

    return chosen


def either(*choices: Choice) -> Choice:
    return lambda flow: any(choice(flow) for choice in choices)


def both(*choices: Choice) -> Choice:
    return lambda flow: all(choice(flow) for choice in choices)


def but(choice: Choice, *others: Choice) -> Choice:
    """What a choice chooses and no other one does."""
    return lambda flow: choice(flow) and not any(other(flow) for other in others)


def nic(machine: str, device: str, expected: str) -> Choice:
    """Flows from and to a NIC."""
    ends = (machine, device)
    return lambda flow: (
        flow["expected"] == expected
        and ends
        in (
            (flow["source"], flow["source_device"]),
            (flow["target"], flow["target_device"]),
        )
    )


def frames(*pairs: tuple[Places, Places]) -> Choice:
    """Frames between NICs, both ways: each of the first with each of the second."""
    wanted = {(one, other) for ones, others in pairs for one in ones for other in others}

    def chosen(flow: Flow) -> bool:
        ends = (flow["source"], flow["source_device"]), (flow["target"], flow["target_device"])
        return flow["protocol"] == "frame" and (ends in wanted or ends[::-1] in wanted)

    return chosen


def probe(flow: Flow) -> bool:
    """Whether a flow is what a guest says itself: no frame and no forged packet, which others hear."""
    return flow["protocol"] != "frame" and not flow.get("trick")


def heard(flow: Flow) -> bool:
    """Whether the target of a flow has to say what it heard."""
    return not probe(flow)


def blind(flow: Flow) -> bool:
    """Whether nothing shows when the target opens no listener."""
    return heard(flow) or flow["protocol"] == "udp" or (flow["protocol"], flow["port"]) == ("tcp", 9)


def seen(kind: str, machine: str = "", verdict: str = "FAIL") -> frozenset[tuple[str, str, str]]:
    return frozenset({(verdict, kind, machine)})


def guest(machine: str, script: str) -> Deed:
    return lambda lab: lab.guest(machine, script)


def wires(script: str) -> Deed:
    return lambda lab: lab.wires(script)


def way_in(machine: str, **options: Any) -> Deed:
    return lambda lab: lab.other_way_in(machine, **options)


def own_way_in(machine: str) -> Deed:
    return lambda lab: lab.own_way_in(machine)


def say(machine: str, line: str) -> Deed:
    """Tell QEMU's monitor something."""

    def deed(lab: Lab) -> None:
        with lab.qemu(machine) as session:
            session.human(line)

    return deed


def order(machine: str, command: str, **arguments: Any) -> Deed:
    def deed(lab: Lab) -> None:
        with lab.qemu(machine) as session:
            session.execute(command, **arguments)

    return deed


def in_turn(*deeds: Deed) -> Deed:
    def deed(lab: Lab) -> None:
        for one in deeds:
            one(lab)

    return deed


# --- deeds that take more than a line ---


def second_wire(lab: Lab) -> None:
    """Put ann's management NIC on blue as well."""
    _, (fd,) = lab.namespace().run([("tap", "leak")], runner=Runner())
    lab.wires("ip link set leak master {blue} up")
    with lab.qemu("ann") as session:
        session.hand_over("leak", fd)
        session.execute("netdev_add", type="tap", id="leak", fd="leak")
        session.execute("netdev_add", type="hubport", id="port-leak", hubid=0, netdev="leak")
    os.close(fd)


def off_second_wire(lab: Lab) -> None:
    with lab.qemu("ann") as session:
        session.execute("netdev_del", id="port-leak")
        session.execute("netdev_del", id="leak")


def passing_packets(machine: str, here: str, there: str, *, to: tuple[str, str]) -> Deed:
    """A program that passes packets on from one device to another, for the NIC of a machine on a network."""

    def deed(lab: Lab) -> None:
        program = shlex.quote(passing.program(here, there, lab.mac(*to)))
        lab.guest(machine, f"systemd-run --quiet --unit=passing python3 -c {program}; sleep 2")

    return deed


COPY = 'nft "table netdev x {{ chain c {{ type filter hook ingress device {ann_red} priority 0; dup to TARGET; }}; }}"'


def plugged_back(lab: Lab) -> None:
    """Put ann's NIC back on red; the kernel has forgotten all about its port."""
    lab.wires(
        "ip link set {ann_red} master {red}; bridge link set dev {ann_red} learning off flood off locked on; "
        f"bridge fdb replace {lab.mac('ann', 'red')} dev {{ann_red}} master static"
    )


def killed(lab: Lab) -> None:
    os.kill(lab.pid("ann"), signal.SIGKILL)


def way_out(lab: Lab) -> None:
    """User-mode networking on red, as ``egress: nat`` would make it."""
    _, (fd,) = lab.namespace().run([("tap", "leak")], runner=Runner())
    lab.wires("ip link set leak master {red} up")
    red = replace(lab.plan.network("red"), exit=IPv4Address("10.61.1.14"), resolver=IPv4Address("10.61.1.13"))
    assert lab.labctl.host is not None
    argv = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", *exits.arguments(red, fd)]
    lab.stash["way"] = subprocess.Popen([*lab.labctl.host.enter(lab.folder), *argv], pass_fds=[fd])
    os.close(fd)


def no_way_out(lab: Lab) -> None:
    with lab.stash.pop("way") as process:
        process.kill()


def two_instances(lab: Lab) -> None:
    """Join red to the wire of another lab that runs."""
    folder = lab.labctl.home / "other"
    folder.mkdir(exist_ok=True)
    (folder / "lab.yaml").write_text(OTHER)
    lab.labctl.run("up", folder)
    other = lab.beside(folder)
    lab.wires(f"ip link add la type veth peer name lb netns {other.holder}; ip link set la master {{red}} up")
    other.wires("ip link set lb master {red} up")


def one_instance(lab: Lab) -> None:
    lab.wires("ip link del la")
    lab.labctl.run("destroy", "other", "--yes")


def on_hubs(*commands: tuple[str, dict[str, Any]]) -> Deed:
    """Commands for the process that holds the hubs; ``hubid`` is a network's name."""

    def deed(lab: Lab) -> None:
        with monitor(lab.layout.runtime / "hub.qmp") as session:
            for command, given in commands:
                number = {"hubid": hub_of(lab.plan.network(given["hubid"]).key)} if "hubid" in given else {}
                session.execute(command, **(given | number))

    return deed


_SHOUT = """
import socket, sys, time
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as lane:
    lane.bind((sys.argv[1], 0))
    while True:
        lane.send(b"\\xff" * 6 + bytes.fromhex(sys.argv[2].replace(":", "")) + b"\\x88\\xb6" + bytes(46))
        time.sleep(0.2)
"""


def impostor(lab: Lab) -> None:
    """Somebody on green who speaks with ann's address on red."""
    lab.wires("ip link add la type veth peer name lb; ip link set la master {green} up; ip link set lb up")
    argv = ["nsenter", f"--target={lab.holder}", "--net", "--", "python3", "-c", _SHOUT, "lb", lab.mac("ann", "red")]
    lab.stash["impostor"] = subprocess.Popen(argv)


def no_impostor(lab: Lab) -> None:
    with lab.stash.pop("impostor") as process:
        process.kill()
    lab.wires("ip link del la")


def stranger(lab: Lab) -> None:
    """One more machine with this instance's mark."""
    argv = ["qemu-system-x86_64", "-name", lab.layout.process_mark("stranger"), "-machine", "none", "-display", "none"]
    lab.stash["stranger"] = Runner().spawn(argv, output=lab.folder / "stranger.log")


def no_stranger(lab: Lab) -> None:
    process = lab.stash.pop("stranger")
    process.kill()
    process.wait()


OTHER = """\
version: 1
name: other
provider: qemu
providers: {qemu: {wires: bridge}}
defaults: {image: debian-12, memory: 192 MiB}
networks: {red: {subnet: 10.61.1.0/28}}
machines: {eve: {networks: {red: 10.61.1.14}}}  # every verification asks for that address
"""
ROUTER = "nft -f /etc/labctl/router.nft"
RED: Places = (("fw", "eth0"), ("ann", "eth0"), ("dual", "eth0"))
BLUE: Places = (("fw", "eth1"), ("ben", "eth0"))
GREEN: Places = (("dual", "eth1"), ("ben", "eth2"))  # no router reaches it
ANN: Places = (("ann", "eth0"),)
# A probe that is bound to a NIC of green asks there for anybody; datagrams arrive, answers go elsewhere.
ASTRAY = both(
    flows(protocol="udp", target_device="eth0"), lambda flow: (flow["source"], flow["source_device"]) in GREEN
)


def crossing(flow: Flow) -> bool:
    """Whether fw alone stands between the ends: probes between its wires, and packets with a favoured end.

    A source that is borrowed over IPv4 is stopped before the filter, by the reverse path filter of fw's kernel, unless
    it comes while fw probes: then that is off.
    """
    ends = ((flow["source"], flow["source_device"]), (flow["target"], flow["target_device"]))
    routed = flow["target_device"] and flow["source_device"] != "mgmt" and not set(ends) & set(GREEN)
    if flow["expected"] == "pass" or not routed or flow["protocol"] == "frame" or flow["source"] == "fw":
        return False
    if flow.get("trick") == "relay":  # a packet for a neighbour that is no router
        return False
    if flow.get("trick") == "spoofed-source":
        return bool(flow["family"] == 6 and flow["source"] != flow["target"])
    return bool(ends[0][1] != "eth1" or ends[1] not in (("ann", "eth1"), ("ben", "eth1")))


def borrowed(flow: Flow) -> bool:
    """Whether a packet's source is another one's over IPv4."""
    return flow.get("trick") == "spoofed-source" and flow["family"] == 4


def rule(text: str) -> Deed:
    return guest("fw", f"nft 'insert rule inet labctl forward {text}'")


def false_python(filter_: str) -> Deed:
    """Have ann's Python read labctl's program through a filter: what it says is what the filter makes of it."""
    script = f"""\
{NOBODY_WAITS}
mv /usr/bin/python3 /usr/bin/python3.true
printf '%s\\n' '#!/bin/sh' '{filter_} | /usr/bin/python3.true "$@"' >/usr/bin/python3
chmod 755 /usr/bin/python3"""
    return guest("ann", script)


TRUE_PYTHON = guest("ann", "mv /usr/bin/python3.true /usr/bin/python3")
