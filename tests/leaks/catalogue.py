"""Leaks to be found: how each is planted in a running lab, how it is removed, and what exactly it must turn."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any

from labctl.host.runner import Runner
from labctl.providers.qemu import exits
from labctl.providers.qemu.hub import hub_of
from labctl.providers.qemu.qmp import monitor
from tests.leaks.lab import Flow, Lab
from tests.support.surroundings import PORT, WORLD

Deed = Callable[[Lab], object]
Choice = Callable[[Flow], bool]
Places = tuple[tuple[str, str], ...]
BRIDGE, HUB = frozenset({"bridge"}), frozenset({"hub"})
BOTH = BRIDGE | HUB


def none(_flow: Flow) -> bool:
    return False


@dataclass(frozen=True)
class Leak:
    """A leak. fails, unsure: the flows that it turns FAIL and INCONCLUSIVE. evidence: what the host's side says of it,
    as verdict, kind and machine. No other flow and no other finding may differ from PASS."""

    name: str
    plant: Deed
    remove: Deed
    fails: Choice = none
    unsure: Choice = none
    evidence: frozenset[tuple[str, str, str]] = frozenset()
    wires: frozenset[str] = BRIDGE


def flows(**wanted: Any) -> Choice:
    """Flows with these properties; a value may be a tuple of allowed ones."""

    def chosen(flow: Flow) -> bool:
        return all(flow[k] in v if isinstance(v, tuple) else flow[k] == v for k, v in wanted.items())

    return chosen


def either(*choices: Choice) -> Choice:
    return lambda flow: any(choice(flow) for choice in choices)


def both(*choices: Choice) -> Choice:
    return lambda flow: all(choice(flow) for choice in choices)


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
    return heard(flow) or flow["protocol"] == "udp"


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
    red = replace(lab.plan.network("red"), exit=IPv4Address("10.61.1.14"))
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
machines: {eve: {networks: {red: 10.61.1.5}}}
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

    A source that is borrowed over IPv4 is stopped before the filter, by the reverse path filter of fw's kernel.
    """
    ends = ((flow["source"], flow["source_device"]), (flow["target"], flow["target_device"]))
    routed = flow["target_device"] and flow["source_device"] != "mgmt" and not set(ends) & set(GREEN)
    if flow["expected"] == "pass" or not routed or flow["protocol"] == "frame" or flow["source"] == "fw":
        return False
    if flow.get("trick") == "spoofed-source":
        return bool(flow["family"] == 6 and flow["source"] != flow["target"])
    return bool(ends[0][1] != "eth1" or ends[1] not in (("ann", "eth1"), ("ben", "eth1")))


def rule(text: str) -> Deed:
    return guest("fw", f"nft 'insert rule inet labctl forward {text}'")


def false_python(filter_: str) -> Deed:
    """Put something between ann's Python and labctl."""
    script = f"""\
mv /usr/bin/python3 /usr/bin/python3.true
printf '%s\\n' '#!/bin/sh' '/usr/bin/python3.true "$@" | {filter_}' >/usr/bin/python3
chmod 755 /usr/bin/python3"""
    return guest("ann", script)


TRUE_PYTHON = guest("ann", "mv /usr/bin/python3.true /usr/bin/python3")

