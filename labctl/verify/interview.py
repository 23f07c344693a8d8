"""What is asked of a guest, in what the guest can do: Python where it has that, else a POSIX shell with its tools.

A Python that waits in the guest is asked by way of the provider. Where none does, one is started, which stays; a shell
hands it the later tasks. The shell's own program is started for each task. All do the same tasks and give the same
lines. A shell neither puts bare frames on a wire nor hears them, and it may lack the tools for some probes: it says so
of each of these, and nobody else needs to know which program it was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from labctl import inside
from labctl.plan.model import LabPlan
from labctl.providers.base import ExecResult
from labctl.verify import answers
from labctl.verify.agenda import Door, Probe
from labctl.verify.errands import Errands
from labctl.verify.guests import Session
from labctl.verify.wires import Overheard

QUICK = 1.5  # seconds of silence that end a probe which must not be answered
PATIENT = 6.0  # seconds that an expected answer may take: address resolution in an emulated guest is slow
_BATCH = 400  # probes that the Python program sends at once
_START = 60.0  # seconds that a cold guest on a very busy host may take to start the program
_SHELL_PROBE = 3.0  # seconds for each probe of the shell's: it starts programs, some at a time, in a slow guest
_NO_PROGRAM = (126, 127)  # a shell's words for a program that is not there, or not to be run

PYTHON = ("python3", "-IS", "-")
"""How the Python program starts: from standard input, without the site module, which a cold guest loads slowly."""

NO_FRAMES = (
    "it has no python3, and a shell neither sends nor hears bare frames (install python3-minimal in it, and it can)"
)

_DEVICE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TOKEN = re.compile(r"[0-9a-f]{1,64}")
_ADDRESS = re.compile(r"[0-9a-f.:]{2,45}")  # without a scope, which could be any text


@dataclass(frozen=True, slots=True)
class _Resident:
    """A process that stays in a guest. pipes: how a shell asks it; none where it is at the door. specs: its probes by
    id."""

    pipes: tuple[str, ...]
    specs: Mapping[int, tuple[Any, ...]]


@dataclass
class Interview:
    """The tasks of every guest of a plan. deaf: machines that can only be asked for packets, with the reason.

    Each task raises BadAnswer where the guest says something else than it was asked, LabctlError where it is silent.
    """

    plan: LabPlan
    session: Session
    tasks: Errands
    deaf: dict[str, str] = field(default_factory=dict)
    _residents: dict[str, _Resident] = field(default_factory=dict)

    def listen(
        self,
        name: str,
        seconds: int,
        token: str,
        doors: Sequence[Door],
        probes: Sequence[Probe],
        ours: Collection[Door],
    ) -> dict[int, str]:
        """Open listeners that end after ``seconds``: index of a door to ``open``, ``taken`` or an error.

        probes: what the machine will be asked. ours: the doors that are to be listeners of labctl's by then.
        """
        said = self._reside(name, seconds, token, doors, probes, ours)
        if said is not None:
            return said
        lines = [f"key {self._key(name)}", f"seconds {seconds:d}", f"token {_one(_TOKEN, token)}"]
        lines += [" ".join(["door", str(i), *_door_words(door)]) for i, door in enumerate(doors)]
        return answers.opened(self._shell(name, "listen", lines, 2 * _START), len(doors)).doors

    def probe(self, name: str, probes: Sequence[Probe], ours: Mapping[Door, str]) -> answers.Batch:
        """Send probes, and beside them what the machine has to put on its wires. ours: what became of each listener."""
        specs = [probe.task(ours.get(probe.door) == "open") for probe in probes]
        ids = [probe.id for probe in probes]
        if name in self._residents:
            known = self._residents[name].specs
            some = None if known.keys() == set(ids) else ids
            task = ("probe", some, [spec for spec in specs if spec != known.get(spec[0])])
            most = _START + PATIENT * (1 + len(probes) // _BATCH)
            return answers.batch(self._ask(name, task, most, takes=QUICK), ids)
        gateway = self._gateway(probes)
        lines = [f"device {_one(_DEVICE, device)} {_one(_MAC, mac)}" for device, mac in self._devices(name)]
        lines += [f"gateway {_one(_DEVICE, gateway[0])} {ip_address(gateway[1])}"] if gateway else []
        lines += [_probe_line(spec, probe.door) for spec, probe in zip(specs, probes, strict=True)]
        return answers.batch(self._shell(name, "probe", lines, 2 * _START + _SHELL_PROBE * len(probes)), ids)

    def collect(self, name: str) -> tuple[frozenset[str], Overheard]:
        """End the listeners: the nonces that reached them, and what was heard on the wires."""
        if name in self._residents:
            return answers.collected(self._ask(name, ("collect",), _START))
        return answers.collected(self._shell(name, "collect", [f"key {self._key(name)}"], _START))

    def _gateway(self, probes: Sequence[Probe]) -> tuple[str, str] | None:
        """Device and address of the management path, where a probe goes that way."""
        management = self.plan.management
        routed = any(probe.device == management.device for probe in probes)
        return (management.device, str(management.host)) if routed else None

    def _devices(self, name: str) -> list[tuple[str, str]]:
        """Planned device and MAC of every NIC of a machine."""
        return [(nic.device, nic.mac) for nic in self.tasks.nics if nic.machine == name]

    def _key(self, name: str) -> str:
        """What the files of a guest's listeners are called by: nobody else's are."""
        machine = self.plan.machine(name)
        return hashlib.sha256("/".join((self.plan.lab, self.plan.instance, name, machine.uuid)).encode()).hexdigest()[
            :16
        ]

    def _reside(
        self,
        name: str,
        seconds: int,
        token: str,
        doors: Sequence[Door],
        probes: Sequence[Probe],
        ours: Collection[Door],
    ) -> dict[int, str] | None:
        """``listen`` by the Python program, which stays; None without Python."""
        specs = {probe.id: probe.task(probe.door in ours) for probe in probes}
        wanted = [(door.family, door.protocol, door.address, door.port) for door in doors]
        devices, tasks = self._devices(name), self.tasks
        batch = (QUICK, PATIENT, self._gateway(probes), devices, list(specs.values()), _as_text(tasks.batch(name)))
        first, filters = _as_text(tasks.first(name)), _as_text(tasks.filters(name))
        task = (seconds, token, wanted, devices, first, filters, batch)
        said = self._at_the_door(name, ("listen", *task), _START)
        if said is not None:
            self._residents[name] = _Resident((), specs)
            return answers.opened(said, len(doors)).doors
        result = self.session.run(name, PYTHON, stdin=inside.resident(*task).encode(), timeout=_START)
        if result.code in _NO_PROGRAM:
            self.deaf[name] = NO_FRAMES
            return None
        opened = answers.opened(_good(result), len(doors))
        if not opened.pipes:
            raise answers.BadAnswer("it does not say how its listeners are asked")
        self._residents[name] = _Resident(opened.pipes, specs)
        return opened.doors

    def _ask(self, name: str, task: tuple[Any, ...], timeout: float, *, takes: float = 0) -> bytes:
        """Have the resident of a guest do a task of numbers and of texts that labctl made itself."""
        if pipes := self._residents[name].pipes:
            line = f"{inside.marshalled(*task).hex()}\n"
            return _line(_good(self.session.run(name, (*inside.ASK, *pipes), stdin=line.encode(), timeout=timeout)))
        said = self._at_the_door(name, task, timeout, takes=takes)
        if said is None:
            raise answers.BadAnswer("the probe program is gone, or cannot be asked any more")
        return said

    def _at_the_door(self, name: str, task: tuple[Any, ...], timeout: float, *, takes: float = 0) -> bytes | None:
        """Have the program that waits in a guest do a task; None where none waits."""
        said = self.session.ask(name, inside.door(), inside.marshalled(*task), takes=takes, timeout=timeout)
        return None if said is None else _line(said)

    def _shell(self, name: str, mode: str, lines: Sequence[str], timeout: float) -> bytes:
        """Run the shell program; its task is data on standard input and nowhere else."""
        text = "".join(line + "\n" for line in lines)
        result = self.session.run(
            name, ("sh", "-c", inside.SHELL, "labctl", mode), stdin=text.encode(), timeout=timeout
        )
        if result.code in _NO_PROGRAM:
            raise answers.BadAnswer("it has no python3 and no shell")
        return _good(result)


def _good(result: ExecResult) -> bytes:
    if result.code != 0:
        last = (result.stderr[-2000:].decode(errors="replace").strip().splitlines() or [""])[-1]
        raise answers.BadAnswer(f"the probe program ended with status {result.code}: {answers.plain(last)}")
    return result.stdout


def _line(said: bytes) -> bytes:
    if said.startswith(b"!"):
        raise answers.BadAnswer(f"the probe program failed: {answers.plain(said[1:500].decode(errors='replace'))}")
    return said


def _as_text(frames: Sequence[tuple[str, bytes]]) -> list[tuple[str, str]]:
    return [(device, frame.hex()) for device, frame in frames]


def _probe_line(spec: tuple[Any, ...], door: Door) -> str:
    number, device, *_, payload, _ = spec
    escaped = "".join(f"\\0{byte:03o}" for byte in payload.encode("latin-1"))
    words = ["probe", str(int(number)), _one(_DEVICE, device) if device else "-", *_door_words(door), escaped or "-"]
    return " ".join(words)


def _door_words(door: Door) -> tuple[str, str, str, str]:
    """Family, protocol, address and port of a door, each of them one word that a shell takes for nothing else."""
    return (
        str(int(door.family)),
        _one(_DEVICE, door.protocol),
        _one(_ADDRESS, str(ip_address(door.address))),
        str(int(door.port)),
    )


def _one(form: re.Pattern[str], text: str) -> str:
    """A word of a plan that goes into a line of words; raises BadAnswer for what could be more than one."""
    if form.fullmatch(text) is None:
        raise answers.BadAnswer(f"its plan has {text!r}, which a shell cannot be told")
    return text
