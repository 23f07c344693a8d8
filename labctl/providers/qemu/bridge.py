"""Wires as a switch: kernel bridges and taps in a network namespace of the instance's own.

Ports do not learn: each has the planned MAC of its NIC and nothing else, so a guest gets others' unicast only as a
declared sensor and cannot take another's place by forging its address. The host has no interface, address or route
there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from labctl.errors import HostError, LabctlError
from labctl.host import netns
from labctl.host.files import write_atomic, write_json
from labctl.host.netns import Action, Namespace
from labctl.host.processes import ProcessId, marked
from labctl.host.runner import CommandError, Runner
from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan, NetworkPlan
from labctl.providers.qemu import bridge_audit, exits
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.options import option
from labctl.providers.qemu.wires import Abilities, Attachment, Opening, Wires, bridge_of, port_of

_UNICAST = "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00"
_SETTLE: tuple[Action, ...] = (
    # devices made later inherit "default": the host's side of a wire speaks no IPv6 ...
    ("sysctl", ("net/ipv6/conf/all/disable_ipv6", "1")),
    ("sysctl", ("net/ipv6/conf/default/disable_ipv6", "1")),
    # ... and bridged frames are nobody's business but the bridge's
    ("sysctl", ("net/bridge/bridge-nf-call-iptables", "0")),
    ("sysctl", ("net/bridge/bridge-nf-call-ip6tables", "0")),
    ("sysctl", ("net/bridge/bridge-nf-call-arptables", "0")),
)


class BridgeWires(Wires):
    """One bridge per network, one tap per NIC; a tap vanishes with the QEMU process that holds it."""

    kind = "bridge"
    abilities = Abilities(promiscuous=True, isolated_ports=True, egress=True)

    def __init__(self, layout: Layout, runner: Runner) -> None:
        super().__init__(layout, runner)
        self._lock = threading.Lock()

    def prepare(self, plan: LabPlan) -> None:
        namespace = self._namespace() or self._create()
        links = self._links(namespace)
        there = {link["ifname"] for link in links if _kind(link) == "bridge"}
        commands = bridge_commands(plan.networks, there) + strangers_commands(plan, links)
        self._run(namespace, [("run", (["ip", "-batch", "-"], commands))])
        self._open(namespace, plan)

    def attach(self, plan: LabPlan, machine: MachinePlan) -> Attachment:
        namespace = self._namespace()
        if namespace is None:
            raise HostError("the wires of this lab are gone", hint="labctl up makes them again.")
        ports = [(port_of(machine.name, i.device), i) for i in machine.interfaces]
        if not ports:
            return Attachment({})
        link, fdb = port_commands(plan, ports)
        actions: list[Action] = [("tap", name) for name, _ in ports]
        actions += [("run", (["ip", "-batch", "-"], link)), ("run", (["bridge", "-batch", "-"], fdb))]
        with self._lock:
            _, fds = netns_run(namespace, actions, self._runner)
            self._mirror(namespace, plan)
        netdevs = {
            interface.device: option("tap", id=f"net-{interface.device}", fd=fd, vhost="off")
            for (_, interface), fd in zip(ports, fds, strict=True)
        }
        return Attachment(netdevs, tuple(fds))

    def ports(self, plan: LabPlan) -> Mapping[str, str]:
        namespace = self._namespace()
        if namespace is None:
            return {}
        links = self._links(namespace)
        networks = {bridge_of(network): network.name for network in plan.networks}
        return {link["ifname"]: networks.get(link["master"], link["master"]) for link in links if "master" in link}

    def openings(self, plan: LabPlan) -> tuple[Opening, ...]:
        namespace = self._namespace()
        if namespace is None:
            return ()
        argv = [*namespace.enter(), "sh", "-c", bridge_audit.QUESTIONS]
        try:
            kernel = bridge_audit.Kernel.of(self._runner.run(argv, changes=False).text)
        except (ValueError, KeyError, TypeError) as error:
            raise HostError("the kernel's description of the wires cannot be read", details=str(error)) from error
        return bridge_audit.openings(plan, kernel)

    def destroy(self) -> None:
        for _, process, _ in exits.processes(self._layout):
            process.stop(grace=2)
        for holder in self._holders():
            holder.stop(grace=1)
        self._note.unlink(missing_ok=True)

    def leftovers(self) -> tuple[str, ...]:
        return (
            *(f"network namespace of process {holder.pid}" for holder in self._holders()),
            *(f"way out, process {process.pid}" for _, process, _ in exits.processes(self._layout)),
        )

    def _open(self, namespace: Namespace, plan: LabPlan) -> None:
        """Start the ways out of the plan that are not there, end those that are not its own. The filter comes first."""
        wanted = {network.key: network for network in exits.with_exit(plan)}
        plugged = {link["ifname"] for link in self._links(namespace)} if wanted else set()
        running = set()
        for key, process, argv in exits.processes(self._layout):
            network = wanted.get(key)
            if network and exits.same(argv, network) and exits.port_of_exit(network) in plugged:
                running.add(key)
            else:
                process.stop(grace=2)
        if wanted:
            rules = exits.filter_rules(wanted.values(), exits.host_addresses())
            self._run(namespace, [("run", (["nft", "-f", "-"], rules))])
        for key in sorted(wanted.keys() - running):
            link, port = exits.port_commands(wanted[key], bridge_of(wanted[key]))
            actions: list[Action] = [("tap", exits.port_of_exit(wanted[key]))]
            actions += [("run", (["ip", "-batch", "-"], link)), ("run", (["bridge", "-batch", "-"], port))]
            _, fds = netns_run(namespace, actions, self._runner)
            try:
                exits.process(self._layout, key).start(exits.arguments(wanted[key], fds[0]), self._runner, fds=fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _mirror(self, namespace: Namespace, plan: LabPlan) -> None:
        """Give sensors a copy of the frames of the ports that exist now."""
        if not any(i.promiscuous for m in plan.machines for i in m.interfaces):
            return
        existing = {link["ifname"] for link in self._links(namespace)}
        self._run(namespace, [("run", (["nft", "-f", "-"], mirror_rules(plan, existing)))])

    def _links(self, namespace: Namespace) -> list[dict[str, Any]]:
        argv = [*namespace.enter(), "ip", "-json", "-details", "link", "show"]
        return list(json.loads(self._runner.run(argv, changes=False).stdout or b"[]"))

    def _run(self, namespace: Namespace, actions: Sequence[Action]) -> None:
        netns_run(namespace, actions, self._runner)

    @property
    def _marker(self) -> Path:
        return self._layout.runtime / "wires"

    @property
    def _note(self) -> Path:
        return self._layout.workdir / "namespace.json"

    def _create(self) -> Namespace:
        write_atomic(self._marker, b"")
        namespace = netns.create(self._marker, user=needs_user_namespace(), runner=self._runner)
        write_json(
            self._note, {"pid": namespace.holder.pid, "started": namespace.holder.started, "user": namespace.user}
        )
        self._run(namespace, _SETTLE)
        return namespace

    def _namespace(self) -> Namespace | None:
        """The namespace, from the note; a holder whose note was never written is ended, because it may be half made."""
        try:
            value = json.loads(self._note.read_text(encoding="utf-8"))
            found = Namespace(ProcessId(value["pid"], value["started"]), value["user"])
        except (OSError, ValueError, KeyError):
            self.destroy()
            return None
        return found if found.holder.alive() else None

    def _holders(self) -> Iterator[ProcessId]:
        for process, argv in marked(str(self._marker)):
            if Path(argv[0]).name in ("tail", "unshare") and argv[-1] == str(self._marker):
                yield process


def bridge_commands(networks: Iterable[NetworkPlan], there: set[str]) -> str:
    """Lines for ``ip -batch`` that turn the bridges ``there`` into those of the plan."""
    wanted = {bridge_of(network): network for network in networks}
    lines = [f"link delete dev {name}" for name in sorted(there - set(wanted))]
    for name, network in wanted.items():
        if name not in there:
            # multicast goes to every port, as on a simple switch; the bridge itself takes part in nothing
            lines.append(f"link add name {name} type bridge mcast_snooping 0 stp_state 0")
        lines.append(f"link set dev {name} alias {network.wire} arp off multicast off up")
    return _lines(lines)


def strangers_commands(plan: LabPlan, links: Iterable[Mapping[str, Any]]) -> str:
    """Lines for ``ip -batch`` that unplug what is no port of the plan from its bridges."""
    planned = {port_of(machine.name, interface.device) for machine in plan.machines for interface in machine.interfaces}
    planned |= {exits.port_of_exit(network) for network in exits.with_exit(plan)}
    kept = {bridge_of(network) for network in plan.networks}  # with the other bridges their ports come loose
    return _lines(
        [
            f"link set dev {link['ifname']} down nomaster"
            for link in links
            if link.get("master") in kept and link["ifname"] not in planned
        ]
    )


def port_commands(plan: LabPlan, ports: Sequence[tuple[str, InterfacePlan]]) -> tuple[str, str]:
    """Lines for ``ip -batch`` and ``bridge -batch`` that plug new taps in."""
    link, port = [], []
    for name, interface in ports:
        link.append(f"link set dev {name} master {bridge_of(plan.network(interface.network))} up")
        isolated = "on" if interface.isolated else "off"
        # locked: a frame whose source is not this port's own address is dropped
        port.append(f"link set dev {name} learning off flood off locked on isolated {isolated}")
        port.append(f"fdb replace {interface.mac} dev {name} master static")
    return _lines(link), _lines(port)


def mirror_rules(plan: LabPlan, existing: set[str]) -> str:
    """Input of ``nft -f -``: each port's unicast is copied to the sensors of its network, among the taps that exist.

    Broadcast and multicast reach a sensor as they reach everybody, and so does what is addressed to it.
    """
    chains = []
    for network in plan.networks:
        members = [
            (port_of(machine.name, interface.device), interface)
            for machine in plan.machines
            for interface in machine.interfaces
            if interface.network == network.name
        ]
        members = [member for member in members if member[0] in existing]
        for name, own in members:
            copies = [
                f'    ether saddr {own.mac} {_UNICAST} ether daddr != {i.mac} dup to "{sensor}"'
                for sensor, i in members
                if i.promiscuous and sensor != name
            ]
            if copies:
                hook = f'    type filter hook ingress device "{name}" priority 0; policy accept;'
                chains += [f"  chain {name} {{", hook, *copies, "  }"]
    return _lines(["table netdev labctl", "delete table netdev labctl", "table netdev labctl {", *chains, "}"])


def needs_user_namespace() -> bool:
    """Whether this user is not root and so needs a user namespace around the network's."""
    return os.geteuid() != 0


