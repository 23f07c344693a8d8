"""An SSH configuration for a class: a host for every machine, for the teacher here or for students elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from labctl.errors import LabctlError, UsageError
from labctl.lifecycle.classroom.seats import Place
from labctl.lifecycle.locate import running
from labctl.plan.model import MachinePlan
from labctl.providers.base import Endpoint
from labctl.providers.ssh import setting
from labctl.spec.classfile import ClassSpec

_SERVER = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,63}@)?[A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,5})?\Z")


def config(spec: ClassSpec, chosen: Sequence[Place], machines: Sequence[str] = (), jump: str | None = None) -> str:
    """The configuration's text, a host called INSTANCE-MACHINE for each. machines: only these; empty for all.

    jump: the server whose door (``labctl.lifecycle.classroom.door``) students come through with keys of their own; then
    only machines and the account that ``login`` names are in it. Raises UsageError.
    """
    check_server(jump)
    if jump is not None and spec.login is None:
        raise UsageError(
            f"{spec.name} lets no student in with a key", hint="`login` in the class file says where, and as whom."
        )
    blocks = [block for place in chosen for block in _blocks(spec, place, machines, jump)]
    head = f"# The class {spec.name}"
    if jump is None:
        head += ", as it runs now. Ports change when instances are made anew: write it again then."
    return "\n\n".join([head, *blocks]) + "\n"


def check_server(jump: str | None) -> None:
    """Raises UsageError for what cannot be a server's name: it ends up in settings and commands of others."""
    if jump is not None and not _SERVER.match(jump):
        raise UsageError(f"{jump!r} is no server", hint="Such as teacher@lab.example.org")


def _blocks(spec: ClassSpec, place: Place, machines: Sequence[str], jump: str | None) -> Iterator[str]:
    if place.folder is None or place.record is None:
        return
    try:
        lab = running(place.folder)
    except LabctlError:
        return
    for machine in lab.plan.machines:
        name = machine.name
        if machines and name not in machines:
            continue
        if jump is not None:
            if let_in(spec, machine):
                yield _through(spec, place, name, jump)
            continue
        try:
            endpoint = lab.provider.endpoint(lab.plan, name)
        except LabctlError as error:
            yield f"# {place.instance}-{name}: {error.brief}"
            continue
        yield _own(place, name, endpoint)


def let_in(spec: ClassSpec, machine: MachinePlan) -> bool:
    """Whether ``login`` names a machine, by its entry in the lab's file."""
    return spec.login is not None and machine.entry in spec.login.machines


def at_the_door(jump: str, *words: str) -> str:
    """The command by which a student says something to a server's door: ``connect MACHINE``, ``submit``."""
    server, _, port = jump.partition(":")
    return " ".join(["ssh", *(["-p", port] if port else []), server, *words])


def host_name(spec: ClassSpec, place: Place, machine: str) -> str:
    """What a student's SSH keeps the host key of a machine by: ports come and go, and ids are in many classes."""
    return f"{spec.name}.{place.instance}.{machine}"


def _own(place: Place, machine: str, endpoint: Endpoint) -> str:
    return _host(
        place,
        machine,
        HostName=endpoint.host,
        Port=str(endpoint.port),
        User=endpoint.user,
        IdentityFile=setting(endpoint.identity),
        IdentitiesOnly="yes",
        StrictHostKeyChecking="yes",
        UserKnownHostsFile=setting(endpoint.known_hosts),
    )


def _through(spec: ClassSpec, place: Place, machine: str, jump: str) -> str:
    return _host(
        place,
        machine,
        HostName=host_name(spec, place, machine),
        User=spec.login.user if spec.login is not None else "",
        ProxyCommand=at_the_door(jump, "connect", machine),
        StrictHostKeyChecking="accept-new",
    )


def _host(place: Place, machine: str, **options: str) -> str:
    return "\n".join([f"Host {place.instance}-{machine}", *(f"  {key} {value}" for key, value in options.items())])
