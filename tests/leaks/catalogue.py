"""Leaks to be found: how each is planted in a running lab, how it is removed, and what exactly it must turn."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from tests.leaks.deeds import (
    ANN,
    ASTRAY,
    BLUE,
    BOTH,
    BRIDGE,
    COPY,
    GREEN,
    HUB,
    RED,
    ROUTER,
    TRUE_PYTHON,
    Choice,
    Deed,
    blind,
    borrowed,
    both,
    but,
    crossing,
    either,
    false_python,
    flows,
    frames,
    guest,
    heard,
    impostor,
    in_turn,
    killed,
    nic,
    no_impostor,
    no_stranger,
    no_way_out,
    none,
    off_second_wire,
    on_hubs,
    one_instance,
    order,
    own_way_in,
    passing_packets,
    plugged_back,
    probe,
    rule,
    say,
    second_wire,
    seen,
    stranger,
    two_instances,
    way_in,
    way_out,
    wires,
)
from tests.support import passing
from tests.support.inside import NOBODY_WAITS
from tests.support.surroundings import PORT, WORLD

# What a management NIC that leads out finds: nobody serves names over TCP there, and TFTP serves no folder.
_OUTSIDE = but(
    flows(source="ann", source_device="mgmt", target=("host", "management")),
    flows(address="10.0.2.3", protocol="tcp"),
    flows(protocol="udp", port=69),
)
_ONTO_BLUE = frames(((("ann", "mgmt"),), BLUE))
# The gateway of the management path is heard there, and answers.
_GATEWAY_ON_BLUE = frozenset(("FAIL", kind, machine) for kind in ("stranger", "claim") for machine in ("fw", "ben"))
# A NIC that is not as planned is no ground on which anything else could be shown to be closed.
_OF_MGMT = nic("ann", "mgmt", "deny")


_HANDING = 'table netdev x {{ chain c {{ type filter hook ingress device "eth0" priority 0; {}; }}; }}'


def _on_red(*kinds: str) -> frozenset[tuple[str, str, str]]:
    """What the members of red say of somebody new on it."""
    return frozenset(("FAIL", kind, machine) for kind in kinds for machine in ("fw", "ann", "dual"))


@dataclass(frozen=True)
class Leak:
    """A leak. fails, unsure: the flows that it turns FAIL and INCONCLUSIVE. evidence: what the host's side says of it,
    as verdict, kind and machine. chance: flows that turn FAIL or not, as the moment is. No other flow and no other
    finding may differ from PASS. often: planted in every run of the tests, on bridges; all together take too long."""

    name: str
    plant: Deed
    remove: Deed
    fails: Choice = none
    unsure: Choice = none
    chance: Choice = none
    evidence: frozenset[tuple[str, str, str]] = frozenset()
    wires: frozenset[str] = BRIDGE
    often: bool = False


# Packets that dual, which is no router, is sent for its other network; none of them goes by way of anybody else.
_THROUGH_DUAL = both(
    flows(trick="relay"),
    either(
        flows(source=("ann", "fw"), source_device="eth0", target="ben", target_device="eth2"),
        flows(source="ben", source_device="eth2", target="fw", target_device="eth0"),
    ),
)

# What passes where red and green are one wire: fw knows no way to green but its wire, and dual knows the way back.
_AS_ONE = either(
    frames((RED, GREEN)),
    both(ASTRAY, flows(target=("ann", "dual", "fw")), probe),
    both(flows(source="fw", source_device="eth0", target="dual", target_device="eth1"), probe),
    both(flows(source="fw", source_device="eth0", target="ben", target_device="eth2", protocol="udp"), probe),
)
# User-mode networking answers for everybody on its wire: what is sent to others it refuses, sooner or later than they.
_OF_RED_BY_TCP = both(flows(source=("ann", "dual", "fw"), source_device="eth0", protocol="tcp"), probe)

# What shows nothing when ann hears nobody, at all or on red.
_THROUGH_ANN_ETH0 = flows(trick="relay", source="dual", source_device="eth0", target="fw", target_device="eth2")
_THROUGH_ANN = either(
    _THROUGH_ANN_ETH0,
    flows(trick="relay", source="fw", source_device="eth2", target="dual", target_device="eth0"),
)

# At these ports nobody reaches ann, so only ann itself could show that it answers there.
_OF_RULES_TO_ANN = but(flows(target="ann", protocol="tcp", expected="deny"), flows(port=9))

LEAKS: tuple[Leak, ...] = (
    # --- the management path ---
    Leak(
        "a management NIC that is not restricted",
        way_in("ann", restrict=False),
        own_way_in("ann"),
        fails=_OUTSIDE,
        unsure=but(_OF_MGMT, _OUTSIDE),
        evidence=seen("wrong-wire", "ann"),
        wires=BOTH,
        often=True,
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
        often=True,
    ),
    Leak(
        "a resolver on the management path",
        way_in("ann", dns="10.0.2.4", guestfwd=[{"str": f"tcp:10.0.2.3:53-tcp:{WORLD}:{PORT}"}]),
        own_way_in("ann"),
        fails=flows(source="ann", source_device="mgmt", address="10.0.2.3", protocol="tcp"),
        evidence=seen("opening", "ann"),
        often=True,
    ),
    Leak(
        "a management NIC on a lab's wire",
        second_wire,
        off_second_wire,
        evidence=seen("wrong-wire", "ann") | seen("leftover") | _GATEWAY_ON_BLUE,
        fails=_ONTO_BLUE,
        unsure=but(_OF_MGMT, _ONTO_BLUE),
    ),
    Leak(
        "a sealed lab whose machine is joined again",
        in_turn(lambda lab: lab.labctl.run("seal", lab.folder), own_way_in("ann")),
        lambda lab: lab.labctl.run("unseal", lab.folder),
        evidence=seen("unsealed", "ann"),
    ),
    Leak(
        "IPv6 on the management path",
        way_in("ann", ipv4=True, ipv6=True),
        own_way_in("ann"),
        evidence=seen("management-ipv6", "ann"),
        often=True,
    ),
    # --- wires ---
    Leak(
        "a NIC on a foreign wire",
        wires("ip link set {ann_red} master {green}"),
        plugged_back,
        evidence=seen("wrong-wire", "ann") | seen("open-wire"),
        fails=either(nic("ann", "eth0", "pass"), frames((ANN, GREEN)), both(ASTRAY, flows(target="ann"))),
        unsure=either(
            _THROUGH_ANN_ETH0,
            both(
                nic("ann", "eth0", "deny"),
                lambda flow: not frames((ANN, GREEN))(flow) and not both(ASTRAY, flows(target="ann"))(flow),
            ),
        ),
        often=True,
    ),
    Leak(
        "two wires bridged",
        wires(
            "ip link add la type veth peer name lb; ip link set la master {red} up; ip link set lb master {green} up"
        ),
        wires("ip link del la"),
        evidence=seen("leftover") | seen("stranger", "dual"),
        fails=_AS_ONE,
        often=True,
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
        # what the bridge has learned meanwhile it would keep for five minutes
        wires(
            "bridge link set dev {ann_red} locked on learning off; "
            "ip link set dev {ann_red} type bridge_slave fdb_flush"
        ),
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
        "an address of the plan on a wire that is not its own",
        impostor,
        no_impostor,
        evidence=seen("leftover") | seen("open-wire") | seen("stranger", "dual") | seen("stranger", "ben"),
    ),
    Leak(
        "one more machine of this instance",
        stranger,
        no_stranger,
        evidence=seen("leftover"),
        wires=BOTH,
    ),
    Leak(
        "a way out where none is declared",
        way_out,
        no_way_out,
        evidence=seen("leftover") | _on_red("stranger", "claim"),
        often=True,
    ),
    Leak(
        "two instances that share a wire",
        two_instances,
        one_instance,
        evidence=seen("leftover") | _on_red("stranger", "claim"),
        often=True,
    ),
    Leak(
        "a hub with a way out",
        on_hubs(
            ("netdev_add", {"type": "user", "id": "way", "restrict": True}),
            ("netdev_add", {"type": "hubport", "id": "hub-way", "hubid": "red", "netdev": "way"}),
        ),
        on_hubs(("netdev_del", {"id": "hub-way"}), ("netdev_del", {"id": "way"})),
        fails=but(_OF_RED_BY_TCP, flows(source="fw", expected="deny")),
        chance=both(_OF_RED_BY_TCP, flows(expected="pass")),
        evidence=seen("open-wire") | _on_red("stranger", "claim"),
        wires=HUB,
    ),
    Leak(
        "two hubs joined",
        on_hubs(
            ("netdev_add", {"type": "hubport", "id": "one", "hubid": "red"}),
            ("netdev_add", {"type": "hubport", "id": "two", "hubid": "green", "netdev": "one"}),
        ),
        on_hubs(("netdev_del", {"id": "two"}), ("netdev_del", {"id": "one"})),
        # a hub has every NIC hear what is for any other
        fails=either(_AS_ONE, _THROUGH_DUAL),
        evidence=seen("open-wire") | seen("stranger", "dual"),
        wires=HUB,
    ),
    Leak(
        "a NIC that is unplugged",
        order("ann", "set_link", name="nic-eth0", up=False),
        order("ann", "set_link", name="nic-eth0", up=True),
        fails=nic("ann", "eth0", "pass"),
        unsure=either(nic("ann", "eth0", "deny"), _THROUGH_ANN_ETH0),
    ),
    Leak(
        "a MAC address that a guest has changed",
        lambda lab: lab.guest("dual", "ip link set eth1 address 02:00:00:00:00:77"),
        lambda lab: lab.guest("dual", f"ip link set eth1 address {lab.mac('dual', 'green')}"),
        evidence=seen("missing-nic", "dual") | seen("extra-nic", "dual"),
        fails=both(nic("dual", "eth1", "pass"), probe),
        # ben's NIC there meets nobody now
        unsure=both(either(nic("dual", "eth1", "deny"), nic("ben", "eth2", "deny")), probe),
    ),
    # --- routers, and guests that route ---
    Leak(
        "a router that filters nothing",
        guest("fw", "nft flush ruleset"),
        guest("fw", ROUTER),
        fails=crossing,
        chance=borrowed,
        wires=BOTH,
        evidence=seen("router-filter", "fw"),
        often=True,
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
        often=True,
    ),
    Leak(
        "a policy one port too wide",
        rule("ip daddr 10.61.2.2 tcp dport 8002 accept"),
        guest("fw", ROUTER),
        fails=flows(
            source=("ann", "dual"), source_device="eth0", target="ben", target_device="eth0", family=4, port=8002
        ),
        evidence=seen("router-filter", "fw"),
        often=True,
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
        often=True,
    ),
    Leak(
        "a guest on two wires that forwards and is no router",
        guest("dual", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
        guest("dual", "echo 0 >/proc/sys/net/ipv4/ip_forward"),
        fails=_THROUGH_DUAL,
        evidence=seen("forwards", "dual"),
        wires=BOTH,
        often=True,
    ),
    Leak(
        "a router that answers for others' addresses",
        guest("fw", "echo 1 >/proc/sys/net/ipv4/conf/eth0/proxy_arp"),
        guest("fw", "echo 0 >/proc/sys/net/ipv4/conf/eth0/proxy_arp"),
        evidence=seen("forwards", "fw") | seen("claim", "ann") | seen("claim", "dual"),
    ),
    Leak(
        "a router that hands packets on before its filter sees them",
        guest("fw", "nft '" + _HANDING.format('tcp dport 3389 fwd ip to 10.61.2.2 device "eth1"') + "'"),
        guest("fw", "nft delete table netdev x"),
        evidence=seen("forwards", "fw", "INCONCLUSIVE"),
    ),
    Leak(
        "packets that a guest with two legs hands on by its scheduler",
        guest(
            "dual",
            "tc qdisc add dev eth0 clsact; tc filter add dev eth0 ingress protocol ip u32 match ip dport 3389 0xffff "
            "action mirred egress redirect dev eth1",
        ),
        guest("dual", "tc qdisc del dev eth0 clsact"),
        evidence=seen("forwards", "dual", "INCONCLUSIVE"),
    ),
    Leak(
        "a relay on a guest with two legs",
        guest(
            "dual",
            "systemd-run --quiet --unit=relay --socket-property=ListenStream=10.61.1.3:7777 "
            "/lib/systemd/systemd-socket-proxyd 10.61.4.2:22",
        ),
        guest("dual", "systemctl stop relay.socket; systemctl reset-failed 'relay.*' || :"),
        evidence=seen("undeclared-service", "dual", "INCONCLUSIVE"),
        wires=BOTH,
    ),
    Leak(
        "a relay for datagrams, at a port that Linux gives to clients",
        guest(
            "dual",
            f"systemd-run --quiet --unit=relay python3 -c {shlex.quote(passing.DATAGRAMS)} 40000 10.61.4.2 9; sleep 1",
        ),
        guest("dual", "systemctl stop relay; systemctl reset-failed 'relay.*' || :"),
        evidence=seen("undeclared-service", "dual", "INCONCLUSIVE"),
        wires=BOTH,
    ),
    Leak(
        "a program on a guest with two legs that passes packets on",
        passing_packets("dual", "eth0", "eth1", to=("ben", "green")),
        guest("dual", "systemctl stop passing; systemctl reset-failed passing || :"),
        fails=flows(trick="relay", source=("ann", "fw"), target="ben", target_device="eth2"),
        wires=BOTH,
    ),
    # --- guests that cannot be believed ---
    Leak(
        "a guest that stands still",
        order("ann", "stop"),
        order("ann", "cont"),
        unsure=either(flows(source="ann"), flows(target="ann"), _THROUGH_ANN),
        evidence=seen("not-running", "ann", "INCONCLUSIVE"),
        often=True,
    ),
    Leak(
        "a machine whose process was killed",
        killed,
        lambda lab: lab.labctl.run("up", lab.folder),
        unsure=either(flows(source="ann"), flows(target="ann"), _THROUGH_ANN),
        evidence=seen("not-running", "ann", "INCONCLUSIVE"),
    ),
    Leak(
        "a guest without Python",
        guest("ann", f"{NOBODY_WAITS}; mv /usr/bin/python3 /usr/bin/python3.true"),
        TRUE_PYTHON,
        unsure=either(
            both(flows(source="ann"), heard),  # all else a shell asks as well
            both(flows(target="ann"), blind),
            flows(target="ann", protocol="tcp", port=8000, expected="deny"),
            _THROUGH_ANN,
        ),
    ),
    Leak(
        "a guest that claims silence",
        false_python('sed s/\\"answered\\"/\\"silence\\"/g'),
        TRUE_PYTHON,
        fails=both(flows(source="ann", expected="pass"), probe),
        unsure=both(either(flows(source="ann", expected="deny"), _OF_RULES_TO_ANN), probe),
        often=True,
    ),
    Leak(
        "a guest that claims answers",
        false_python('sed -E "s/\\"(silence|no-route|prohibited|refused)\\"/\\"answered\\"/g"'),
        TRUE_PYTHON,
        # an answer of the TFTP server is no leak: it shows no folder
        fails=but(both(flows(source="ann", expected="deny"), probe), flows(protocol="udp", port=69)),
    ),
    Leak(
        "a guest that speaks for others",
        false_python('sed s/\\"results\\":./\\&[0,\\"answered\\",\\"\\",1,\\"\\"],/g'),
        TRUE_PYTHON,
        unsure=either(flows(source="ann"), both(flows(target="ann"), heard), _OF_RULES_TO_ANN, _THROUGH_ANN),
    ),
)