def netns_run(namespace: Namespace, actions: Sequence[Action], runner: Runner) -> tuple[str, list[int]]:
    """``Namespace.run`` with the error in the words of this module."""
    try:
        return namespace.run(actions, runner=runner)
    except CommandError as error:
        raise HostError("the wires could not be made", details=error.details) from error


def trial(runner: Runner) -> str:
    """Why this host cannot make bridge wires, or ``""``: makes a bridge with a port and a sensor, and removes them."""
    if not sys.platform.startswith("linux"):
        return "they need Linux"
    missing = [name for name in ("ip", "bridge", "nft", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian, Ubuntu: apt install iproute2 nftables util-linux)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened by this user"
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        marker = Path(folder) / "trial"
        marker.touch()
        try:
            namespace = netns.create(marker, user=needs_user_namespace(), runner=runner, passing=True)
        except LabctlError as error:
            return f"{error.brief} ({error.details.strip()})" if error.details else error.brief
        try:
            _, fds = namespace.run(_TRIAL, runner=runner)
        except LabctlError as error:
            return error.details.splitlines()[-1] if error.details else error.brief
        finally:
            namespace.holder.stop(grace=1)
    for fd in fds:
        os.close(fd)
    return ""


_TRIAL: tuple[Action, ...] = (
    *_SETTLE,
    ("tap", "ta"),
    ("tap", "tb"),
    (
        "run",
        (
            ["ip", "-batch", "-"],
            "link add name br0 type bridge mcast_snooping 0 stp_state 0\nlink set dev ta master br0 up\n",
        ),
    ),
    ("run", (["bridge", "-batch", "-"], "link set dev ta learning off flood off locked on isolated on\n")),
    (
        "run",
        (
            ["nft", "-f", "-"],
            'table netdev t {\n chain c {\n type filter hook ingress device "ta" priority 0;\n dup to "tb"\n }\n}\n',
        ),
    ),
)


def _kind(link: Mapping[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
