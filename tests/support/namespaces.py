"""A plan as network namespaces of this host: one per machine, wires as bridges in one more, nothing leads outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from labctl.plan.firewall import render_nft
from labctl.plan.guest_network import network_script
from labctl.plan.model import Flow, LabPlan, MachinePlan

PROBER = Path(__file__).with_name("prober.py")


def run(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Lab:
    """Where the machines of a plan are."""

    plan: LabPlan
    folder: Path

    def namespace(self, machine: str) -> str:
        return f"labctl-{os.getpid()}-{machine}"

    def inside(self, machine: str, *argv: str, stdin: str = "") -> str:
        return run("ip", "netns", "exec", self.namespace(machine), *argv, stdin=stdin)

    def script(self, machine: MachinePlan) -> Path:
        """The guest's own script, with the paths of a guest's files replaced by a folder of this test."""
        home = self.folder / machine.name
        home.mkdir(exist_ok=True)
        text = network_script(self.plan, machine)
        path = home / "network.sh"
        path.write_text(text.replace("/etc/labctl", str(home)).replace("/run/labctl", f"{home}/run"))
        if machine.router:
            (home / "router.nft").write_text(render_nft(machine))
        return path

    def ask(self, flows: Sequence[Flow]) -> dict[Flow, str]:
        """Send every flow's packet with listeners behind all addresses, machine by machine, and say what was seen."""
        doors: dict[str, dict[tuple[str, str, int], None]] = {}
        for flow in flows:
            if flow.protocol != "icmp":
                doors.setdefault(flow.target, {})[flow.protocol, str(flow.address), flow.port] = None
        seen: dict[Flow, str] = {}
        with ExitStack() as stack:
            for machine, wanted in doors.items():
                stack.enter_context(self._serving(machine, list(wanted)))
            asking = {flow.source: [f for f in flows if f.source == flow.source] for flow in flows}
            running = {name: self._start(name, "ask", _questions(mine)) for name, mine in asking.items()}
            for name, process in running.items():
                out, error = process.communicate(timeout=60)
                assert process.returncode == 0, error
                seen.update(zip(asking[name], json.loads(out), strict=True))
        return seen

    def delivered(self, sender: str, source: str, target: str, address: str) -> bool:
        """Whether a datagram that names ``source`` as its source gets from one machine to an address of another."""
        catching = self._start(target, "catch", (address, 4000))
        assert catching.stdout is not None and catching.stdout.readline() == "ready\n"
        _, error = self._start(sender, "forge", (source, address, 4000)).communicate(timeout=10)
        assert not error
        return catching.communicate(timeout=10)[0] == "caught\n"

    @contextmanager
    def _serving(self, machine: str, doors: list[tuple[str, str, int]]) -> Iterator[None]:
        process = self._start(machine, "serve", doors)
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
            process.communicate()

    def _start(self, machine: str, verb: str, question: object) -> subprocess.Popen[str]:
        """A prober with its question asked; its input stays open."""
        argv = ["ip", "netns", "exec", self.namespace(machine), sys.executable, "-I", "-S", str(PROBER), verb]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        return process


def _questions(flows: Sequence[Flow]) -> list[tuple[object, ...]]:
    return [(f.source_device, f.family, f.protocol, f.address, f.port) for f in flows]


@contextmanager
def built(plan: LabPlan, folder: Path) -> Iterator[Lab]:
    """The plan's machines with NICs under wrong names; the guests' scripts have run in them. Needs root."""
    lab = Lab(plan, folder)
    names = [lab.namespace("switch-"), *(lab.namespace(machine.name) for machine in plan.machines)]
    with ExitStack() as stack:
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
        run("ip", "netns", "exec", names[0], "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        run("ip", "-netns", names[0], "-batch", "-", stdin="\n".join(_wires(lab)))
        for machine in plan.machines:
            lab.inside(machine.name, "ip", "link", "set", "lo", "up")
            lab.inside(machine.name, "sh", str(lab.script(machine)))
        yield lab


def _wires(lab: Lab) -> Iterator[str]:
    for network in lab.plan.networks:
        yield f"link add br{network.key} type bridge mcast_snooping 0 forward_delay 0"
        yield f"link set br{network.key} up"
    keys = {network.name: network.key for network in lab.plan.networks}
    port = 0
    for number, machine in enumerate(lab.plan.machines):
        nic = f"address {machine.management_mac} netns {lab.namespace(machine.name)} name net0"
        yield f"link add m{number} type veth peer {nic}"
        yield f"link set m{number} up"
        # in reverse, so that the guests' kernel names are not the planned ones
        for place, interface in enumerate(reversed(machine.interfaces)):
            port += 1
            nic = f"address {interface.mac} netns {lab.namespace(machine.name)} name eth{place}"
            yield f"link add p{port} type veth peer {nic}"
            isolated = " isolated on" if interface.isolated else ""
            yield f"link set p{port} master br{keys[interface.network]} up"
            if isolated:
                yield f"link set p{port} type bridge_slave{isolated}"
