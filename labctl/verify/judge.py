"""From answers to verdicts: what counts as seen, and which answers show that a denial could have failed. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from labctl.plan.model import Flow, FlowProtocol, LabPlan
from labctl.verify.agenda import Agenda, Cell, Door, declared, own_door, serves_files
from labctl.verify.answers import Answer
from labctl.verify.model import Control, Evidence, ProbedFlow, verdict

_Leg = tuple[str, str, FlowProtocol, int]  # machine, device, protocol, family


@dataclass(frozen=True, slots=True)
class Heard:
    """All that was heard.

    answers: by probe id, from the source of each probe. troubles: machine to the reason why it could not be asked.
    listeners: what became of each door that was to be opened: ``open`` (ours), ``taken`` (a program of the guest
    listens there) or an error. tokens: what the listeners of a machine (or the canaries of ``host``) say. arrived: for
    each of those, the nonces that reached them. sound: (machine, device) of NICs that the guest calls up and the engine
    has as planned. host: controls of doors on the host and beyond, tried by labctl itself.
    """

    answers: Mapping[int, Answer]
    troubles: Mapping[str, str]
    listeners: Mapping[Door, str]
    tokens: Mapping[str, str]
    arrived: Mapping[str, Collection[str]]
    sound: Collection[tuple[str, str]]
    unplugged: Collection[tuple[str, str]]
    host: Mapping[Door, Control]


def judge(plan: LabPlan, todo: Agenda, heard: Heard, own_port: int) -> tuple[ProbedFlow, ...]:
    """One verdict for each cell, in the agenda's order. own_port: the port of each machine's listener for itself."""
    return _Judge(plan, todo, heard, own_port).flows()


class _Judge:
    def __init__(self, plan: LabPlan, todo: Agenda, heard: Heard, own_port: int) -> None:
        self.todo, self.heard, self.own_port = todo, heard, own_port
        self.management = plan.management.device
        self.machines = {machine.name: machine for machine in plan.machines}
        self.evidence = {cell.probe.id: self._evidence(cell) for cell in todo.cells}
        self.reached_from: dict[tuple[str, str, int], list[Cell]] = defaultdict(list)
        self.reached_at: dict[Door, Cell] = {}
        for cell in todo.cells:
            if cell.flow.expected == "pass" and self.evidence[cell.probe.id].seen == "answered":
                self.reached_from[cell.flow.source, cell.flow.protocol, cell.flow.family].append(cell)
                self.reached_at.setdefault(cell.door, cell)
        self.mute = self._mute()

    def flows(self) -> tuple[ProbedFlow, ...]:
        return tuple(self._judged(cell) for cell in self.todo.cells)

    def _judged(self, cell: Cell) -> ProbedFlow:
        flow, evidence = cell.flow, self.evidence[cell.probe.id]
        controls = (self._source(flow), self._target(cell)) if flow.expected == "deny" else ()
        return ProbedFlow(
            source=flow.source,
            source_device=flow.source_device,
            target=flow.target,
            target_device=flow.target_device,
            address=cell.door.address,
            family=flow.family,
            protocol=flow.protocol,
            port=flow.port,
            expected=flow.expected,
            verdict=verdict(flow.expected, flow.rejected or self._by_management(flow), evidence, controls),
            evidence=evidence,
            control=controls,
            why=flow.why,
        )

    def _by_management(self, flow: Flow) -> bool:
        """A user-mode network answers TCP for addresses that it does not lead to with a reset of its own.

        So a refusal there is as good as silence, given that the target was shown to answer and not to refuse.
        """
        return flow.source_device == self.management

    # --- what was seen ---

    def _evidence(self, cell: Cell) -> Evidence:
        trouble = self.heard.troubles.get(cell.flow.source)
        if trouble is not None:
            return Evidence("error", f"{cell.flow.source} could not be asked: {trouble}")
        answer = self.heard.answers.get(cell.probe.id)
        if answer is None:
            return Evidence("error", f"{cell.flow.source} says nothing about this probe")
        came = answer.milliseconds if answer.seen in ("answered", "refused", "prohibited") else None
        seen = Evidence(answer.seen, answer.details, came)
        if cell.flow.expected == "pass":
            return self._of_pass(cell, answer, seen)
        if answer.seen == "answered" and _is_file_server(cell):
            return _of_file_server(answer, seen)
        return self._of_denial(cell, seen)

    def _of_denial(self, cell: Cell, seen: Evidence) -> Evidence:
        """An answer counts without proof, against the lab; and so does a probe that the target got in silence."""
        if seen.seen not in ("answered", "refused") and self._arrived(cell):
            return Evidence("answered", f"the probe reached {cell.flow.target}; {cell.flow.source} says {seen.seen}")
        return seen

    def _of_pass(self, cell: Cell, answer: Answer, seen: Evidence) -> Evidence:
        """An answer counts only with its proof, where one is due; a missing one only where the target could answer."""
        target, door = cell.flow.target, cell.door
        if seen.seen == "answered":
            if not self._proven(door, answer) and not self._arrived(cell):
                return Evidence("error", f"{cell.flow.source} claims an answer but cannot say what {target} answered")
            return seen
        if target in self.heard.troubles:
            return Evidence("error", f"{target} could not be asked: {self.heard.troubles[target]}; seen: {seen.seen}")
        if door in self.todo.listeners.get(target, ()) and not self._answers_itself(door):
            how = self.heard.listeners.get(door)
            why = f": {how}" if how else ""
            return Evidence("error", f"no listener could be opened on {target}{why}; seen: {seen.seen}")
        silent_service = door.protocol == "udp" and target in self.machines and not self._answers_itself(door)
        if silent_service and seen.seen == "silence" and declared(self.machines[target], door):
            return Evidence("error", f"the service on {target} answers this probe to nobody, not even to {target}")
        return seen

    def _arrived(self, cell: Cell) -> bool:
        owner = "host" if cell.flow.target == "management" else cell.flow.target
        return cell.probe.nonce in self.heard.arrived.get(owner, ())

    def _answers_itself(self, door: Door) -> bool:
        """Whether a machine got an answer from a door of its own; it needs no proof, which it could make itself."""
        probe = self.todo.own.get(door)
        answer = self.heard.answers.get(probe.id) if probe else None
        if probe is None:
            return self.heard.listeners.get(door) in ("open", "taken")
        return answer is not None and answer.seen == "answered"

    def _proven(self, door: Door, answer: Answer) -> bool:
        """Whether an answer shows the token of the listener that we opened there; true where none of ours is."""
        return self.heard.listeners.get(door) != "open" or answer.proof == self.heard.tokens.get(door.owner)

    # --- controls ---

    def _mute(self) -> frozenset[_Leg]:
        """NICs that may reach somebody, or be reached, and exchanged nothing with anybody: they might be broken.

        What such a machine reaches by another NIC or by itself then shows nothing about this one.
        """
        silent: set[_Leg] = set()
        alive: set[_Leg] = set()
        for cell in self.todo.cells:
            flow, seen = cell.flow, self.evidence[cell.probe.id].seen
            if flow.expected == "pass":
                legs = ((flow.source, flow.source_device), (flow.target, flow.target_device))
                kinds = {"silence": silent, "no-route": silent, "answered": alive, "refused": alive}
                kinds.get(seen, set()).update((*leg, flow.protocol, flow.family) for leg in legs)
        return frozenset(silent - alive)

    def _state(self, flow: Flow, machine: str, device: str) -> tuple[bool, str]:
        """Whether a NIC can be taken to work, and that in words."""
        if (machine, device, flow.protocol, flow.family) in self.mute:
            return False, f"{device} exchanged nothing with anybody who may be reached"
        sound = (machine, device) in self.heard.sound
        return sound, f"{device} is up as planned" if sound else f"{device} is not up as planned"

    def _source(self, flow: Flow) -> Control:
        """The source reaches something with the same protocol: best over the same NIC."""
        name, device = flow.source, flow.source_device
        reached = self.reached_from[name, flow.protocol, flow.family]
        same = next((cell for cell in reached if cell.flow.source_device == device), None)
        if same is not None:
            return Control("source", True, "peer", f"{name} reached {_place(same)} from {device}")
        if (name, device) in self.heard.unplugged:
            return Control("source", True, "unplugged", f"the engine reports the cable of {device} of {name} pulled")
        sound, state = self._state(flow, name, device)
        if reached:
            other = reached[0]
            details = f"{name} reached {_place(other)} from {other.flow.source_device}; {state}"
            return Control("source", sound, "nic", details)
        door = own_door(self.machines[name], flow, self.own_port)
        if self._answers_itself(door):
            return Control("source", sound, "self", f"{name} reached its own {door.address}; {state}")
        return Control("source", False, "none", f"{name} reached nothing by {flow.protocol} over IPv{flow.family}")

    def _target(self, cell: Cell) -> Control:
        """The target's port answers somebody who may reach it: best another machine."""
        flow, door = cell.flow, cell.door
        if flow.target not in self.machines:
            if _is_file_server(cell) and self.evidence[cell.probe.id].seen == "refused":
                return Control("target", True, "peer", f"{_place(cell)} answered {flow.source}: it serves no folder")
            missing = Control("target", False, "none", f"nothing shows that {_place(cell)} would answer")
            return self.heard.host.get(door, missing)
        peer = self.reached_at.get(door)
        if peer is not None:
            return Control("target", True, "peer", f"{_place(cell)} answered {peer.flow.source}")
        if (flow.target, flow.target_device) in self.heard.unplugged:
            details = f"the engine reports the cable of {flow.target_device} of {flow.target} pulled"
            return Control("target", True, "unplugged", details)
        sound, state = self._state(flow, flow.target, flow.target_device)
        if self._answers_itself(door):
            return Control("target", sound, "self", f"{_place(cell)} answered {flow.target} itself; {state}")
        trouble = self.heard.troubles.get(flow.target)
        return Control("target", False, "none", f"{_place(cell)} answered nobody" + (f": {trouble}" if trouble else ""))


def _is_file_server(cell: Cell) -> bool:
    return serves_files(cell.door.owner, cell.door.protocol, cell.door.port)


def _of_file_server(answer: Answer, seen: Evidence) -> Evidence:
    """QEMU's TFTP server answers whatever is closed: without a folder to serve with "Access violation".

    With one, it says "File not found" to a name that is not there, or sends a file.
    """
    letters = "".join(letter for letter in answer.proof if letter.isalpha())
    if letters == "Accessviolation":
        return Evidence("refused", "it serves no folder (Access violation)", seen.milliseconds)
    return Evidence("answered", f"it serves files: {answer.proof.strip('?') or answer.details}", seen.milliseconds)


def _place(cell: Cell) -> str:
    door = cell.door
    port = "" if door.protocol == "icmp" else f"/{door.port}"
    return f"{cell.flow.target} ({door.address} {door.protocol}{port})"
