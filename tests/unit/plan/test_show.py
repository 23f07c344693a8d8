"""Plans as JSON and as pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from labctl.errors import StateError
from labctl.plan.graph import dot, mermaid
from labctl.plan.model import LabPlan
from labctl.plan.show import from_json, to_json
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit

HOSTILE = 'x"]; click "a" --> <script>alert(1)</script> \\n \\ "'
TEXT = """
    networks:
      a: {subnet: 10.1.0.0/24, subnet6: "fd00:a::/64", peers: false}
      b: {subnet: 10.2.0.0/24, egress: nat}
      wire: {}
    machines:
      m:
        networks: {a: auto, wire: {promiscuous: true}}
        hosts: {10.9.9.9: [x, y.example.test]}
        users:
          student:
            password: secret
            groups: [adm]
            sudo: true
            keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBNl9ah1nDL3jFQJFwGmwk1Ew1Lm7EqSbE3n3sVm2C0k x"]
        disks: {data: 1 GB}
        provision: [{shell: "true"}, {file: {target: /etc/x, content: "y"}}, {packages: [curl]}]
      win: {os: windows, image: w, networks: [b], winrm: {username: u}, depends_on: [m]}
      r: {router: true, networks: [a, b]}
    policy:
      - {from: m.a, to: b, ports: [tcp/80-90, icmp]}
      - {from: a, to: win, ports: udp/53, action: reject}
"""


@pytest.fixture
def plan() -> LabPlan:
    return replace(plan_of(TEXT), settings={"qemu": {"list": [1, {"a": None}], "flag": True}})


def through_json(plan: LabPlan) -> Any:
    return json.loads(json.dumps(to_json(plan)))


def test_a_plan_comes_back_equal(plan: LabPlan) -> None:
    assert from_json(through_json(plan)) == plan
    assert repr(from_json(through_json(plan))) == repr(plan)


def test_the_text_is_the_same_each_time(plan: LabPlan) -> None:
    assert json.dumps(to_json(plan)) == json.dumps(to_json(plan))
    assert list(to_json(plan))[:3] == ["lab", "instance", "lab_key"]


def test_another_version_and_a_damaged_plan_are_told_apart(plan: LabPlan) -> None:
    with pytest.raises(StateError, match="this plan has version 99"):
        from_json({**through_json(plan), "version": 99})
    broken = through_json(plan)
    del broken["machines"][0]["interfaces"][0]["mac"]
    with pytest.raises(StateError, match="the plan is damaged"):
        from_json(broken)
    broken = through_json(plan)
    broken["networks"][0]["subnet"] = "10.0.0.0/99"
    with pytest.raises(StateError, match="the plan is damaged"):
        from_json(broken)


def test_pictures_show_networks_machines_seats_and_rules(plan: LabPlan) -> None:
    for picture in (mermaid(plan), dot(plan)):
        for text in ("10.1.0.0/24", "no peers", "egress nat", "bare", "r (router)", "promiscuous", "tcp/80-90, icmp"):
            assert text in picture
        assert "reject udp/53" in picture
    assert '  machine_m -.->|"tcp/80-90, icmp"| network_b' in mermaid(plan).splitlines()


def test_hostile_texts_stay_texts(plan: LabPlan) -> None:
    hostile = replace(plan, lab=HOSTILE, machines=tuple(replace(m, image=HOSTILE) for m in plan.machines))
    picture = mermaid(hostile)
    assert "<script>" not in picture
    assert all(line.count('"') == 2 for line in picture.splitlines()[1:])
    assert "click #34;" in picture
    for line in dot(hostile).splitlines():
        assert line.replace('\\"', "").count('"') % 2 == 0
    assert '\\"]; click' in dot(hostile)


def test_names_that_differ_only_in_signs_are_different_nodes(plan: LabPlan) -> None:
    machines = (replace(plan.machines[0], name="a-b"), replace(plan.machines[0], name="a_b"))
    names = [line.split("[")[0] for line in mermaid(replace(plan, machines=machines)).splitlines() if "[" in line]
    assert len(set(names)) == len(names)