LEAKS: tuple[Leak, ...] = (
    # --- the management path ---
    Leak(
        "a management NIC that is not restricted",
        way_in("ann", restrict=False),
        own_way_in("ann"),
        fails=flows(source="ann", source_device="mgmt", target=("host", "management")),
        evidence=seen("wrong-wire", "ann"),
        wires=BOTH,
    ),
    Leak(
        "a forward that any computer may use",
        say("ann", "hostfwd_add mgmt tcp:0.0.0.0:23022-10.0.2.15:22"),
        say("ann", "hostfwd_remove mgmt tcp:0.0.0.0:23022"),
        evidence=seen("opening", "ann"),
        wires=BOTH,
    ),
    Leak(
        "a second forward on loopback",
        say("ann", "hostfwd_add mgmt udp:127.0.0.1:23022-10.0.2.15:9"),
        say("ann", "hostfwd_remove mgmt udp:127.0.0.1:23022"),
        evidence=seen("opening", "ann"),
    ),
    Leak(
        "an address of the management path that leads out",
        way_in("ann", guestfwd=[{"str": f"tcp:10.0.2.100:8080-tcp:{WORLD}:{PORT}"}]),
        own_way_in("ann"),
        evidence=seen("opening", "ann"),
    ),
    Leak(
        "a resolver on the management path",
        way_in("ann", dns="10.0.2.4", guestfwd=[{"str": f"tcp:10.0.2.3:53-tcp:{WORLD}:{PORT}"}]),
        own_way_in("ann"),
        fails=flows(source="ann", source_device="mgmt", address="10.0.2.3", protocol="tcp"),
        evidence=seen("opening", "ann"),
    ),
    Leak(
        "a management NIC on a lab's wire",
        second_wire,
        off_second_wire,
        evidence=seen("wrong-wire", "ann") | seen("leftover"),
        fails=frames(((("ann", "mgmt"),), BLUE)),
    ),
    Leak(
        "a sealed lab whose machine is joined again",
        in_turn(lambda lab: lab.labctl.run("seal", lab.folder), own_way_in("ann")),
        lambda lab: lab.labctl.run("unseal", lab.folder),
        evidence=seen("unsealed", "ann"),
    ),
    Leak(
        "IPv6 on the management path",
        way_in("ann", ipv6=True),
        own_way_in("ann"),
        evidence=seen("management-ipv6", "ann"),
    ),
    # --- wires ---
    Leak(
        "a NIC on a foreign wire",
        wires("ip link set {ann_red} master {green}"),
        plugged_back,
        evidence=seen("wrong-wire", "ann") | seen("open-wire"),
        fails=either(nic("ann", "eth0", "pass"), frames((ANN, GREEN)), both(ASTRAY, flows(target="ann"))),
        unsure=both(
            nic("ann", "eth0", "deny"),
            lambda flow: not frames((ANN, GREEN))(flow) and not both(ASTRAY, flows(target="ann"))(flow),
        ),
    ),
    Leak(
        "two wires bridged",
        wires(
            "ip link add la type veth peer name lb; ip link set la master {red} up; ip link set lb master {green} up"
        ),
        wires("ip link del la"),
        evidence=seen("leftover"),
        fails=either(frames((RED, GREEN)), both(ASTRAY, flows(target=("ann", "dual")))),
    ),
    Leak(
        "peers that may meet",
        wires("bridge link set dev {ann_pens} isolated off; bridge link set dev {ben_pens} isolated off"),
        wires("bridge link set dev {ann_pens} isolated on; bridge link set dev {ben_pens} isolated on"),
        fails=both(flows(source=("ann", "ben"), source_device="eth1", target=("ann", "ben"), target_device="eth1")),
        evidence=seen("open-wire"),
    ),
    Leak(
        "peers kept apart by a guest's own firewall only",
        in_turn(
            wires("bridge link set dev {ann_pens} isolated off"),
            guest(
                "ben", "nft 'table ip own { chain i { type filter hook input priority 0; ip saddr 10.61.3.2 drop; }; }'"
            ),
            guest(
                "ann", "nft 'table ip own { chain i { type filter hook input priority 0; ip saddr 10.61.3.3 drop; }; }'"
            ),
        ),
        in_turn(
            wires("bridge link set dev {ann_pens} isolated on"),
            guest("ben", "nft delete table ip own"),
            guest("ann", "nft delete table ip own"),
        ),
        evidence=seen("open-wire"),
        fails=frames(((("ann", "eth1"),), (("ben", "eth1"),))),
    ),
    Leak(
        "an address of the host on a wire",
        wires("ip addr add 10.61.1.9/28 dev {red}"),
        wires("ip addr del 10.61.1.9/28 dev {red}"),
        evidence=seen("open-wire"),
    ),
    Leak(
        "a host that forwards between wires",
        wires(
            "ip addr add 10.61.1.9/28 dev {red}; ip addr add 10.61.4.9/28 dev {green}; "
            "echo 1 >/proc/sys/net/ipv4/ip_forward"
        ),
        wires("echo 0 >/proc/sys/net/ipv4/ip_forward; ip addr flush dev {red}; ip addr flush dev {green}"),
        evidence=seen("open-wire"),
    ),
    Leak(
        "a port that gets a copy of another's frames",
        wires(COPY.replace("TARGET", "{dual_red}")),
        wires("nft delete table netdev x"),
        evidence=seen("open-wire") | seen("overhears", "dual"),
    ),
    Leak(
        "a port that gets what is for another",
        lambda lab: lab.wires(f"bridge fdb replace {lab.mac('ann', 'red')} dev {{dual_red}} master static"),
        plugged_back,
        evidence=seen("open-wire"),
        fails=both(nic("ann", "eth0", "pass"), lambda flow: probe(flow) or flow["source"] == "ann"),
        unsure=both(nic("ann", "eth0", "deny"), lambda flow: flow["protocol"] != "frame"),
    ),
    Leak(
        "frames copied to another wire",
        wires(COPY.replace("TARGET", "{dual_green}")),
        wires("nft delete table netdev x"),
        evidence=seen("open-wire"),
        fails=both(frames((ANN, (("dual", "eth1"),))), flows(source="ann")),
    ),
    Leak(
        "a port that takes frames from forged addresses",
        wires("bridge link set dev {ann_red} locked off learning on"),
        wires("bridge link set dev {ann_red} locked on learning off"),
        evidence=seen("open-wire"),
    ),
    Leak(
        "the host itself on a wire",
        lambda lab: lab.wires(
            f"ip link add la type veth peer name lb netns {os.getpid()}; ip link set la master {{red}} up"
        ),
        wires("ip link del la"),
        evidence=seen("leftover"),
    ),
    Leak(
        "one more machine of this instance",
        stranger,
        no_stranger,
        evidence=seen("leftover"),
        wires=BOTH,
    ),
    Leak("a way out where none is declared", way_out, no_way_out, evidence=seen("leftover")),
    Leak("two instances that share a wire", two_instances, one_instance, evidence=seen("leftover")),
    Leak(
        "a hub with a way out",
        on_hubs(
            ("netdev_add", {"type": "user", "id": "way", "restrict": True}),
            ("netdev_add", {"type": "hubport", "id": "hub-way", "hubid": "red", "netdev": "way"}),
        ),
        on_hubs(("netdev_del", {"id": "hub-way"}), ("netdev_del", {"id": "way"})),
        evidence=seen("open-wire"),
        wires=HUB,
    ),
    Leak(
        "two hubs joined",
        on_hubs(
            ("netdev_add", {"type": "hubport", "id": "one", "hubid": "red"}),
            ("netdev_add", {"type": "hubport", "id": "two", "hubid": "green", "netdev": "one"}),
        ),
        on_hubs(("netdev_del", {"id": "two"}), ("netdev_del", {"id": "one"})),
        evidence=seen("open-wire"),
        wires=HUB,
    ),
    Leak(
        "a NIC that is unplugged",
        order("ann", "set_link", name="nic-eth0", up=False),
        order("ann", "set_link", name="nic-eth0", up=True),
        fails=nic("ann", "eth0", "pass"),
        unsure=nic("ann", "eth0", "deny"),
    ),
    Leak(
        "a MAC address that a guest has changed",
        lambda lab: lab.guest("dual", "ip link set eth1 address 02:00:00:00:00:77"),
        lambda lab: lab.guest("dual", f"ip link set eth1 address {lab.mac('dual', 'green')}"),
        evidence=seen("missing-nic", "dual") | seen("extra-nic", "dual"),
        fails=both(nic("dual", "eth1", "pass"), probe),
        unsure=both(nic("dual", "eth1", "deny"), probe),
    ),
    # --- routers, and guests that route ---
    Leak(
        "a router that filters nothing",
        guest("fw", "nft flush ruleset"),
        guest("fw", ROUTER),
        fails=crossing,
        wires=BOTH,
        evidence=seen("router-filter", "fw"),
    ),
    Leak(
        "a router that filters IPv4 only",
        rule("meta nfproto ipv6 accept"),
        guest("fw", ROUTER),
        fails=both(
            crossing,
            flows(family=6, source=("ann", "ben", "dual"), target=("ann", "ben", "dual")),
            lambda flow: flow.get("trick") != "spoofed-source",  # stopped before the filter
        ),
        wires=BOTH,
        evidence=seen("router-filter", "fw"),
    ),
    Leak(
        "a policy one port too wide",
        rule("ip daddr 10.61.2.2 tcp dport 8002 accept"),
        guest("fw", ROUTER),
        fails=flows(
            source=("ann", "dual"), source_device="eth0", target="ben", target_device="eth0", family=4, port=8002
        ),
        evidence=seen("router-filter", "fw"),
    ),
    Leak(
        "a policy that begins one port too low",
        rule("ip daddr 10.61.2.2 tcp dport 7999 accept"),
        guest("fw", ROUTER),
        fails=flows(
            source=("ann", "dual"), source_device="eth0", target="ben", target_device="eth0", family=4, port=7999
        ),
        evidence=seen("router-filter", "fw"),
    ),
    Leak(
        "a port that no rule of the policy is near",
        rule("tcp dport 3389 accept"),
        guest("fw", ROUTER),
        evidence=seen("router-filter", "fw"),
    ),
    Leak(
        "a source that nobody planned",
        rule("ip saddr 10.61.1.14 accept"),
        guest("fw", ROUTER),
        evidence=seen("router-filter", "fw"),
    ),
    Leak(
        "new connections against the policy's direction",
        rule("iifname eth1 oifname eth0 accept"),
        guest("fw", ROUTER),
        fails=both(crossing, flows(source="ben", source_device="eth0", target=("ann", "dual"), target_device="eth0")),
        evidence=seen("router-filter", "fw"),
    ),
    Leak(
        "a guest on two wires that forwards and is no router",
        guest("dual", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
        guest("dual", "echo 0 >/proc/sys/net/ipv4/ip_forward"),
        evidence=seen("forwards", "dual"),
        wires=BOTH,
    ),
    Leak(
        "a router that answers for others' addresses",
        guest("fw", "echo 1 >/proc/sys/net/ipv4/conf/eth0/proxy_arp"),
        guest("fw", "echo 0 >/proc/sys/net/ipv4/conf/eth0/proxy_arp"),
        evidence=seen("forwards", "fw") | seen("claim", "ann") | seen("claim", "dual"),
    ),
    # --- guests that cannot be believed ---
    Leak(
        "a guest that stands still",
        order("ann", "stop"),
        order("ann", "cont"),
        unsure=either(flows(source="ann"), flows(target="ann")),
        evidence=seen("not-running", "ann", "INCONCLUSIVE"),
    ),
    Leak(
        "a machine whose process was killed",
        killed,
        lambda lab: lab.labctl.run("up", lab.folder),
        unsure=either(flows(source="ann"), flows(target="ann")),
        evidence=seen("not-running", "ann", "INCONCLUSIVE"),
    ),
    Leak(
        "a guest without Python",
        guest("ann", "mv /usr/bin/python3 /usr/bin/python3.true"),
        TRUE_PYTHON,
        unsure=either(flows(source="ann"), both(flows(target="ann"), blind)),
    ),
    Leak(
        "a guest that claims silence",
        false_python('sed s/\\"answered\\"/\\"silence\\"/g'),
        TRUE_PYTHON,
        fails=both(flows(source="ann", expected="pass"), probe),
        unsure=both(flows(source="ann", expected="deny"), probe),
    ),
    Leak(
        "a guest that claims answers",
        false_python('sed -E "s/\\"(silence|no-route|prohibited|refused)\\"/\\"answered\\"/g"'),
        TRUE_PYTHON,
        fails=both(flows(source="ann", expected="deny"), probe),
    ),
    Leak(
        "a guest that speaks for others",
        false_python('sed s/\\"results\\":./\\&[0,\\"answered\\",\\"\\",1,\\"\\"],/'),
        TRUE_PYTHON,
        unsure=either(flows(source="ann"), both(flows(target="ann"), heard)),
    ),
)
