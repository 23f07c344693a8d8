"""A running lab of real guests in which leaks are planted by hand: on its wires, in QEMU, in its guests."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labctl.host.netns import Namespace
from labctl.host.processes import ProcessId
from labctl.lifecycle import locate
from labctl.providers.qemu import record as records
from labctl.providers.qemu import vm, way_in
from labctl.providers.qemu.layout import Layout
from labctl.providers.qemu.qmp import Monitor, monitor
from labctl.providers.qemu.wires import bridge_of, port_of
from tests.support.command import Labctl

# fw joins red, blue and pens; dual has a leg on green, which no router reaches; on pens only fw may be met.
SPEC = """\
version: 1
name: {name}
provider: qemu
providers: {{qemu: {{wires: {wires}}}}}
defaults: {{image: debian-12, memory: 192 MiB}}
networks:
  red:   {{subnet: 10.61.1.0/28, subnet6: "fd00:61:1::/64"}}
  blue:  {{subnet: 10.61.2.0/28, subnet6: "fd00:61:2::/64"}}
  pens:  {{subnet: 10.61.3.0/28{peers}}}
  green: {{subnet: 10.61.4.0/28}}
machines:
  fw:   {{router: true, networks: {{red: 10.61.1.1, blue: 10.61.2.1, pens: 10.61.3.1}}}}
  ann:  {{networks: {{red: 10.61.1.2, pens: 10.61.3.2}}}}
  dual: {{networks: {{red: 10.61.1.3, green: 10.61.4.1}}}}
  ben:  {{networks: {{blue: 10.61.2.2, pens: 10.61.3.3, green: 10.61.4.2}}}}
policy:
  - {{from: red, to: ben.blue, ports: [tcp/8000-8001]}}
"""
Flow = Mapping[str, Any]  # as the report has it


@dataclass(frozen=True)
class Outcome:
    """What a verification said beside PASS: flows, and findings of the host's side as (kind, machine, words)."""

    code: int
    flows: tuple[Flow, ...]
    findings: tuple[tuple[str, str, str, str], ...]
    seconds: float

    def cells(self, verdict: str) -> frozenset[str]:
        """The flows with this verdict, in words."""
        return frozenset(shown(flow) for flow in self.flows if flow["verdict"] == verdict)

    def wanted(self, chosen: Callable[[Flow], bool]) -> frozenset[str]:
        """The flows that are chosen, in words."""
        return frozenset(shown(flow) for flow in self.flows if chosen(flow))

    def evidence(self) -> frozenset[tuple[str, str, str]]:
        """Verdict, kind and machine of the findings that are no mere notes."""
        return frozenset((verdict, kind, machine) for verdict, kind, machine, _ in self.findings if verdict != "PASS")


def shown(flow: Flow) -> str:
    """A flow in words, as a failed test prints it."""
    ends = f"{flow['source']}.{flow['source_device']} > {flow['target']}.{flow['target_device']} {flow['address']}"
    return f"{ends} {flow['protocol']}/{flow['port']} {flow.get('trick') or ''} {flow['expected']}"


class Lab:
    """A lab that runs, and hands to plant leaks with."""

    def __init__(self, labctl: Labctl, folder: Path) -> None:
        self.labctl, self.folder = labctl, folder
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LABCTL_STATE_DIR", str(labctl.state))
            self.running = locate.find(folder)
            self.layout = Layout.of(self.running.folder.engine)
        self.plan = self.running.plan
        self.stash: dict[str, Any] = {}

    def beside(self, folder: Path) -> Lab:
        """Another lab that runs."""
        return Lab(self.labctl, folder)

    # --- the verifier ---

    def verify(self) -> Outcome:
        """Run ``labctl verify`` and read its report."""
        with self.labctl.start("verify", str(self.folder), "--json") as process:
            out, err = process.communicate(timeout=280)
        assert process.returncode in (0, 3, 4), err.decode()
        report = json.loads(out)
        findings = tuple((f["verdict"], f["kind"], f["machine"], f["details"]) for f in report["host_evidence"])
        assert {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}[report["verdict"]] == process.returncode
        return Outcome(process.returncode, tuple(report["flows"]), findings, report["finished"])

    # --- the host's side ---

    @property
    def holder(self) -> int:
        """The process that holds the namespace of the wires."""
        return int(json.loads((self.layout.workdir / "namespace.json").read_text())["pid"])

    def namespace(self) -> Namespace:
        holder = ProcessId.of(self.holder)
        assert holder is not None
        return Namespace(holder, user=False)

    def wires(self, script: str) -> str:
        """Run a shell script in the namespace of the wires. ``{red}`` is a bridge, ``{ann_red}`` the port of a NIC."""
        names = {network.name: bridge_of(network) for network in self.plan.networks}
        for machine in self.plan.machines:
            for interface in machine.interfaces:
                names[f"{machine.name}_{interface.network}"] = port_of(machine.name, interface.device)
        argv = ["nsenter", f"--target={self.holder}", "--net", "--", "sh", "-euc", script.format(**names)]
        return run(*argv)

    def mac(self, machine: str, network: str) -> str:
        return next(i.mac for i in self.plan.machine(machine).interfaces if i.network == network)

    # --- QEMU ---

    @contextmanager
    def qemu(self, machine: str) -> Iterator[Monitor]:
        with monitor(self.layout.machine(machine).monitor) as session:
            yield session

    def pid(self, machine: str) -> int:
        process = vm.find(self.layout, records.read(self.layout, machine))
        assert process is not None
        return process.pid

    def other_way_in(self, machine: str, **options: Any) -> None:
        """Give a machine another back end on its management NIC than labctl's."""
        record = records.read(self.layout, machine)
        assert record is not None
        management = self.plan.management
        closed = {"restrict": True, "ipv6": False, "net": str(management.subnet), "host": str(management.host)}
        closed |= {"dns": str(management.dns), "dhcpstart": str(management.guest.ip)}
        forward = {"hostfwd": [{"str": f"tcp:127.0.0.1:{record.port}-{management.guest.ip}:22"}]}
        with self.qemu(machine) as session:
            way_in.cut(session)
            session.execute("netdev_add", type="user", id="mgmt", **(closed | forward | options))
            session.execute("netdev_add", type="hubport", id="port-mgmt", hubid=0, netdev="mgmt")

    def own_way_in(self, machine: str) -> None:
        """Give a machine labctl's own back end again."""
        record = records.read(self.layout, machine)
        assert record is not None
        with self.qemu(machine) as session:
            way_in.cut(session)
            way_in.join(session, self.plan.management, record.port)

    # --- the guests ---

    def guest(self, machine: str, script: str) -> str:
        """Run a shell script as root in a guest."""
        argv = ["sh", "-euc", script]
        done = self.running.provider.execute(self.plan, machine, argv, timeout=120)
        assert done.code == 0, f"{machine}: {script}: {done.stderr.decode()}"
        return done.stdout.decode()


def run(*argv: str) -> str:
    """Run a program on this host."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{shlex.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


def bring_up(labctl: Labctl, name: str, wires: str) -> Lab:
    """Start a lab on one kind of wires; hubs cannot keep the members of ``pens`` apart."""
    folder = labctl.home / name
    folder.mkdir()
    peers = ", peers: false" if wires == "bridge" else ""
    (folder / "lab.yaml").write_text(SPEC.format(name=name, wires=wires, peers=peers))
    labctl.run("up", folder)
    return Lab(labctl, folder)
