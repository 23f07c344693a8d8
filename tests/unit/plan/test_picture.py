"""The topology as a picture: everything is in it, and nothing lies on anything else."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.plan.picture import BAR_HEIGHT, BOX_HEIGHT, BOX_WIDTH, Picture, Point, lay_out
from labctl.spec.load import load
from tests.conftest import REPOSITORY
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit

LABS = [*sorted(REPOSITORY.glob("tests/topologies/*.yaml")), *sorted(REPOSITORY.glob("labs/*/lab.yaml"))]


def hits(picture: Picture, stroke: tuple[Point, ...]) -> set[str]:
    """The boxes that a stroke of straight parts runs through, edges aside."""
    found = set()
    for (x1, y1), (x2, y2) in itertools.pairwise(stroke):
        for box in picture.boxes:
            apart = (
                max(x1, x2) <= box.x
                or min(x1, x2) >= box.x + BOX_WIDTH
                or max(y1, y2) <= box.y
                or min(y1, y2) >= box.y + BOX_HEIGHT
            )
            if not apart:
                found.add(box.name)
    return found


@pytest.mark.parametrize("file", LABS, ids=lambda path: path.stem if path.stem != "lab" else path.parent.name)
def test_everything_of_a_lab_has_a_place_of_its_own(file: Path) -> None:
    plan = build(load(file))
    picture = lay_out(plan)
    assert picture == lay_out(plan)
    assert {bar.name for bar in picture.bars} == {network.name for network in plan.networks}
    assert {box.name for box in picture.boxes} == {machine.name for machine in plan.machines}
    for one, other in itertools.combinations(picture.boxes, 2):
        assert abs(one.x - other.x) >= BOX_WIDTH or abs(one.y - other.y) >= BOX_HEIGHT, (one, other)
    for box, bar in itertools.product(picture.boxes, picture.bars):
        assert box.y >= bar.y + BAR_HEIGHT or box.y + BOX_HEIGHT <= bar.y, (box, bar)
    for box in picture.boxes:
        assert 0 <= box.x <= picture.width - BOX_WIDTH
        assert 0 <= box.y <= picture.height - BOX_HEIGHT
    for bar, below in itertools.pairwise(picture.bars):
        assert below.y > bar.y + BAR_HEIGHT


@pytest.mark.parametrize("file", LABS, ids=lambda path: path.stem if path.stem != "lab" else path.parent.name)
def test_no_wire_and_no_rule_runs_through_a_machine(file: Path) -> None:
    plan = build(load(file))
    picture = lay_out(plan)
    for wire in picture.wires:
        assert not hits(picture, wire.points), wire
    for lane in picture.lanes:
        for stroke in (*lane.tails, *lane.heads, ((lane.x, lane.top), (lane.x, lane.bottom))):
            assert not hits(picture, stroke), (lane, stroke)


def seats(plan: LabPlan) -> int:
    return sum(len({interface.network for interface in machine.interfaces}) for machine in plan.machines)


def test_wires_end_on_the_bars_of_their_networks_and_rules_at_their_ends() -> None:
    plan = plan_of(
        """
        networks: {out: {subnet: 10.1.0.0/24}, lan: {subnet: 10.2.0.0/24}}
        machines: {fw: {router: true, networks: [out, lan]}, web: {count: 8, networks: [lan]}, odd: {networks: []}}
        policy:
          - {from: out, to: web, ports: [tcp/80]}
          - {from: lan, to: out, ports: [tcp/22], action: reject}
        """
    )
    picture = lay_out(plan)
    bars = {bar.name: bar for bar in picture.bars}
    assert len(picture.wires) == seats(plan) == 10
    edges = {edge for bar in picture.bars for edge in (bar.y, bar.y + BAR_HEIGHT)}
    assert {wire.points[-1][1] for wire in picture.wires} <= edges
    to_web, to_out = picture.lanes
    assert [(lane.number, lane.rejected) for lane in picture.lanes] == [(1, False), (2, True)]
    assert len(to_web.heads) == 8
    feet = {(box.y + BOX_HEIGHT) for box in picture.boxes if box.name.startswith("web")}
    assert {stroke[-1][1] for stroke in to_web.heads} == feet
    assert to_out.heads[0][-1][1] == bars["out"].y + BAR_HEIGHT
