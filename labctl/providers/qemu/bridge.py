"""Wires as a switch: kernel bridges and taps in a network namespace of the instance's own.

Ports do not learn: each has the planned MAC of its NIC and nothing else, so a guest gets others' unicast only as a
declared sensor and cannot take another's place by forging its address. The host has no interface, address or route
there.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from labctl.errors import HostError
from labctl.host import netns
from labctl.host.files import write_atomic, write_json
from labctl.host.netns import Action, Namespace
from labctl.host.processes import ProcessId, marked
from labctl.host.runner import CommandError, Runner
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.qemu import bridge_audit, bridge_trial, exits
from labctl.providers.qemu.bridge_lines import bridge_commands, mirror_rules, port_commands, strangers_commands
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.options import option
from labctl.providers.qemu.wires import Abilities, Attachment, Opening, Wires, bridge_of, port_of

_MOST_TAPS = 250  # as many open files fit into one message


class BridgeWires(Wires):
    """One bridge per network, one tap per NIC; a tap vanishes with the QEMU process that holds it."""

    kind = "bridge"
    abilities = Abilities(promiscuous=True, isolated_ports=True, egress=True)

    def __init__(self, layout: Layout, runner: Runner) -> None:
        super().__init__(layout, runner)
        self._lock = threading.Lock()
        self._awaited: dict[str, MachinePlan] = {}
        self._made: dict[str, list[int]] = {}

    def prepare(self, plan: LabPlan) -> None:
        namespace = self._namespace()
        links = [] if namespace is None else self._links(namespace)
        namespace = namespace or self._create()
        there = {link["ifname"] for link in links if _kind(link) == "bridge"}
        commands = bridge_commands(plan.networks, there) + strangers_commands(plan, links)
        self._run(namespace, [("run", (["ip", "-batch", "-"], commands))])
        self._open(namespace, plan)

    @contextlib.contextmanager
    def starting(self, machines: Sequence[MachinePlan]) -> Iterator[None]:
        with self._lock:
            self._awaited = {machine.name: machine for machine in machines}
        try:
            yield
        finally:
            with self._lock:
                self._awaited = {}
                for fd in (fd for fds in self._made.values() for fd in fds):
                    os.close(fd)
                self._made = {}

    def attach(self, plan: LabPlan, machine: MachinePlan) -> Attachment:
        namespace = self._namespace()
        if namespace is None:
            raise HostError("the wires of this lab are gone", hint="labctl up makes them again.")
        if not machine.interfaces:
            return Attachment({})
        with self._lock:
            if machine.name not in self._made:
                self._make(namespace, plan, machine)
            fds = self._made.pop(machine.name)
        return _attachment(machine, fds)

    @contextlib.contextmanager
    def aside(self, machine: MachinePlan, folder: Path) -> Iterator[Attachment]:
        """Taps again: the state of a NIC on a tap can only be loaded where there is one. They are in no namespace that
        anybody knows."""
        marker = folder / "aside"
        write_atomic(marker, b"", durable=False)
        user = bridge_trial.needs_user_namespace()
        namespace = netns.create(marker, user=user, runner=self._runner, passing=True)
        fds: list[int] = []
        try:
            if machine.interfaces:
                taps: list[Action] = [("tap", f"aside{number}") for number in range(len(machine.interfaces))]
                _, fds = netns_run(namespace, taps, self._runner)
            yield _attachment(machine, fds)
        finally:
            for fd in fds:
                os.close(fd)
            namespace.holder.stop(grace=1)

    def _make(self, namespace: Namespace, plan: LabPlan, machine: MachinePlan) -> None:
        """Make the taps of a machine, and with them those of the machines that start next: the way inside costs more
        than what is done there."""
        self._awaited.pop(machine.name, None)
        group = _first([machine, *self._awaited.values()], _MOST_TAPS)
        try:
            made = self._plug(namespace, plan, group)
        except HostError:
            if len(group) == 1:
                raise
            self._awaited = {}  # whichever of them it was has to say so itself
            made = self._plug(namespace, plan, [machine])
        for name in made:
            self._awaited.pop(name, None)
        self._made |= made

    def _plug(self, namespace: Namespace, plan: LabPlan, machines: Sequence[MachinePlan]) -> dict[str, list[int]]:
        """Make the taps of machines and plug them in; gives each one's, in the order of its NICs."""
        ports = [(port_of(machine.name, i.device), i) for machine in machines for i in machine.interfaces]
        link, fdb = port_commands(plan, ports)
        actions: list[Action] = [("tap", name) for name, _ in ports]
        actions += [("run", (["ip", "-batch", "-"], link)), ("run", (["bridge", "-batch", "-"], fdb))]
        _, fds = netns_run(namespace, actions, self._runner)
        try:
            self._mirror(namespace, plan)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        left = iter(fds)
        return {machine.name: list(islice(left, len(machine.interfaces))) for machine in machines}

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
        script, stdin = bridge_audit.questions(plan)
        try:
            said = self._runner.run([*namespace.enter(), "sh", "-c", script], stdin=stdin, changes=False)
            kernel = bridge_audit.Kernel.of(said.text)
        except (ValueError, KeyError, TypeError) as error:
            raise HostError("the kernel's description of the wires cannot be read", details=str(error)) from error
        return (*bridge_audit.openings(plan, kernel), *exits.openings(self._layout, plan))

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
        write_atomic(self._marker, b"", durable=False)
        try:
            namespace = netns.create(self._marker, user=bridge_trial.needs_user_namespace(), runner=self._runner)
        except HostError:
            bridge_trial.forget()
            raise
        holder = namespace.holder
        note = {"pid": holder.pid, "started": holder.started, "user": namespace.user}
        write_json(self._note, note, durable=False)
        self._run(namespace, bridge_trial.SETTLE)
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


def _attachment(machine: MachinePlan, fds: Sequence[int]) -> Attachment:
    netdevs = {
        interface.device: option("tap", id=f"net-{interface.device}", fd=fd, vhost="off")
        for interface, fd in zip(machine.interfaces, fds, strict=True)
    }
    return Attachment(netdevs, tuple(fds))


def _first(machines: Iterable[MachinePlan], most: int) -> list[MachinePlan]:
    """As many of the machines as have no more NICs than ``most``, and one of them in any case."""
    found: list[MachinePlan] = []
    for machine in machines:
        most -= len(machine.interfaces)
        if found and most < 0:
            break
        found.append(machine)
    return found


def netns_run(namespace: Namespace, actions: Sequence[Action], runner: Runner) -> tuple[str, list[int]]:
    """``Namespace.run`` with the error in the words of this module."""
    try:
        return namespace.run(actions, runner=runner)
    except CommandError as error:
        bridge_trial.forget()
        raise HostError("the wires could not be made", details=error.details) from error


def _kind(link: Mapping[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))
