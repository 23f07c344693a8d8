"""Reports of labs that do not run: the real judge, over answers that a test makes up. And what those of labs say."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any

from labctl.plan.model import LabPlan
from labctl.verify.agenda import Agenda, Cell, Surroundings, agenda
from labctl.verify.answers import Answer
from labctl.verify.judge import Heard, judge
from labctl.verify.model import Control, Finding, MachineImage, Origin, Report

HOST = "192.0.2.77"
ORIGIN_COMMIT = "0123456789abcdef0123456789abcdef01234567"


def reported(
    plan: LabPlan,
    *,
    dead: Mapping[str, str] | None = None,
    open_to: Collection[tuple[str, str, str, int]] = (),
    shut: Collection[tuple[str, str, str, int]] = (),
    mute: Collection[tuple[str, str, int]] = (),
    deaf: Collection[str] = (),
    says: str = "",
    findings: tuple[Finding, ...] = (),
    started: float = 1_700_000_000.25,
) -> Report:
    """The report of a lab that does as its plan says, but for what is named here.

    dead: machine to why it could not be asked. open_to: (source, target, protocol, port) that passes all the same.
    shut: one that does not pass. mute: (target, protocol, port) that answers nobody. deaf: machines without listeners,
    and without an answer of their own. says: what guests add to each answer.
    """
    numbers = itertools.count()
    todo = agenda(plan, Surroundings((HOST,), 50000, 60000), lambda: f"{next(numbers):016x}")
    troubles = dict(dead or {})
    silent = {*troubles, *deaf}
    tokens = {name: f"token-of-{name}" for name in (*(m.name for m in plan.machines), "host", "management")}

    def answer(cell: Cell) -> Answer:
        flow, door = cell.flow, cell.door
        closed = (flow.target, door.protocol, door.port) in mute or flow.target in troubles
        closed = closed or (flow.source, flow.target, door.protocol, door.port) in shut
        leaks = (flow.source, flow.target, door.protocol, door.port) in open_to
        passes = flow.expected == "pass" or (leaks and flow.source_device != plan.management.device)
        return (
            Answer("answered", says, 4, tokens[door.owner]) if passes and not closed else Answer("silence", "", 0, "")
        )

    answers = {cell.probe.id: answer(cell) for cell in todo.cells if cell.flow.source not in troubles}
    answers |= {p.id: Answer("answered", "", 1, tokens[d.owner]) for d, p in todo.own.items() if d.owner not in silent}
    heard = Heard(
        answers=answers,
        troubles=troubles,
        listeners={door: "open" for name, doors in todo.listeners.items() if name not in silent for door in doors},
        tokens=tokens,
        arrived={},
        sound={(m.name, device) for m in plan.machines for device in _devices(plan, m.name)},
        unplugged=frozenset(),
        host=_host_controls(todo),
    )
    images = tuple(MachineImage(m.name, m.image, f"{n:064x}" if n else "") for n, m in enumerate(plan.machines))
    origin = Origin(f"labs/{plan.lab}/lab.yaml", ORIGIN_COMMIT, False, images)
    flows = judge(plan, todo, heard, 60000)
    return Report(plan.lab, plan.instance, plan.provider, "0" * 64, started, started + 2.75, flows, findings, origin)


def _devices(plan: LabPlan, name: str) -> list[str]:
    return [*(interface.device for interface in plan.machine(name).interfaces), plan.management.device]


def _host_controls(todo: Agenda) -> dict[object, Control]:
    doors = {cell.door for cell in todo.cells if not cell.flow.target_device}
    return {door: Control("target", True, "host", f"{door.owner} answered the host itself") for door in doors}


def verdicts(report: Mapping[str, Any]) -> set[tuple[object, ...]]:
    """What was found of every flow that begins on a network of the lab: the management path is each engine's own."""
    keys = ("source", "source_device", "target", "target_device", "family", "protocol", "expected", "verdict")
    flows = (flow for flow in report["flows"] if "mgmt" not in (flow["source_device"], flow["target_device"]))
    return {(*(flow[key] for key in keys), flow.get("trick", ""), _port(flow)) for flow in flows}


def _port(flow: Mapping[str, Any]) -> int:
    """The port of a flow; 0 where labctl takes another one each time: canaries', and that of a seeming answer."""
    return 0 if flow["target"] == "host" or flow.get("trick") == "source-port" else int(flow["port"])
