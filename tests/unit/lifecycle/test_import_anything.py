"""Random descriptions of every kind, made of nasty parts: each becomes a lab that labctl takes, always the same."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from labctl.errors import UsageError
from labctl.lifecycle.foreign import containerlab, kypo, vagrant
from labctl.lifecycle.foreign.draft import Draft
from labctl.lifecycle.foreign.settle import settle
from labctl.lifecycle.foreign.vagrant_provision import Provisioning
from labctl.lifecycle.foreign.written import written
from labctl.plan.build import build
from labctl.spec.load import load

pytestmark = pytest.mark.unit

NAMES = ["a", "A", "a_1", "a-1", "host", "ü", "сервер", "9", "x" * 80, "a: b\n- c", "", "localhost", "lan", "router"]
ADDRESSES = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.2",
    "10.0.0.255",
    "10.0.0.0",
    "10.1.0.1",
    "192.168.7.1",
    "192.168.7.2",
    "fd00::1",
    "fe80::1",
    "fd00::1%eth0",
    "127.0.0.1",
    "010.0.0.1",
    "10.0.0.1/24",
    "nonsense",
    "",
    None,
    7,
    [],
]
SUBNETS = [
    "10.0.0.0/24",
    "10.0.0.0/16",
    "10.0.0.0/30",
    "10.0.0.0/8",
    "192.168.7.0/30",
    "10.0.0.1/24",
    "0.0.0.0/0",
    "fd00::/64",
    "fd00::/32",
    "224.0.0.0/24",
    "x",
    None,
    8,
]
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2,
    1.5,
    float("inf"),
    "",
    "yes",
    "2048",
    "4GB",
    "512mb",
    "x\0y",
    [],
    {},
    [[]],
    {"a": 1},
]
COMMANDS = [
    "ip addr add 10.0.0.1/24 dev eth1",
    "ip a add fd00::1/64 dev eth2",
    "ip addr add 1.2.3.4/99 dev eth1",
    "x'",
    3,
]


class Chance(random.Random):
    """Parts of descriptions."""

    def some(self, pool: list[Any], most: int) -> list[Any]:
        return [self.choice(pool) for _ in range(self.randrange(most + 1))]

    def maybe(self, *keys: str) -> dict[str, Any]:
        return {key: self.choice(VALUES) for key in keys if self.random() < 0.3}


def kypo_topology(chance: Chance) -> Mapping[str, Any]:
    def node() -> dict[str, Any]:
        box = chance.choice(
            [{"image": chance.choice(NAMES), "mgmt_protocol": chance.choice(["SSH", "WINRM"])}, "debian-12"]
        )
        flavor = chance.choice(["standard.small", "x.0x0", "x.2x4", *NAMES])
        return {"name": chance.choice(NAMES), "base_box": box, "flavor": flavor, **chance.maybe("hidden", "extra")}

    def mapping(end: str) -> dict[str, Any]:
        return {end: chance.choice(NAMES), "network": chance.choice(NAMES), "ip": chance.choice(ADDRESSES)}

    return {
        "hosts": [node() for _ in range(chance.randrange(1, 8))],
        "routers": [node() for _ in range(chance.randrange(4))],
        "networks": [
            {"name": chance.choice(NAMES), "cidr": chance.choice(SUBNETS)} for _ in range(chance.randrange(8))
        ],
        "net_mappings": [mapping("host") for _ in range(chance.randrange(25))],
        "router_mappings": [mapping("router") for _ in range(chance.randrange(12))],
        "groups": [{"name": chance.choice(NAMES), "nodes": chance.some(NAMES, 4)}, *chance.some(VALUES, 2)],
        **chance.maybe("name", "wan", "vpn"),
    }


def containerlab_topology(chance: Chance) -> Mapping[str, Any]:
    def settings() -> dict[str, Any]:
        kind = chance.choice(["linux", "bridge", "ovs-bridge", "host", "frr", "nokia_srlinux", *NAMES])
        return {
            "kind": kind,
            "exec": chance.some(COMMANDS, 3),
            **chance.maybe("image", "memory", "cpu", "group", "env"),
        }

    def link() -> Any:
        ends = [f"{chance.choice(NAMES)}:eth{chance.randrange(4)}" for _ in range(chance.randrange(4))]
        long = [{"node": chance.choice(NAMES), "interface": chance.choice(["eth1", "²", ""])}, *chance.some(VALUES, 1)]
        return chance.choice([{"endpoints": ends}, {"endpoints": long}, {"endpoint": long[0]}, *VALUES])

    nodes = {name: chance.choice([settings(), None]) for name in chance.some(NAMES, 10)}
    parts = {"kinds": {"linux": settings()}, "groups": {"a": settings()}, "defaults": settings()}
    links = [link() for _ in range(chance.randrange(40))]
    return {"topology": {"nodes": nodes, "links": links, **{k: v for k, v in parts.items() if chance.random() < 0.4}}}


def vagrant_machines(chance: Chance) -> Mapping[str, Any]:
    def network() -> list[Any]:
        options = {
            "ip": chance.choice(ADDRESSES),
            **chance.maybe("netmask", "mac", "virtualbox__intnet", "auto_config"),
        }
        options |= {k: chance.choice(NAMES) for k in ("libvirt__network_name", "id", "type") if chance.random() < 0.2}
        options |= {k: chance.randrange(3) for k in ("libvirt__tunnel_port", "host", "guest") if chance.random() < 0.2}
        return [chance.choice(["private_network", "private_network", "public_network", "forwarded_port", "x"]), options]

    def provisioner() -> dict[str, Any]:
        config = chance.maybe("inline", "path", "args", "env", "privileged", "destination", "source", "reboot")
        config |= {"inline": chance.choice(["echo x\n", "\0", "#!/bin/bash\n\n", 5])} if chance.random() < 0.5 else {}
        return {
            "type": chance.choice(["shell", "file", "ansible"]),
            "run": chance.choice(["always", None]),
            "config": config,
        }

    def machine() -> dict[str, Any]:
        words = ["modifyvm", "createhd", "--memory", "64", "--size", "10", "--nicpromisc2", "allow-all", "--cpus"]
        settings = {
            "customizations": [["pre-boot", chance.some(words, 8)]],
            **chance.maybe("memory", "cpus", "gui", "vmx"),
        }
        settings["disks"] = [chance.maybe("device", "size")]
        return {
            "name": chance.choice(NAMES),
            "hostname": chance.choice([*NAMES, "a.example.test", None]),
            "box": chance.choice(["debian/bookworm64", "kali", *NAMES]),
            "settings": settings,
            "networks": [network() for _ in range(chance.randrange(20))],
            "provisioners": [provisioner() for _ in range(chance.randrange(5))],
            "synced_folders": [chance.maybe("hostpath", "guestpath", "disabled")],
            "disks": [{"type": "disk", **chance.maybe("name", "size", "primary")}],
            **chance.maybe("communicator", "guest", "autostart"),
        }

    return {"machines": [machine() for _ in range(chance.randrange(1, 8))]}


def fill(kind: str, draft: Draft, data: Mapping[str, Any], folder: Path) -> None:
    if kind == "kypo":
        kypo.fill(draft, data)
    elif kind == "containerlab":
        containerlab.fill(draft, data)
    else:
        vagrant.fill(draft, data, Provisioning(draft, folder))


MAKERS = {"kypo": kypo_topology, "containerlab": containerlab_topology, "vagrant": vagrant_machines}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", MAKERS)
def test_a_random_description_becomes_a_lab_that_can_be_planned(kind: str, seed: int, tmp_path: Path) -> None:
    data = MAKERS[kind](Chance(seed))
    texts = []
    for _ in range(2):
        draft = Draft(str(data.get("name") or "lab"), "test")
        try:
            fill(kind, draft, data, tmp_path)
        except UsageError as error:
            assert "no nodes that are machines" in error.brief, json.dumps(data)
            return
        settle(draft)
        texts.append(written(draft))
    assert texts[0] == texts[1]
    (tmp_path / "lab.yaml").write_text(texts[0], encoding="utf-8")
    spec = load(tmp_path / "lab.yaml")
    assert len(spec.machines) == len(draft.machines)
    build(spec)
