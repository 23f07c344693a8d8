"""The peer: the same two machines through plain Vagrant and libvirt, beside labctl's own start of two, in one run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.bench.figures import Figures, program, timed
from tests.bench.labs import LABCTL, destroy, warm
from tests.support.libvirt import libvirtd
from tests.support.surroundings import surroundings

_LAB = """\
version: 1
name: peer
defaults: {image: debian-12, memory: 256 MiB}
networks: {lan: {subnet: 10.63.0.0/24}}
machines: {one: {networks: [lan]}, two: {networks: [lan]}}
providers: {libvirt: {driver: qemu}}
"""
OURS, THEIRS = "labctl up, 2 machines", "vagrant up with libvirt, 2 machines"


def measure(figures: Figures, home: Path, runs: int) -> None:
    """Note both, turn by turn, on the same image. Needs root, Vagrant and libvirt (``make setup`` installs them)."""
    if os.geteuid() != 0 or shutil.which("vagrant") is None or shutil.which("libvirtd") is None:
        print("no peer: it takes root, vagrant and libvirtd (make setup)")
        return
    lab, project = home / "lab-peer", home / "vagrant"
    lab.mkdir()
    (lab / "lab.yaml").write_text(_LAB)
    settings = {**os.environ, "VAGRANT_HOME": str(home / "vagrant-home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    box = json.loads(program(*LABCTL, "image", "box", "debian-12", "--provider", "libvirt", "--json")().stdout)
    warm(lab, "--provider", "qemu")
    program(*LABCTL, "render", lab, "--provider", "libvirt", "-o", project)()
    with (
        tempfile.TemporaryDirectory(prefix="labctl-peer-") as name,
        surroundings(Path(name)) as host,
        libvirtd(host, Path(name) / "libvirt"),
    ):
        vagrant = [*host.enter(project), "env", "-C", str(project), "vagrant"]
        program(*vagrant, "box", "add", "--name", "labctl/debian-12", box["path"], env=settings)()
        for _ in range(runs):
            figures.note("peer", THEIRS, timed(program(*vagrant, "up", "--provider=libvirt", env=settings)))
            program(*vagrant, "destroy", "-f", env=settings)()
            figures.note("peer", OURS, timed(program(*LABCTL, "up", lab, "--provider", "qemu")), beside=THEIRS)
            destroy(lab)
