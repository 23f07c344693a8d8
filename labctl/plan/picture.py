"""Where everything is in a picture of the topology. Pure geometry, in pixels; whoever draws it brings the looks.

Networks are bars across the whole width, one below the other. Machines with one network hang from it, side by side;
routers, and others that sit on several, stand at the left with a wire to each bar. Rules of the policy run at the
right, each in a lane of its own: from one bar to the other, or from and to the row of a machine, under the boxes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from labctl.plan.model import LabPlan, MachinePlan, NetworkPlan
from labctl.spec.model import PolicyRule, RuleEnd

BOX_WIDTH, BOX_HEIGHT, BAR_HEIGHT = 132, 46, 28
_GAP = 20  # between boxes side by side, and between a bar and what hangs from it
_PER_ROW = 6  # boxes hanging from one bar side by side
_LANE = 26  # between two rules at the right
_TRACK = 7  # between two rules under one row of boxes
_MARGIN = 12

Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bar:
    """A network. y is its upper edge; remarks: what is special about it, for people."""

    name: str
    y: int
    remarks: str


@dataclass(frozen=True, slots=True)
class Box:
    """A machine, at its upper left corner. line: what to write under its name."""

    name: str
    x: int
    y: int
    router: bool
    line: str


@dataclass(frozen=True, slots=True)
class Wire:
    """A seat of a machine on a network. points end on the bar; label: an address, where the box does not say it."""

    machine: str
    points: tuple[Point, ...]
    label: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A rule of the policy, numbered from 1: the vertical at x, and strokes that lead to it from its sources (tails)
    and from it to its targets (heads, with an arrow at their last point)."""

    number: int
    rejected: bool
    x: int
    top: int
    bottom: int
    tails: tuple[tuple[Point, ...], ...]
    heads: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole topology."""

    width: int
    height: int
    bars: tuple[Bar, ...]
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    lanes: tuple[Lane, ...]


def lay_out(plan: LabPlan) -> Picture:
    """Place everything that a plan has. The same plan gives the same picture."""
    return _Layout(plan).picture()


@dataclass
class _Row:
    """A row of boxes: rules that begin or end in it have tracks below it."""

    bottom: int = 0
    tracks: dict[int, int] = field(default_factory=dict)


class _Layout:
    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan
        self.order = {network.name: place for place, network in enumerate(plan.networks)}
        self.on = {m.name: tuple(dict.fromkeys(i.network for i in m.interfaces)) for m in plan.machines}
        self.columns, self.left = self._columns()
        self.row_of: dict[str, tuple[str, int]] = {}
        self.rows: dict[tuple[str, int], _Row] = defaultdict(_Row)
        self.boxes: dict[str, Box] = {}
        self.bars: dict[str, Bar] = {}
        widest = max((min(len(self._hanging(n.name)), _PER_ROW) for n in plan.networks), default=0)
        self.right = self.left + max(widest, 1) * (BOX_WIDTH + _GAP)

    def picture(self) -> Picture:
        self._seat_rows()
        bottom = self._place()
        lanes = [lane for number, rule in enumerate(self.plan.policy, 1) for lane in self._lane(number, rule)]
        width = self.right + (len(self.plan.policy) + 1) * _LANE
        wires = tuple(wire for machine in self.plan.machines for wire in self._wires(machine))
        return Picture(width, bottom, tuple(self.bars.values()), tuple(self.boxes.values()), wires, tuple(lanes))

    def _columns(self) -> tuple[dict[str, int], int]:
        """The left edges of machines on several networks, such that no wire runs through a box; and where these end."""
        ends: list[int] = []
        columns: dict[str, int] = {}
        several = [m for m in self.plan.machines if len(self.on[m.name]) > 1]
        for machine in sorted(several, key=lambda m: min(self.order[n] for n in self.on[m.name])):
            places = [self.order[name] for name in self.on[machine.name]]
            free = next((c for c, end in enumerate(ends) if end < min(places)), len(ends))
            ends[free:] = [max(places), *ends[free + 1 :]]
            columns[machine.name] = _MARGIN + _GAP + free * (BOX_WIDTH + _GAP)
        return columns, _MARGIN + _GAP + len(ends) * (BOX_WIDTH + _GAP)

    def _hanging(self, network: str) -> list[MachinePlan]:
        return [m for m in self.plan.machines if self.on[m.name] == (network,)]

    def _seat_rows(self) -> None:
        """Say which row each machine is in, and which rules need a track below which row."""
        for network in self.plan.networks:
            for place, machine in enumerate(self._hanging(network.name)):
                self.row_of[machine.name] = network.name, place // _PER_ROW
        for name in self.columns:
            self.row_of[name] = min(self.on[name], key=self.order.__getitem__), 0
        for number, rule in enumerate(self.plan.policy, 1):
            for end in (rule.source, rule.target):
                for name in self._meant(end):
                    tracks = self.rows[self.row_of[name]].tracks
                    tracks.setdefault(number, len(tracks))

    def _place(self) -> int:
        """Place bars and boxes from top to bottom; the height that it takes."""
        y = _MARGIN
        for network in self.plan.networks:
            self.bars[network.name] = Bar(network.name, y, _remarks(network))
            y += BAR_HEIGHT + _GAP
            hanging = self._hanging(network.name)
            standing = [name for name in self.columns if self.row_of[name] == (network.name, 0)]
            for number in range(max(-(-len(hanging) // _PER_ROW), bool(standing))):
                row = self.rows[network.name, number]
                for place, machine in enumerate(hanging[number * _PER_ROW : (number + 1) * _PER_ROW]):
                    self._box(machine, self.left + place * (BOX_WIDTH + _GAP), y)
                for name in standing if number == 0 else ():
                    self._box(self.plan.machine(name), self.columns[name], y)
                row.bottom = y + BOX_HEIGHT
                y = row.bottom + _GAP + _TRACK * len(row.tracks)
        for place, machine in enumerate(m for m in self.plan.machines if not self.on[m.name]):
            self._box(machine, self.left + place % _PER_ROW * (BOX_WIDTH + _GAP), y + place // _PER_ROW * BOX_HEIGHT)
        lonely = sum(not self.on[m.name] for m in self.plan.machines)
        return y + -(-lonely // _PER_ROW) * (BOX_HEIGHT + _GAP)

    def _box(self, machine: MachinePlan, x: int, y: int) -> None:
        alone = len(self.on[machine.name]) == 1
        addresses = ", ".join(str(address) for i in machine.interfaces for address in i.addresses())
        line = addresses if alone and addresses else "router" if machine.router else machine.image
        self.boxes[machine.name] = Box(machine.name, x, y, machine.router, line)

    def _wires(self, machine: MachinePlan) -> list[Wire]:
        box, found = self.boxes[machine.name], []
        for network in self.on[machine.name]:
            bar = self.bars[network]
            texts = [str(a) for i in machine.interfaces if i.network == network for a in i.addresses()]
            if machine.name in self.columns:
                points, label = self._standing_wire(machine.name, network), "".join(texts[:1])
            elif self.row_of[machine.name][1] == 0:
                middle = box.x + BOX_WIDTH // 2
                points, label = ((middle, box.y), (middle, bar.y + BAR_HEIGHT)), ""
            else:  # beside the boxes above
                side, height = box.x - _GAP // 2, box.y + BOX_HEIGHT // 2
                points, label = ((box.x, height), (side, height), (side, bar.y + BAR_HEIGHT)), ""
            found.append(Wire(machine.name, points, label))
        return found

    def _standing_wire(self, name: str, network: str) -> tuple[Point, ...]:
        """From a box at the left to one of its bars; those to bars below leave it one beside the other."""
        box, bar = self.boxes[name], self.bars[network]
        below = sorted((n for n in self.on[name] if self.bars[n].y > box.y), key=lambda n: -self.order[n])
        if network not in below:
            return (box.x + 14, box.y), (box.x + 14, bar.y + BAR_HEIGHT)
        x = box.x + 14 + below.index(network) * min(14, (BOX_WIDTH - 28) // len(below))
        return (x, box.y + BOX_HEIGHT), (x, bar.y)

    def _meant(self, end: RuleEnd) -> list[str]:
        """The machines that a rule's end names; none where it means a network."""
        if end.machine is None:
            return []
        return [m.name for m in self.plan.machines if end.machine in (m.name, m.entry) and self.on[m.name]]

    def _lane(self, number: int, rule: PolicyRule) -> list[Lane]:
        x = self.right + number * _LANE
        sources, targets = self._strokes(rule.source, number, x), self._strokes(rule.target, number, x)
        if not sources or not targets:
            return []
        ends = [stroke[0][1] for stroke in (*sources, *targets)]
        top, bottom = min(ends), max(ends)
        if top == bottom and all(len(stroke) == 1 for stroke in (*sources, *targets)):
            return []  # from a network to itself: no router has a say in that
        half = BAR_HEIGHT // 2
        if len(targets[0]) == 1:  # the arrow ends at the edge of the target's bar
            edge = top + half if targets[0][0][1] == top else bottom - half
            targets = (((x, edge + 8), (x, edge)) if edge < bottom - half else ((x, edge - 8), (x, edge)),)
            top, bottom = (edge, bottom) if edge < bottom - half else (top, edge)
        return [Lane(number, rule.action == "reject", x, top, bottom, sources, targets)]

    def _strokes(self, end: RuleEnd, number: int, x: int) -> tuple[tuple[Point, ...], ...]:
        """From the lane to each thing that a rule's end means; a network's bar is crossed by the lane itself."""
        if end.machine is None:
            return (((x, self.bars[end.network or ""].y + BAR_HEIGHT // 2),),)
        strokes = []
        for name in self._meant(end):
            row, box = self.rows[self.row_of[name]], self.boxes[name]
            track = row.bottom + _GAP // 2 + row.tracks[number] * _TRACK
            foot = box.x + BOX_WIDTH - 16 - (row.tracks[number] * 12) % (BOX_WIDTH // 2)
            strokes.append(((x, track), (foot, track), (foot, row.bottom)))
        return tuple(strokes)


def _remarks(network: NetworkPlan) -> str:
    texts = [str(subnet) for subnet in network.subnets()] or ["bare wire"]
    texts += [] if network.peers else ["members reach routers only"]
    texts += [] if network.egress == "none" else ["way out by NAT"]
    return " · ".join(texts)
