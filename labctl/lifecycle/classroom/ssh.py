"""An SSH configuration for a class: a host for every machine that runs, with its key pinned."""

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

    jump: a server through which students come with keys of their own; then only machines and the account that ``login``
    names are in it. Raises UsageError.
    """
    check_server(jump)
    if jump is not None and spec.login is None:
        raise UsageError(
            f"{spec.name} lets no student in with a key", hint="`login` in the class file says where, and as whom."
        )
    blocks = [block for place in chosen for block in _blocks(spec, place, machines, jump)]
    head = f"# The class {spec.name}, as it runs now. Ports change when instances are made anew: write it again then."
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
        if (machines and name not in machines) or (jump is not None and not let_in(spec, machine)):
            continue
        try:
            endpoint = lab.provider.endpoint(lab.plan, name)
        except LabctlError as error:
            yield f"# {place.instance}-{name}: {error.brief}"
            continue
        yield _own(place, name, endpoint) if jump is None else _through(spec, place, name, endpoint, jump)


def let_in(spec: ClassSpec, machine: MachinePlan) -> bool:
    """Whether ``login`` names a machine, by its entry in the lab's file."""
    return spec.login is not None and machine.entry in spec.login.machines


def _own(place: Place, machine: str, endpoint: Endpoint) -> str:
    return _host(
        place,
        machine,
        endpoint,
        User=endpoint.user,
        IdentityFile=setting(endpoint.identity),
        IdentitiesOnly="yes",
        StrictHostKeyChecking="yes",
        UserKnownHostsFile=setting(endpoint.known_hosts),
    )


def _through(spec: ClassSpec, place: Place, machine: str, endpoint: Endpoint, jump: str) -> str:
    """Ports of guests come and go, so a host key is kept by the machine's name and not by its address."""
    user = spec.login.user if spec.login is not None else endpoint.user
    return _host(
        place,
        machine,
        endpoint,
        User=user,
        ProxyJump=jump,
        HostKeyAlias=f"{spec.name}.{place.instance}.{machine}",
        StrictHostKeyChecking="accept-new",
    )


def _host(place: Place, machine: str, endpoint: Endpoint, **options: str) -> str:
    lines = [f"Host {place.instance}-{machine}", f"  HostName {endpoint.host}", f"  Port {endpoint.port}"]
    return "\n".join([*lines, *(f"  {key} {value}" for key, value in options.items())])
