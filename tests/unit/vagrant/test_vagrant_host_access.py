"""No network of a lab is one that this computer is on: the spec language has no way to ask for that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.plan.build import build
from labctl.providers.vagrant import BACKENDS
from labctl.spec.load import load

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
LABS = [*sorted((ROOT / "labs").glob("*/lab.yaml")), *sorted((ROOT / "tests/golden/vagrant").glob("*/lab.yaml"))]
GOLDENS = sorted((ROOT / "tests/golden/vagrant").rglob("Vagrantfile"))

# What joins a network of a Vagrantfile to this computer or to its LAN, provider by provider.
OPEN = re.compile(
    r"hostonly|host-only|public_network|bridged|"
    r"'private_network'(?!.*(?:virtualbox__intnet: |libvirt__forward_mode: 'veryisolated'|bridge: switch$))|"
    r"connectionType'\] = '(?!pvn')",
    re.IGNORECASE,
)


def rendered() -> Iterator[tuple[str, str, str]]:
    """Every shipped and golden lab on every engine that can hold it, sealed and not: lab, engine, Vagrantfile."""
    for path in LABS:
        for backend in BACKENDS:
            plan = build(load(path), provider=backend.name)
            for sealed in (False, True):
                try:
                    yield str(path), backend.name, backend.render(replace(plan, seal=sealed), {})["Vagrantfile"]
                except UsageError:
                    continue


def test_no_vagrantfile_has_a_network_with_this_computer_on_it() -> None:
    found = list(rendered())
    assert {engine for _, engine, _ in found} == {backend.name for backend in BACKENDS}
    assert {lab for lab, _, _ in found} == {str(path) for path in LABS}
    found += [(str(path.parent), "reviewed", path.read_text(encoding="utf-8")) for path in GOLDENS]
    for lab, engine, text in found:
        code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        assert [line for line in code if OPEN.search(line)] == [], (lab, engine)


@pytest.mark.parametrize(
    "line",
    [
        "    m.vm.network 'private_network', ip: '192.168.56.10'",
        "    m.vm.network 'private_network', type: 'dhcp', adapter: 2",
        "    m.vm.network 'public_network'",
        "    vb.customize ['modifyvm', :id, '--nic2', 'hostonly']",
        "    m.vm.network 'private_network', libvirt__network_name: 'x', libvirt__forward_mode: 'none'",
        "    vw.vmx['ethernet1.connectionType'] = 'hostonly'",
        "    vw.vmx['ethernet1.connectionType'] = 'custom'",
    ],
)
def test_the_check_sees_one(line: str) -> None:
    assert OPEN.search(line)


def test_a_spec_cannot_ask_for_one() -> None:
    """With a way to ask, VirtualBox's rule on ranges of host-only networks has to be checked in the spec as well."""
    network = json.loads((ROOT / "schemas/lab.schema.json").read_text(encoding="utf-8"))["$defs"]["network"]
    assert network["properties"]["egress"]["enum"] == ["none", "nat"]
    assert not [key for key in network["properties"] if "host" in key]
