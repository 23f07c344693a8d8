"""The way in for students: this host's SSH server runs one command of labctl's for each key of the roster.

No key opens a shell, a file or a port here. ``restrict`` closes all that SSH can do beside running a command, and the
command is fixed: it joins the student's SSH with that of a machine of their own instance, where ``login`` lets them in.
A key that may forward to one port would be no alternative: sshd limits ports alone, and lets such a key make sockets in
any folder of the account (``remote_open_match`` in OpenSSH's channels.c).
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from labctl.errors import LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.host import relay
from labctl.lifecycle.classroom import keys_file
from labctl.lifecycle.locate import Running, running
from labctl.spec.classfile import ClassSpec
from labctl.spec.load import load
from labctl.spec.problems import choices
from labctl.state.record import InstanceFolder

_SECONDS = 30.0  # until a machine's SSH port takes a connection
_MOST = 2000  # characters of what a student says that are looked at
_ASK = "Ask your teacher."


def lines(spec: ClassSpec) -> tuple[str, ...]:
    """What sshd needs in authorized_keys, sshd(8): a line for every key of the roster.

    The lab's file is read for its name. Raises UsageError where the class lets nobody in, or where a key would open two
    instances; SpecError.
    """
    if spec.login is None:
        raise UsageError(
            f"{spec.name} lets no student in with a key", hint="`login` in the class file says where, and as whom."
        )
    lab, whose = load(spec.lab).name, dict[str, str]()
    for seat in spec.seats:
        for student in seat.students:
            key = " ".join(student.key.split()[:2])  # the comment is the student's own
            if key and whose.setdefault(key, seat.instance) != seat.instance:
                raise UsageError(
                    f"{whose[key]} and {seat.instance} have the same key, and a key opens one instance",
                    hint="Who shares an instance is in one of the `groups`.",
                )
    return tuple(_line(spec, lab, instance, key) for key, instance in whose.items())


def renew(spec: ClassSpec, listener: Listener = ignore) -> None:
    """Let the file that has the class's lines say what the roster says. What goes wrong is a warning."""
    try:
        if (file := keys_file.where(spec.name)) is not None:
            keys_file.put(spec.name, lines(spec) if spec.login is not None else (), file)
    except LabctlError as error:
        listener(Event("warning", "authorized-keys", message=error.brief))


def _line(spec: ClassSpec, lab: str, instance: str, key: str) -> str:
    chosen = os.environ.get("LABCTL_STATE_DIR")  # sshd starts commands with an environment of its own
    state = ["env", f"LABCTL_STATE_DIR={os.path.abspath(chosen)}"] if chosen else []  # noqa: PTH100 - links stay
    labctl = [sys.executable, "-P", "-m", "labctl"]  # -P: nothing out of the account's home is taken for labctl
    command = shlex.join([*state, *labctl, "class", "enter", spec.name, lab, instance])
    if not command.isprintable():
        raise UsageError(f"no line of authorized_keys can hold {command!r}")
    quoted = command.replace('"', '\\"')
    return f'restrict,command="{quoted}" {key} {spec.name}/{instance}'


@dataclass(frozen=True, slots=True)
class Asked:
    """What a student at the door wants: a machine, or, where there is none, to hand in a flag. flag: maybe not said."""

    lab: Running
    machine: str = ""
    flag: str | None = None


def asked(name: str, lab: str, instance: str, said: str) -> Asked:
    """What a student means. name: of the class. said: what they told SSH to run: ``connect MACHINE``, ``submit FLAG``.

    Raises UsageError for anything else, and for a machine that is not let in to.
    """
    folder = InstanceFolder(lab, instance)
    record = folder.record()
    if record is None or record.owner != name or not record.admission:
        raise UsageError(f"{instance} is not there", hint=_ASK)
    found = running(folder)
    names = [m.name for m in found.plan.machines if m.entry in record.admission["machines"]]
    match said[:_MOST].split():
        case ["connect", machine] if machine in names:
            return Asked(found, machine)
        case ["connect", machine]:
            raise UsageError("there is no such machine to log in to", hint=choices("Machines", names, machine))
        case ["submit", *words]:
            return Asked(found, flag=" ".join(words) if words else None)
    raise UsageError("this key leads to machines of a lab and to nothing else", hint=_how(f"{name}.{instance}", names))


def _how(host: str, names: Sequence[str]) -> str:
    return f"Machines: {', '.join(names)}. The way to one: ssh -o ProxyCommand='ssh SERVER connect MACHINE' {host}"


def connect(lab: Running, machine: str) -> socket.socket:
    """A connection to a machine's SSH server. Raises LabctlError where it does not take one."""
    try:
        endpoint = lab.provider.endpoint(lab.plan, machine)
        return socket.create_connection((endpoint.host, endpoint.port), _SECONDS)
    except (LabctlError, OSError) as error:
        raise LabctlError(f"{machine} does not answer", hint=_ASK) from error


def hand_over(connection: socket.socket) -> NoReturn:
    """Become the program that joins standard input and output with a connection; it does not return."""
    connection.settimeout(None)
    connection.set_inheritable(True)
    argv = [sys.executable, "-I", "-S", relay.__file__, str(connection.fileno())]
    os.execv(argv[0], argv)  # noqa: S606 - the student's SSH now speaks with the machine's
