"""Labs that labctl has rendered, in a place where VirtualBox runs."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.plan.build import build
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.base import BootImage, ObservedNic
from labctl.providers.vagrant import virtualbox_observation as observation
from labctl.providers.vagrant.render import render_virtualbox
from labctl.providers.vagrant.vboxmanage import VBoxManage
from labctl.providers.vagrant.virtualbox_model import Details
from labctl.spec.load import load
from tests.virtualbox.harness import VirtualBoxHost

TWO_MACHINES = """\
version: 1
name: two
defaults: {image: debian-12, memory: 64 MiB}
networks:
  lan: {subnet: 10.99.0.0/24, subnet6: "fd00:99::/64"}
  tap:
machines:
  server:
    memory: 72 MiB
    cpus: 2
    networks: {lan: 10.99.0.10}
    provision:
      - file: {content: "it's \\"here\\"\\n", target: /etc/motd}
      - script: {source: setup.sh, args: ["$(id)"]}
  sensor:
    networks: [lan, {network: tap, promiscuous: true}]
"""


@dataclass(frozen=True)
class Lab:
    """A lab and where it runs. files: what labctl rendered, name to text."""

    host: VirtualBoxHost
    plan: LabPlan
    files: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where the Vagrantfile is."""
        return self.host.home / "lab"

    @property
    def manage(self) -> VBoxManage:
        return VBoxManage(self.host.runner(self.host.home / "commands.log"))

    def vagrant(self, *arguments: str, code: int | None = 0) -> str:
        return self.host.run("vagrant", *arguments, cwd=self.folder, code=code)

    def machine(self, name: str) -> MachinePlan:
        return self.plan.machine(name)

    def uuid(self, name: str) -> str:
        found = self.manage.find(f"labctl.{self.plan.lab}.{self.plan.instance}.{name}")
        assert found is not None, self.manage.machines()
        return found.uuid

    def details(self, name: str) -> Details:
        return self.manage.details(self.uuid(name))

    def nics(self, name: str) -> tuple[ObservedNic, ...]:
        return observation.nics(self.plan, self.machine(name), self.details(name))

    def drift(self, name: str) -> tuple[str, ...]:
        return observation.drift(self.machine(name), self.details(name))

    def told(self, name: str) -> list[dict[str, Any]]:
        """What Vagrant asked of the guest, in order."""
        return [json.loads(line) for line in (self.host.guest_notes / f"{name}.jsonl").read_text().splitlines()]

    def uploaded(self, name: str) -> list[str]:
        """The contents of the files that the guest got, in order."""
        notes = [note for note in self.told(name) if note["verb"] == "upload" and note["content"] is not None]
        return [base64.b64decode(note["content"]).decode() for note in notes]


def rendered(host: VirtualBoxHost, image: BootImage, spec: str, **brought: str) -> Lab:
    """A lab's files in their folder, as ``labctl render`` writes them, with one box for all machines.

    brought: name (``_`` for ``.``) to text of files that the lab brings along.
    """
    folder = host.home / "lab"
    folder.mkdir()
    (folder / "lab.yaml").write_text(spec)
    for name, text in brought.items():
        (folder / name.replace("_", ".")).write_text(text)
    plan = build(load(folder / "lab.yaml"), provider="virtualbox")
    files = dict(render_virtualbox(plan, {machine.name: image for machine in plan.machines}))
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Lab(host, plan, files)
